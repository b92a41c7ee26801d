"""What GMI's masked variant and SecretGen share: what a target says of completions, and a search for better ones.

Sources: Zhang et al., "The Secret Revealer" (GMI, CVPR 2020), with auxiliary knowledge; Yuan et al., "SecretGen"
(ECCV 2022), sections 3.4 to 3.6.

The rows are (case x latent). Nobody tells the adversary the class of the hidden image: it is guessed from what the
target says of completions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mi_image.corruptions import Corruption, find_corruption, stack_evidence
from mi_image.inpainting import Completer
from mi_image.inpainting_training import Inpainting, evidence_distance, restore_inpainting
from micore.contracts import Case, Reconstruction
from micore.errors import BudgetExceeded
from micore.kit.case_rows import make_rows, reconstructions, score_rows, standard_normal, tiled, uniform_draws
from micore.kit.latent_objective import Identity
from micore.kit.projections import clamp_box
from micore.kit.row_optimizers import NesterovMomentum
from micore.kit.search import Found, Rows, RowSearch
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Access, Ledger

__all__ = [
    "Answers", "Ground", "Refinement", "ask", "complete_unguided", "confident_seeds", "cut_outs", "give_back",
    "give_back_guesses", "guesses", "open_ground", "probabilities", "pseudo_labels",
]  # fmt: skip

Probabilities = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) in [0, 1] to class probabilities (B, K)."""
Views = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) to views (V * B, C, H, W), view by view."""

CUT_GRID = 4
"""Cells along a side of the grid of cut-outs (SecretGen: 16 cells of 16 px at 64 px)."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """The cases of a run with all that is known of them before the target is asked."""

    cases: Sequence[Case]
    networks: Inpainting
    completer: Completer
    corruption: Corruption
    runtime: Runtime

    def latents(self, n: int, purpose: str, box: float | None = None) -> Tensor:
        """Draw n latents for each case, (C, n, d), within the box."""
        drawn = standard_normal(self.cases, (n, self.networks.generator.latent_dim), self.runtime, purpose)
        return drawn if box is None else clamp_box(drawn, -box, box)

    def pieces(self, n: int) -> Tensor:
        """Return the number of the case of each of C * n rows."""
        return torch.arange(len(self.cases), device=self.runtime.device).repeat_interleave(n)

    def owners(self, n: int) -> list[str]:
        """Return the case id of each of C * n rows."""
        return [case.id for case in self.cases for _ in range(n)]

    def complete(self, latents: Tensor, pieces: Tensor) -> Tensor:
        """Return completions (N, channels, H, W) by latents (N, d) of the cases numbered (N,)."""
        return tiled(self.completer, self.runtime.tile, latents, pieces)


def open_ground(state: Mapping[str, Any], cases: Sequence[Case], kind: str, runtime: Runtime) -> Ground:
    """Restore the networks and read the evidence of all cases, which must be of this kind.

    Raises: UsageError when a case holds no masked image, or one of another kind.
    """
    networks = restore_inpainting(state, runtime)
    images, masks = stack_evidence(cases, kind, runtime.device)
    completer = Completer(networks.generator, images, masks, runtime.tile)
    return Ground(
        cases=cases, networks=networks, completer=completer, corruption=find_corruption(kind), runtime=runtime
    )


def complete_unguided(ground: Ground, n: int, box: float | None) -> Iterator[Reconstruction]:
    """Yield n completions of each case by random latents: the control ``no-target``."""
    latents = ground.latents(n, "no-target", box)
    images = ground.complete(latents.flatten(0, 1), ground.pieces(n)).unflatten(0, (-1, n))
    for case, samples, drawn in zip(ground.cases, images, latents, strict=True):
        yield Reconstruction(case=case, samples=samples, scores=torch.zeros(n), latents=drawn)


# what the target says ------------------------------------------------------------------------------------------


def probabilities(target: Target, access: Access) -> Probabilities:
    """Return the target's answers under an access: of its module, or its scores."""
    if access < Access.WHITE_BOX:
        return target.scores
    module = target.module

    def of_logits(images: Tensor) -> Tensor:
        logits: Tensor = module(images)
        return logits.float().softmax(dim=1)

    return of_logits


def cut_outs(images: Tensor, colour: Tensor) -> Tensor:
    """Return images (B, C, H, W) with one of 16 cells painted in a colour (C,): (16 B, C, H, W), cell by cell."""
    height, width = (side // CUT_GRID for side in images.shape[-2:])
    views = images.repeat(CUT_GRID**2, 1, 1, 1, 1)
    for cell, view in enumerate(views):
        row, column = divmod(cell, CUT_GRID)
        view[..., row * height : (row + 1) * height, column * width : (column + 1) * width] = colour.view(-1, 1, 1)
    return views.flatten(0, 1)


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What the target said of n completions of each case, zeros where the budget left none.

    own (C, n, K): probabilities of the completions; overall (C, n, K): the same, averaged over the completion and its
    views; asked (C, n): whether there is an answer.
    """

    own: Tensor
    overall: Tensor
    asked: Tensor

    @property
    def enough(self) -> bool:
        """Whether the budget was enough."""
        return bool(self.asked.all())


def ask(
    ground: Ground, latents: Tensor, answer: Probabilities, n_classes: int, ledger: Ledger, views: Views | None = None
) -> Answers:
    """Ask the target about the completions by latents (C, n, d), and about views of each of them."""
    n, tile = latents.shape[1], ground.runtime.tile
    rows, pieces, owners = latents.flatten(0, 1), ground.pieces(n), ground.owners(n)
    said, asked = rows.new_zeros(len(rows), 2, n_classes), torch.zeros(len(rows), dtype=torch.bool, device=rows.device)

    def respond(some: Tensor, numbers: Tensor) -> Tensor:
        images = ground.completer(some, numbers)
        shown = images if views is None else torch.cat([images, views(images)])
        answers = answer(shown).unflatten(0, (-1, len(images)))
        return torch.stack([answers[0], answers.mean(dim=0)], dim=1)

    for start in range(0, len(rows), tile):
        part = slice(start, start + tile)
        try:
            said[part] = tiled(respond, tile, rows[part], pieces[part], ledger=ledger, owners=owners[part])
        except BudgetExceeded:
            break
        asked[part] = True
    own, overall = said.unflatten(0, (-1, n)).unbind(2)
    return Answers(own=own, overall=overall, asked=asked.unflatten(0, (-1, n)))


def guesses(answers: Answers) -> Tensor:
    """Return the class (C,) with the largest probability, averaged over all completions of a case."""
    return torch.stack([overall.sum(dim=0) for overall in answers.overall]).argmax(dim=1)


def pseudo_labels(answers: Answers) -> Tensor:
    """Return the class (C,) with the largest average of those that the target assigned to a completion.

    SecretGen, section 3.4: the largest average over completions and views. The authors' code passes over classes that
    no completion was classified as.
    """
    average = torch.stack([overall.sum(dim=0) for overall in answers.overall])
    assigned = torch.zeros_like(average).scatter_add(1, answers.own.argmax(dim=2), answers.asked.to(average.dtype))
    return average.masked_fill(assigned == 0, -1.0).argmax(dim=1)


def confident_seeds(answers: Answers, labels: Tensor, latents: Tensor, spare: Tensor) -> Tensor:
    """Return the latents (C, m, d) of completions that the target classified as their label, the surest first.

    latents (C, n, d): of all completions; spare (C, m, d): taken where there are fewer than m of them (SecretGen,
    section 3.5).
    """
    own = answers.own.gather(2, labels[:, None, None].expand(-1, latents.shape[1], 1))[..., 0]
    fits = (answers.own.argmax(dim=2) == labels[:, None]) & answers.asked
    missing = max(0, spare.shape[1] - latents.shape[1])
    order = own.masked_fill(~fits, -1.0).sort(dim=1, descending=True, stable=True)
    chosen = order.indices[:, : spare.shape[1]]
    found = latents.gather(1, chosen[..., None].expand(-1, -1, latents.shape[2]))
    fits = order.values[:, : spare.shape[1]] >= 0
    found = torch.cat([found, spare[:, :missing]], dim=1)
    fits = torch.cat([fits, fits.new_zeros(len(fits), missing)], dim=1)
    return torch.where(fits[..., None], found, spare)


# better completions --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """A search for latents whose completions look real, fit the evidence and, with an identity, show the class.

    The loss of a row is -D_patch - D_whole + identity_weight CE + evidence_weight |G - evidence|, its steps are
    GMI's. learning_rate: of this sum; box: largest absolute value of a latent after each step.
    """

    steps: int
    learning_rate: float
    momentum: float = 0.9
    box: float = 1.0
    identity_weight: float = 100.0
    evidence_weight: float = 0.0

    def run(
        self, ground: Ground, starts: Tensor, labels: Tensor, identity: Identity | None, ledger: Ledger
    ) -> tuple[Rows, Found]:
        """Search from starts (C, R, d) towards labels (C,); without an identity the target is not asked."""
        networks, completer = ground.networks, ground.completer

        def loss(latents: Tensor, row: Mapping[str, Tensor], numbers: Tensor) -> Tensor:
            whole = completer.whole(latents, row["pieces"])
            images = completer.pasted(whole, row["pieces"])
            total = -networks.realism(images, numbers)
            if identity is not None:
                total = total + self.identity_weight * identity(images, row["guessed"])
            if self.evidence_weight:
                shown, masks = completer.images[row["pieces"]], completer.masks[row["pieces"]]
                total = total + self.evidence_weight * evidence_distance(whole, shown, masks, ground.corruption)
            return total

        n = starts.shape[1]
        constants = {"pieces": ground.pieces(1)[:, None], "guessed": labels[:, None]}
        rows = make_rows(ground.cases, starts, uniform_draws(ground.cases, n, 2, ground.runtime, "patches"), constants)
        search = RowSearch(
            objective=loss, optimizer=NesterovMomentum(learning_rate=self.learning_rate, momentum=self.momentum),
            steps=self.steps, constraint=lambda values, _: clamp_box(values, -self.box, self.box),
        )  # fmt: skip
        return rows, search.run(rows, ledger, ground.runtime)


def give_back(
    ground: Ground, rows: Rows, found: Found, answer: Probabilities, ledger: Ledger, keep: int | None = None
) -> Iterator[Reconstruction]:
    """Ask the target a last time about what `Refinement.run` found; yield each case's, surest first, at most ``keep``.

    Raises: BudgetExceeded, CaseFailed (see `micore.kit.case_rows.reconstructions`).
    """
    images = ground.complete(found.values, rows.constants["pieces"])

    def sureness(samples: Tensor, labels: Tensor) -> Tensor:
        return answer(samples).gather(1, labels[:, None])[:, 0]

    scores, scored = score_rows(
        sureness, ground.runtime.tile, images, rows.constants["guessed"], ledger=ledger, owners=rows.owners
    )
    yield from reconstructions(ground.cases, found, images, scores, latents=found.values, keep=keep, scored=scored)


def give_back_guesses(ground: Ground, latents: Tensor, answers: Answers, labels: Tensor) -> Iterator[Reconstruction]:
    """Yield, where the budget ended before any search, the completion that the target is surest of in each case.

    Raises, at the end: BudgetExceeded.
    """
    own = answers.own.gather(2, labels[:, None, None].expand(-1, latents.shape[1], 1))[..., 0]
    best = own.masked_fill(~answers.asked, -1.0).max(dim=1)
    chosen = latents.gather(1, best.indices[:, None, None].expand(-1, 1, latents.shape[2]))[:, 0]
    images = ground.complete(chosen, ground.pieces(1))
    for row, known in enumerate(answers.asked.any(dim=1).tolist()):
        if known:
            yield Reconstruction(
                case=ground.cases[row], samples=images[row : row + 1], scores=best.values[row : row + 1],
                latents=chosen[row : row + 1], complete=False,
            )  # fmt: skip
    raise BudgetExceeded("the budget ended while the target was asked about completions", hint="raise --budget-queries")
