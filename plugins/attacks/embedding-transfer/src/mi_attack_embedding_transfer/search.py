"""Beam search: a language model proposes how texts go on, and the cosine of their embeddings chooses (ZSInvert).

All cases go forward together, a token a step. The target is asked case by case: what it answers to a text may depend,
in the last digits, on the batch that it stands in, and a case's result must not depend on other cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from mi_attack_embedding_transfer.writers import Writer
from mi_text.adapter import pad
from mi_text.asking import embed
from mi_text.tokenizing import BEGIN_ID, SPECIALS, decode
from micore.contracts import Case, Snapshot
from micore.errors import BudgetExceeded
from micore.kit.case_rows import tiled
from micore.runtime import Runtime
from micore.target import Target

SNAPSHOTS = 8
"""At most so many earlier stands of a search are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlan:
    """How far a search goes.

    beam: texts that go on; top_k: tokens proposed for each; steps: tokens of a text at most; sweeps: rounds of
    substitutions at the end; penalty: of tokens that stand in the text already.
    """

    beam: int
    top_k: int
    steps: int
    sweeps: int
    penalty: float


@dataclass(slots=True, kw_only=True)
class Course:
    """The search of one case.

    known: every text that was asked for, with its cosine. beam: token ids of the texts that go on.
    """

    case: Case
    evidence: Tensor
    known: dict[str, float] = field(default_factory=dict)
    beam: list[list[int]] = field(default_factory=lambda: [[]])
    history: list[float] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    complete: bool = False

    def best(self, n: int) -> list[str]:
        """Return the n texts with the highest cosines, best first."""
        return sorted(self.known, key=lambda text: -self.known[text])[:n]

    def ask(self, target: Target, texts: Sequence[str]) -> None:
        """Ask for the texts that are not known yet, each once, at this case's cost.

        Raises: BudgetExceeded.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        if not new:
            return
        with target.ledger.owned_by([self.case.id]):
            answers = embed(target, new).float().cpu()
        cosines = functional.cosine_similarity(answers, self.evidence[None], dim=1)
        self.known.update(zip(new, cosines.tolist(), strict=True))

    def note(self, keep: int, *, snapshot: bool) -> None:
        """Note where the search stands."""
        if not self.known:
            return
        self.history.append(max(self.known.values()))
        if snapshot and (not self.snapshots or len(self.known) > self.snapshots[-1].queries):
            self.snapshots.append(Snapshot(queries=len(self.known), samples=self.best(keep)))


def search(courses: Sequence[Course], target: Target, writer: Writer, plan: SearchPlan, runtime: Runtime) -> bool:
    """Search for all cases, up to the budget; return whether it was enough."""
    every = -(-(plan.steps + plan.sweeps) // SNAPSHOTS)
    last = plan.steps + plan.sweeps - 1
    try:
        with runtime.progress.track("search", plan.steps + plan.sweeps) as report:
            for step in range(plan.steps + plan.sweeps):
                grow = _extend if step < plan.steps else _substitute
                grow(courses, target, writer, plan, runtime)
                for course in courses:
                    course.note(plan.beam, snapshot=step % every == every - 1 and step != last)
                report(step + 1)
    except BudgetExceeded:
        return False
    for course in courses:
        course.complete = True
    return True


def _extend(courses: Sequence[Course], target: Target, writer: Writer, plan: SearchPlan, runtime: Runtime) -> None:
    """Let all beams go on by a token: the proposed texts with the highest cosines are the next beam."""
    rows = torch.tensor([ids for course in courses for ids in course.beam], dtype=torch.int64)
    proposed = tiled(lambda part: _proposals(writer, part, plan), runtime.tile, rows.to(runtime.device)).tolist()
    start = 0
    for course in courses:
        own = proposed[start : start + len(course.beam)]
        start += len(course.beam)
        longer = [[*ids, token] for ids, tokens in zip(course.beam, own, strict=True) for token in tokens]
        by_text: dict[str, list[int]] = {}
        for text, ids in zip(decode(writer.tokenizer, longer), longer, strict=True):
            by_text.setdefault(text, ids)
        blank = by_text.pop("", None)  # a space, say, which may go on, but is nothing to ask for
        course.ask(target, list(by_text))
        chosen = sorted(by_text, key=lambda text: -course.known[text])[: plan.beam]
        course.beam = [by_text[text] for text in chosen] or ([blank] if blank is not None else course.beam)


def _substitute(courses: Sequence[Course], target: Target, writer: Writer, plan: SearchPlan, runtime: Runtime) -> None:
    """Ask for the best text of each case with one token replaced by another that is likely there.

    Texts are tokenised again, as what is proposed must be what is asked for.
    """
    courses = [course for course in courses if course.known]
    best = writer.tokenizer.encode_batch([course.best(1)[0] for course in courses])
    encoded = [item.ids[: writer.max_tokens] for item in best]
    rows = pad(encoded, width=writer.max_tokens).to(runtime.device)
    likely = tiled(lambda part: _likely(writer, part, plan.top_k), runtime.tile, rows).tolist()
    for course, ids, tokens in zip(courses, encoded, likely, strict=True):
        others = [
            [*ids[:place], token, *ids[place + 1 :]]
            for place in range(len(ids)) for token in tokens[place] if token != ids[place]
        ]  # fmt: skip
        course.ask(target, [text for text in decode(writer.tokenizer, others) if text])


def _proposals(writer: Writer, ids: Tensor, plan: SearchPlan) -> Tensor:
    """Return the tokens that most likely follow each row of ids (N, T), (N, top_k)."""
    logits = _logits(writer, ids)[:, -1]
    return penalised(logits, ids, plan.penalty).topk(min(plan.top_k, logits.shape[1] - len(SPECIALS)), dim=1).indices


def penalised(logits: Tensor, ids: Tensor, penalty: float) -> Tensor:
    """Make the tokens of each text (N, T) less likely: positive logits (N, V) divided, negative ones multiplied."""
    if penalty == 1 or ids.shape[1] == 0:
        return logits
    there = logits.gather(1, ids)
    return logits.scatter(1, ids, torch.where(there > 0, there / penalty, there * penalty))


def _likely(writer: Writer, ids: Tensor, top_k: int) -> Tensor:
    """Return for each place of each text (N, T) the likely tokens after what stands in front, (N, T, top_k)."""
    logits = _logits(writer, ids)[:, :-1]
    return logits.topk(min(top_k, logits.shape[2] - len(SPECIALS)), dim=2).indices


def _logits(writer: Writer, ids: Tensor) -> Tensor:
    """Return the logits of the token after the beginning and after each token, (N, T + 1, V); specials at -inf."""
    network = writer.network.network
    begin = torch.full((len(ids), 1), BEGIN_ID, device=ids.device)
    logits = network.logits(network(network.embed(torch.cat([begin, ids], dim=1)))[0])
    logits[..., : len(SPECIALS)] = -torch.inf
    return logits
