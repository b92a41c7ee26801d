"""MIRROR, black-box: a StyleGAN's codes by a genetic search in P space, from the target's scores alone.

An, Tao, Xu, Liu, Shen, Yao, Xu, Zhang: "MIRROR: Model Inversion for Deep Learning Network with High Fidelity",
NDSS 2022.

Threat model: the target's scores (all of them or the top ones); a StyleGAN of the same kind of pictures, from a file
or trained on unlabelled public images, that knows no target.

1. The target scores many samples of the prior; for each class the best are the first population.
2. In each generation the best member stays; the others are children of two members each, drawn in proportion to
   the target's probability of the class. A child takes each coordinate of P space from one of its parents, some
   coordinates are moved at random, and it is put into the box of the samples' mean and deviations, on both sides.
3. It ends when the target's probability of the best member is high enough; the best member is the reconstruction.

Fidelity notes (paper / authors' code / here)
- Crossover: the authors' code takes a coordinate from the first parent with probability f1 / (f1 + f2), where f is the
  logarithm of the probability, which is negative: the worse parent is preferred. Here p1 / (p1 + p2), as the fitness is
  meant; ``crossover=published`` is the authors' form.
- The authors ask again about the best member in each generation. Here its answer is remembered: one query less.
- The first population are candidates as they were drawn, perhaps outside the box, with the bank's scores as their
  fitness, as in the authors' code; only children are put into the box.
- Population: 100 by default, 1000 in the authors' script, which is the preset ``paper``.
- The authors give back one image per class. ``restarts`` runs several populations; each begins with other candidates.
- The populations of all classes are asked about together; a class that is done asks no more.
- Fitness: log p, as published. It has no slope where the target is certain, which is long before the picture is right:
  ``fitness=odds`` is log(p / (1 - p)) in fitness, parents and crossover, with 1 - p from the other scores. It is ours,
  and in the preset ``default``.
- Scores below 1e-30 count as 1e-30, so that answers rounded to 0 can be compared.
- The presets ``default`` and ``smoke`` are ours: a small StyleGAN trained on the public images, small populations, a
  wider box, more and larger mutations, the odds as fitness, and no early end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from mi_attack_mirror.genetic import (
    Fitness,
    negative_log_odds,
    negative_log_probability,
    point_space,
    published_share,
    start_populations,
)
from mi_image.stylegan_attacks import (
    PREPARE_FIELDS,
    SMALL,
    TINY,
    StyleGround,
    StylePriorConfig,
    StyleRenderer,
    prepare_ground,
    restore_ground,
    with_renderer,
)
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.kit.case_rows import make_rows, reconstructions, tiled, uniform_draws
from micore.kit.evolution import Genetic, PopulationSearch, Share, asked_losses, likelihood_share
from micore.kit.projections import from_p_space
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending

NAME = "mirror-bb"
STANDS = 6
"""Points of the curve of recovery over queries, besides the end."""
FITNESSES: Mapping[str, Fitness] = {"probability": negative_log_probability, "odds": negative_log_odds}
SHARES: Mapping[str, Share] = {"probability": likelihood_share, "published": published_share}


class MirrorBlackBoxConfig(StylePriorConfig):
    """Settings of MIRROR's genetic search; the defaults of single fields are the authors', presets change them."""

    bank: int = Field(100_000, ge=2, description="samples that the target scores once, for all classes (code: 100,000)")
    psi: float = Field(0.7, ge=0, description="truncation of the samples (code: 0.7); 1: none")
    width: float = Field(1.0, gt=0, description="deviations from the mean that the box reaches (code: 1)")
    population: int = Field(1000, ge=2, description="members of a population (script: 1000; code: 100)")
    generations: int = Field(100, ge=0, description="generations at most (code: 100)")
    mutation_rate: float = Field(0.1, ge=0, le=1, description="probability that a coordinate is moved (code: 0.1)")
    mutation_size: float = Field(0.1, ge=0, description="deviations that it is moved by at most (code: 0.1)")
    fitness: Literal["probability", "odds"] = Field(
        "probability", description="logarithm of the class's probability (code), or of its odds p/(1-p)"
    )
    crossover: Literal["probability", "published"] = Field(
        "probability", description="parents' shares: p1/(p1+p2), or the authors' quotient of logarithms"
    )
    enough: float | None = Field(
        0.95, gt=0, le=1, description="probability of the class at which a search ends (code: 0.95); none: it goes on"
    )
    restarts: int = Field(1, ge=1, description="populations, and so reconstructions, per class (code: 1)")

    @model_validator(mode="after")
    def _enough_candidates(self) -> MirrorBlackBoxConfig:
        if self.restarts * self.population > self.bank:
            raise ValueError(f"restarts={self.restarts} x population={self.population} of a bank of {self.bank}")
        return self


class MirrorBlackBox:
    """The attack MIRROR with the target's scores (see the module's documentation)."""

    Config: ClassVar[type[Config]] = MirrorBlackBoxConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {
            **SMALL, "restarts": 5, "population": 20, "generations": 120, "width": 5.0, "mutation_rate": 0.2,
            "mutation_size": 2.0, "fitness": "odds", "enough": None,
        },
        "smoke": {**TINY, "restarts": 3, "population": 16, "generations": 12, "width": 3.0, "enough": None},
        "paper": {"cutoff": 8},
    }  # fmt: skip
    PREPARE_FIELDS: ClassVar[frozenset[str]] = PREPARE_FIELDS

    def __init__(self, config: MirrorBlackBoxConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Load or train the prior, and let the target score its samples.

        Raises: DataError without a prior and public images; MiError for those that do not fit.
        """
        return prepare_ground(self.config, target, public, runtime, NAME, target.scores)

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Breed the populations of all cases."""
        config, ground = self.config, restore_ground(self.config, prepared, runtime, NAME)
        space, fitness = point_space(ground.bank, config.width), FITNESSES[config.fitness]
        points, known = start_populations(ground.bank, cases, config.restarts, config.population, fitness)
        breeding = Genetic(
            reach=config.mutation_size * space.spread, mutation_rate=config.mutation_rate,
            share=SHARES[config.crossover],
        )  # fmt: skip

        def show(points: Tensor) -> Tensor:
            return ground.render(from_p_space(points))

        n_numbers = breeding.n_numbers(config.population, points.shape[-1])
        rows = make_rows(cases, points, uniform_draws(cases, config.restarts, n_numbers, runtime, "evolution"))
        search = PopulationSearch(
            score=asked_losses(show, target.scores, fitness), breeding=breeding, generations=config.generations,
            constraint=space.box.clamp, enough=_enough(config), stands=STANDS,
        )  # fmt: skip
        found = search.run(rows, target.ledger, runtime, known.flatten(0, 1))
        images, *course = (
            tiled(show, runtime.tile, points) for points in (found.values, *(stand.values for stand in found.course))
        )
        yield from reconstructions(
            cases, found, images, _probabilities(found.losses, config), latents=from_p_space(found.values),
            history="loss", course=course,
        )  # fmt: skip

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the target's work: the bank once, and all but one member of each generation.

        This is the most that a class can cost: with ``enough`` a search may end before.
        """
        config = self.config
        return Forecast(
            preparation=Spending(queries=config.bank_queries),
            per_case=Spending(queries=config.restarts * config.generations * (config.population - 1)),
        )

    def prior(self, prepared: Prepared, runtime: Runtime) -> StyleGround:
        """Return the StyleGAN as a prior, truncated as the samples are."""
        return restore_ground(self.config, prepared, runtime, NAME)

    def generator(self, prepared: Prepared, runtime: Runtime) -> StyleRenderer:
        """Build the network that makes pictures of style codes."""
        return StyleRenderer(self.prior(prepared, runtime))

    def with_generator(self, prepared: Prepared, weights: Mapping[str, Tensor]) -> Prepared:
        """Return what was prepared with other weights of that network."""
        return with_renderer(prepared, weights)


def _enough(config: MirrorBlackBoxConfig) -> float | None:
    """Return the loss of the probability that is enough."""
    if config.enough is None:
        return None
    answer = torch.tensor([[config.enough, 1 - config.enough]], dtype=torch.float64)
    return FITNESSES[config.fitness](answer, torch.tensor([0])).item()


def _probabilities(losses: Tensor, config: MirrorBlackBoxConfig) -> Tensor:
    """Return the target's probabilities of the class that losses (N,) stand for."""
    return torch.exp(-losses) if config.fitness == "probability" else torch.sigmoid(-losses)
