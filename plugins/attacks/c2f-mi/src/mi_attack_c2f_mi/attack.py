"""C2F-MI: coarse to fine model inversion from scores.

Ye, Luo, Naseem and others: "C2FMI: Corse-to-Fine Black-box Model Inversion Attack", IEEE Transactions on Dependable and
Secure Computing, 2023.

Threat model: the target's scores, all of them or the top ones; public images of the same kind; a StyleGAN of such
pictures, from a file or trained on them.

1. An embedding network F is trained on the public images, without the target. The target scores these images, and an
   inverse network learns to tell F's embedding of an image from the target's answer.
2. Coarse: the inverse network is asked for the embedding of an image that the target would be sure of. Style codes move
   down the distance of their image's embedding to that, by F's gradients, and ask the target nothing. Those that the
   target finds likeliest are kept.
3. Fine: mixtures with new codes fill up a population, which evolves by differences of its members. A member makes way
   for a better rival. The best one seen is the reconstruction.

Fidelity notes (paper / authors' code / here)
- F: the authors have a network of 10,575 other people's faces, whose logits are the embedding. Public images of a run
  have no labels as a rule; then F learns to tell images apart (see `mi_attack_c2f_mi.embedding`). Where they have
  labels, it is a classifier of these and its logits are the embedding.
- The perfect answer that the inverse network is asked about: the authors fill it with |N(0, 1)| around 1e18 and scale
  it to unit length; in float32 this is the one-hot vector that is used here.
- Coarse latents: means of two neighbouring codes. Authors' code: the loss is a mean over the batch; here every code has
  its own, which Adam hides.
- Ours, as it could not be told from what was read of the authors' code: the three members of a mixture are drawn with
  replacement from those that were kept, the two of a difference are others than the member itself.
- Evolution: the authors ask about the parents again in every generation. Here their answers are remembered, which is
  half the queries. The best ever seen is given back.
- With ``top`` the fitness is that of the authors' attack on defended targets, which is always used where a class is not
  among the answers.
- Where the target is nearly certain, 1 - p is the sum of the other scores: p itself is rounded to 1 long before.
- All classes are searched together; a class whose best member has the probability ``enough`` asks no more (authors: all
  generations).
- ``restarts`` runs several populations per class; the authors run one.
- The presets ``default`` and ``smoke`` are ours: a small StyleGAN, a small F, and a short evolution with larger steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from mi_attack_c2f_mi.config import PREPARE_FIELDS, PRESETS, CoarseToFineConfig
from mi_attack_c2f_mi.embedding import Embedding, embedding_state, restore_embedding
from mi_attack_c2f_mi.inverse import inverse_state, restore_inverse
from mi_attack_c2f_mi.populations import (
    FRESH_CODES,
    StyleSource,
    answer_losses,
    best_members,
    bred,
    fading,
    neighbour_means,
)
from mi_image.bank import CandidateBank
from mi_image.prior_choice import stylegan_state
from mi_image.public_queries import asked
from mi_image.stylegan_attacks import StyleGround, StyleRenderer, restore_ground, with_renderer
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import DataError
from micore.kit.case_rows import make_rows, reconstructions, tiled, uniform_draws
from micore.kit.evolution import Differential, PopulationSearch, ask_members, asked_losses
from micore.kit.row_optimizers import RowAdam
from micore.kit.search import Found, RowSearch
from micore.kit.stages import Stages
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending

NAME = "c2f-mi"
STANDS = 6
"""Points of the curve of recovery over queries, besides the end."""


class CoarseToFine:
    """The attack C2F-MI (see the module's documentation)."""

    Config: ClassVar[type[Config]] = CoarseToFineConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    PREPARE_FIELDS: ClassVar[frozenset[str]] = PREPARE_FIELDS

    def __init__(self, config: CoarseToFineConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Load or train the prior, train F, ask the target about the public images and learn the inverse.

        Raises: DataError without public images; MiError for those that do not fit.
        """
        if public is None or not len(public):
            raise DataError(f"{NAME} needs public images")
        config, stages = self.config, Stages(runtime)
        shown = public.take(torch.arange(len(public)))
        images, labels = shown.to(runtime.device), None if public.labels is None else public.labels.to(runtime.device)
        prior = stages.run("prior", lambda own: stylegan_state(config.prior, shown, config.gan_settings(), own))
        embedding = stages.run(
            "embedding", lambda own: embedding_state(images, labels, config.embedding_settings(), own)
        )
        asking = stages.run("answers", lambda own: {"scores": asked(target.scores, images, own)})
        answers = asking["scores"].to(runtime.device)
        embedded = tiled(restore_embedding(embedding, runtime), runtime.tile, images)
        inverse = stages.run("inverse", lambda own: inverse_state(answers, embedded, config.inverse_settings(), own))
        bank = CandidateBank(styles=torch.empty(0), scores=torch.empty(0)).state()  # there is none
        return Prepared(state={"prior": prior, "bank": bank, "embedding": embedding, "inverse": inverse})

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Search coarsely by F, then evolve what the target finds likeliest."""
        config, ground = self.config, restore_ground(self.config, prepared, runtime, NAME)
        source = StyleSource(prior=ground.generator, psi=config.psi, cutoff=config.cutoff, runtime=runtime)
        losses = asked_losses(ground.render, target.scores, partial(answer_losses, top=config.top))
        coarse = make_rows(cases, self._coarse(ground, source, cases, prepared, target))
        answers, _ = ask_members(losses, coarse.starts, coarse, target.ledger, runtime)
        kept, known = best_members(coarse.starts, answers, config.kept_latents)
        starts = torch.cat([kept, self._bred(source, cases, kept)], dim=1).unflatten(0, (len(cases), -1))
        known = functional.pad(known, (0, config.population - config.kept_latents), value=torch.nan)
        breeding = self._breeding()
        numbers = breeding.n_numbers(config.population, starts.shape[-1])
        rows = make_rows(cases, starts, uniform_draws(cases, config.restarts, numbers, runtime, "evolution"))
        enough = None if config.enough is None else 1 - config.enough
        search = PopulationSearch(
            score=losses, breeding=breeding, generations=config.generations, enough=enough,
            stands=STANDS,
        )  # fmt: skip
        found = _with_coarse_queries(search.run(rows, target.ledger, runtime, known), config.latents)
        images = tiled(ground.render, runtime.tile, found.values)
        course = [tiled(ground.render, runtime.tile, stand.values) for stand in found.course]
        yield from reconstructions(
            cases, found, images, 1 - found.losses, latents=found.values, history="doubt", course=course
        )

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the target's work: the public images; the coarse codes, the mixtures, a rival for each member.

        This is the most that a class can cost: with ``enough`` an evolution may end before.
        """
        config = self.config
        fine = config.population - config.kept_latents + config.generations * config.population
        return Forecast(
            preparation=Spending(queries=n_public),
            per_case=Spending(queries=config.restarts * (config.latents + fine)),
        )

    def prior(self, prepared: Prepared, runtime: Runtime) -> StyleGround:
        """Return the StyleGAN as a prior, truncated as the starts are."""
        return restore_ground(self.config, prepared, runtime, NAME)

    def generator(self, prepared: Prepared, runtime: Runtime) -> StyleRenderer:
        """Build the network that makes pictures of style codes."""
        return StyleRenderer(self.prior(prepared, runtime))

    def with_generator(self, prepared: Prepared, weights: Mapping[str, Tensor]) -> Prepared:
        """Return what was prepared with other weights of that network."""
        return with_renderer(prepared, weights)

    def _coarse(
        self, ground: StyleGround, source: StyleSource, cases: Sequence[Case], prepared: Prepared | None, target: Target
    ) -> Tensor:
        """Return the codes (C, restarts, latents, w_dim) that F's embedding led to; the target is not asked."""
        config, runtime = self.config, source.runtime
        embedding, wanted = _wanted(cases, prepared, target.n_classes, runtime)

        def distances(styles: Tensor, rows: Mapping[str, Tensor], numbers: Tensor) -> Tensor:
            apart = embedding(ground.render(styles)) - rows["wanted"]
            return apart.square().mean(dim=1)

        starts = neighbour_means(source.draw(cases, (config.restarts, config.latents + 1), "coarse codes"))
        rows = make_rows(cases, starts.flatten(1, 2), constants={"wanted": wanted[:, None]})
        optimizer = RowAdam(learning_rate=config.coarse_learning_rate)
        search = RowSearch(objective=distances, optimizer=optimizer, steps=config.coarse_steps)
        return search.run(rows, target.ledger, runtime, "coarse search").values.view_as(starts)

    def _bred(self, source: StyleSource, cases: Sequence[Case], kept: Tensor) -> Tensor:
        """Return the members (C * restarts, missing, w_dim) that fill up the populations."""
        config = self.config
        missing = config.population - config.kept_latents
        fresh = source.draw(cases, (config.restarts, missing, FRESH_CODES), "fresh codes")
        throws = [source.runtime.rng("mixtures", case.id).uniform((config.restarts, missing, 3)) for case in cases]
        return bred(kept, torch.cat(throws), fresh.flatten(0, 1))

    def _breeding(self) -> Differential:
        config = self.config
        scale = fading(config.difference, config.generations, last=config.fade_last, over=config.fade_over)
        return Differential(scale=scale, pull=config.pull, pairs=config.pairs, mix=config.mix)


def _with_coarse_queries(found: Found, queries: int) -> Found:
    """Return what was found, its earlier stands with what each row had asked in the coarse search."""
    return replace(found, course=[replace(stand, queries=stand.queries + queries) for stand in found.course])


def _wanted(
    cases: Sequence[Case], prepared: Prepared | None, n_classes: int, runtime: Runtime
) -> tuple[Embedding, Tensor]:
    """Return F, and the embeddings (C, dims) of images that the target would be sure of, as far as can be told."""
    if prepared is None:
        raise DataError(f"{NAME} was not prepared")
    embedding = restore_embedding(prepared.state["embedding"], runtime)
    inverse = restore_inverse(prepared.state["inverse"], runtime)
    labels = torch.tensor([case.label for case in cases], device=runtime.device)
    return embedding, tiled(inverse, runtime.tile, functional.one_hot(labels, n_classes).float())
