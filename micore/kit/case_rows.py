"""From cases to the rows of a search, and from its rows back to reconstructions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from micore.contracts import Case, Reconstruction, Snapshot
from micore.errors import BudgetExceeded, CaseFailed
from micore.kit.search import Draw, Found, Rows, RowStatus, Stand
from micore.runtime import Random, Runtime
from micore.target import Target
from micore.threat import Ledger

__all__ = [
    "confidences", "make_rows", "normal_draws", "reconstructions", "score_rows", "standard_normal", "tiled",
    "uniform_draws",
]  # fmt: skip


def standard_normal(cases: Sequence[Case], shape: Sequence[int], runtime: Runtime, purpose: str = "latents") -> Tensor:
    """Draw N(0, 1) of ``shape`` for each case from its own stream: (C, *shape); such as (restarts, latent_dim)."""
    return torch.stack([runtime.rng(purpose, case.id).normal(shape) for case in cases])


def make_rows(
    cases: Sequence[Case], starts: Tensor, draw: Draw | None = None, constants: Mapping[str, Tensor] | None = None
) -> Rows:
    """Lay out starts (C, R, ...) as C * R rows, case by case.

    constants: further tensors (C, R, ...) or (C, 1, ...); ``labels`` (N,) are added for cases that have one.
    """
    restarts = starts.shape[1]
    flat = {
        name: values.expand(-1, restarts, *values.shape[2:]).flatten(0, 1) for name, values in (constants or {}).items()
    }
    labels = [case.label for case in cases]
    if None not in labels:
        flat["labels"] = torch.tensor(labels, device=starts.device).repeat_interleave(restarts)
    owners = [case.id for case in cases for _ in range(restarts)]
    return Rows(starts=starts.flatten(0, 1), owners=owners, constants=flat, draw=draw)


def uniform_draws(cases: Sequence[Case], restarts: int, n: int, runtime: Runtime, purpose: str = "views") -> Draw:
    """Return a draw of n numbers from U[0, 1) per row and step; each row has its own stream."""
    return _draws(cases, restarts, runtime, purpose, lambda stream, steps: stream.uniform((steps, n)))


def normal_draws(cases: Sequence[Case], restarts: int, n: int, runtime: Runtime, purpose: str = "noise") -> Draw:
    """Return a draw of n numbers from N(0, 1) per row and step; each row has its own stream."""
    return _draws(cases, restarts, runtime, purpose, lambda stream, steps: stream.normal((steps, n)))


def _draws(
    cases: Sequence[Case], restarts: int, runtime: Runtime, purpose: str, take: Callable[[Random, int], Tensor]
) -> Draw:
    streams: dict[int, Random] = {}

    def draw(row: int, steps: int) -> Tensor:
        if row not in streams:
            streams[row] = runtime.rng(purpose, cases[row // restarts].id, row % restarts)
        return take(streams[row], steps)

    return draw


@torch.no_grad()
def tiled(
    function: Callable[..., Tensor], tile: int, *tensors: Tensor, ledger: Ledger | None = None,
    owners: Sequence[str] = (),
) -> Tensor:  # fmt: skip
    """Apply a function of ``tile`` rows to tensors (N, ...) of any length; return its results (N, ...).

    Every call gets exactly ``tile`` rows (the last is filled up with its first row), so that a row's result does
    not depend on how many others there are. ``owners`` (N case ids) are charged in ``ledger`` for their rows.
    """
    parts = []
    for start in range(0, len(tensors[0]), tile):
        chunks = [tensor[start : start + tile] for tensor in tensors]
        count = len(chunks[0])
        charged = owners[start : start + count]
        context = ledger.owned_by(charged, padding=tile - count, rows=tile) if ledger is not None else nullcontext()
        with context:
            parts.append(function(*(_filled(chunk, tile) for chunk in chunks))[:count])
    return torch.cat(parts)


def _filled(chunk: Tensor, tile: int) -> Tensor:
    missing = tile - len(chunk)
    return torch.cat([chunk, chunk[:1].expand(missing, *chunk.shape[1:])]) if missing else chunk


def score_rows(
    score: Callable[..., Tensor], tile: int, *tensors: Tensor, ledger: Ledger, owners: Sequence[str]
) -> tuple[Tensor, bool]:
    """Score rows (N,) tile by tile with queries of the target; 0 where the budget left none. Also: was it enough."""
    scores = torch.zeros(len(owners), device=tensors[0].device)
    for start in range(0, len(owners), tile):
        part = slice(start, start + tile)
        try:
            scores[part] = tiled(score, tile, *(tensor[part] for tensor in tensors), ledger=ledger, owners=owners[part])
        except BudgetExceeded:
            return scores, False
    return scores, True


def confidences(
    target: Target, samples: Tensor, labels: Tensor, owners: Sequence[str], runtime: Runtime
) -> tuple[Tensor, bool]:
    """Return the target's probability of its label for each row (N,), and whether the budget was enough."""

    def score(batch: Tensor, wanted: Tensor) -> Tensor:
        logits: Tensor = target.module(batch)
        return logits.float().softmax(dim=1).gather(1, wanted[:, None])[:, 0]

    return score_rows(score, runtime.tile, samples, labels, ledger=target.ledger, owners=owners)


def reconstructions(
    cases: Sequence[Case], found: Found, samples: Tensor, scores: Tensor, *, latents: Tensor | None = None,
    keep: int | None = None, scored: bool = True, history: str = "loss", course: Sequence[Tensor] = (),
) -> Iterator[Reconstruction]:  # fmt: skip
    """Yield each case's rows, best score first; then tell what is missing.

    samples (N, ...), scores (N,), latents (N, ...): by row, as laid out by `make_rows`; keep: at most so many per
    case; scored: whether the budget was enough to score them. course: samples (N, ...) of each of ``found.course``.

    Raises, after the last one: BudgetExceeded when the budget ended the search; CaseFailed for cases of which no
    row stayed finite.
    """
    restarts = len(scores) // len(cases)
    reasons: dict[str, str] = {}
    for index, case in enumerate(cases):
        rows = range(index * restarts, (index + 1) * restarts)
        statuses = {found.statuses[row] for row in rows}
        usable = [row for row in rows if found.statuses[row] in (RowStatus.DONE, RowStatus.STOPPED)]
        if usable:
            chosen = torch.tensor(usable, device=scores.device)
            chosen = chosen[scores[chosen].argsort(descending=True, stable=True)[:keep]]
            yield Reconstruction(
                case=case, samples=samples[chosen], scores=scores[chosen],
                latents=None if latents is None else latents[chosen],
                history={history: _mean_history(found.history[usable])},
                complete=scored and not statuses & {RowStatus.WAITING, RowStatus.STOPPED},
                snapshots=_snapshots(found.course, course, usable, keep),
            )  # fmt: skip
        elif RowStatus.FAILED in statuses:
            reasons[case.id] = "the loss left the finite numbers in every restart; try a smaller learning rate"
    if not found.complete or not scored:
        raise BudgetExceeded("the budget ended during the search", hint="raise --budget-queries")
    if reasons:
        raise CaseFailed(f"the search failed for {', '.join(reasons)}", reasons=reasons)


def _snapshots(
    stands: Sequence[Stand], samples: Sequence[Tensor], rows: Sequence[int], keep: int | None
) -> tuple[Snapshot, ...]:
    """Return a case's earlier stands, best loss first, up to the last one at which its rows had asked anything more."""
    found: list[Snapshot] = []
    for stand, shown in zip(stands, samples, strict=True):
        chosen = torch.tensor(rows, device=shown.device)
        order = stand.losses[chosen].argsort(stable=True)[:keep]
        queries = int(stand.queries[chosen].sum())
        if not found or queries > found[-1].queries:
            found.append(Snapshot(queries=queries, samples=shown[chosen[order]]))
    return tuple(found)


def _mean_history(history: Tensor) -> list[float]:
    """Average the looks (rows, looks) over the rows that were still searched then."""
    present = history.isfinite().any(dim=0)
    values: list[float] = history.nanmean(dim=0)[present].tolist()
    return values
