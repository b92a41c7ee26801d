"""Gibbs sampling with a masked language model: one token of each text at a time, drawn given all the others.

Wang and Cho, "BERT has a Mouth, and It Must Speak", 2019, as KART uses it: from the full distribution during a burn-in,
then among the most likely tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mi_attack_mlm_inversion.filling import Filler
from mi_attack_mlm_inversion.reading import Row, special_ids, stacked
from mi_text.sampling import Sampling, choose

_TINY = 1e-30


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """How chains go.

    sweeps: passes over all hidden places of a text, each time in another order; burn_in: the first so many draw from
    the full distribution, the others among the ``top_k`` most likely tokens.
    """

    sweeps: int
    burn_in: int
    top_k: int
    temperature: float = 1.0

    def sampling(self, sweep: int) -> Sampling:
        """Return how tokens of a sweep are drawn."""
        return Sampling(temperature=self.temperature, top_k=None if sweep < self.burn_in else self.top_k)


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where a chain begins: a row whose places are masked, who pays, and its numbers in [0, 1), (sweeps, places, 2)."""

    row: Row
    owner: str
    uniform: Tensor


def sample(filler: Filler, starts: Sequence[Start], sampler: Sampler) -> list[list[tuple[int, ...]]]:
    """Return for each chain the tokens at its places after each sweep that follows the burn-in.

    Chains of all lengths go on together; each takes as many steps as it has places, times the sweeps.
    Raises: BudgetExceeded.
    """
    ids = stacked(filler, [start.row for start in starts])
    forbidden, device = special_ids(filler), ids.device
    lengths = torch.tensor([len(start.row.places) for start in starts], device=device)
    orders = [start.uniform[:, :, 0].argsort(dim=1, stable=True).tolist() for start in starts]
    numbers = [start.uniform[:, :, 1].tolist() for start in starts]
    found: list[list[tuple[int, ...]]] = [[] for _ in starts]
    for step in range(int(lengths.max()) * sampler.sweeps):
        going = (lengths * sampler.sweeps > step).nonzero().flatten()
        turns = [divmod(step, len(starts[row].row.places)) for row in going.tolist()]
        places = torch.tensor(
            [starts[row].row.places[orders[row][sweep][turn]] for row, (sweep, turn) in _with(going, turns)],
            device=device,
        )
        uniform = torch.tensor([numbers[row][sweep][turn] for row, (sweep, turn) in _with(going, turns)], device=device)
        ids[going, places] = filler.mask_id
        owners = [starts[row].owner for row in going.tolist()]
        likely = filler.distributions(ids[going], places, owners).index_fill(1, forbidden, 0.0)
        ids[going, places] = _drawn(likely, [sweep for sweep, _ in turns], uniform, sampler)
        _note(ids, starts, going, turns, sampler, found)
    return found


def _with(rows: Tensor, turns: Sequence[tuple[int, int]]) -> list[tuple[int, tuple[int, int]]]:
    return list(zip(rows.tolist(), turns, strict=True))


def _drawn(likely: Tensor, sweeps: Sequence[int], uniform: Tensor, sampler: Sampler) -> Tensor:
    """Return one token for each row, (N,): of rows in burn-in from all tokens."""
    logits = likely.clamp(min=_TINY).log()
    burning = torch.tensor([sweep < sampler.burn_in for sweep in sweeps], device=likely.device)
    early, late = (choose(logits, sampler.sampling(sweep), 0, uniform) for sweep in (0, sampler.sweeps))
    return torch.where(burning, early, late)


def _note(
    ids: Tensor, starts: Sequence[Start], going: Tensor, turns: Sequence[tuple[int, int]], sampler: Sampler,
    found: Sequence[list[tuple[int, ...]]],
) -> None:  # fmt: skip
    """Keep the tokens of chains whose sweep ends here, after the burn-in."""
    ended = [
        row for row, (sweep, turn) in _with(going, turns)
        if turn == len(starts[row].row.places) - 1 and sweep >= sampler.burn_in
    ]  # fmt: skip
    for row, values in zip(ended, ids[ended].tolist(), strict=True):
        found[row].append(tuple(values[place] for place in starts[row].row.places))
