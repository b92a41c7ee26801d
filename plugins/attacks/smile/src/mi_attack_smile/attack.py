"""In the manner of SMILE: a surrogate from few queries, starts from it, then a search without gradients.

"SMILE", CVPR 2025.

Threat model: black box (scores of all classes); unlabelled public images of the same kind, and a StyleGAN of such
images, from a file or trained on them.

1. The target scores samples of the prior, once for all classes.
2. Surrogates learn to answer like it. Most samples look like a few classes; those of rare ones are drawn more often.
3. For each class, codes are searched by the surrogates' gradients, from the samples that the target is surest of. This
   asks the target nothing.
4. From these codes on, CMA-ES searches by the target's own scores.

Fidelity notes (paper / authors' code / here)
- What is known here of the paper: about 2,500 queries; a surrogate of samples of the prior that allows for their long
  tail, trained for 200 epochs; a white-box search on it for where to begin; then nevergrad's NGOpt; the prior and the
  space are MIRROR's. Everything else is ours, so that this is an attack in the manner of SMILE rather than a
  reproduction: how the long tail is allowed for, the surrogates' networks and rates, the steps of both searches.
- The 2,500 queries: ``paper`` spends less for one class alone, 2000 that all classes share and 481 of its own;
  ``default`` spends 2,468 for each of five classes, the shared ones divided among them (4,068 for one class alone).
- NGOpt chooses among optimisers by dimension and budget. Here CMA-ES, of pycma (see the package's README).
- Samples use one code for all layers, so there is no ``cutoff``. Codes stay in MIRROR's box of P space in both
  searches.
- The presets ``default`` and ``smoke`` are ours: a small StyleGAN trained on the public images, small surrogates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from mi_attack_smile.refinement import Refinement, surprise
from mi_attack_smile.surrogate import Teaching, surprise_of_surrogates, surrogate_state
from mi_image.bank import CandidateBank
from mi_image.students import StudentSettings, require_teachable, restore_students
from mi_image.stylegan_attacks import (
    PREPARE_FIELDS,
    SMALL,
    TINY,
    StyleGround,
    StylePriorConfig,
    StyleRenderer,
    bank_stage,
    prior_stage,
    restore_ground,
    unscored_ground,
    with_renderer,
)
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.kit.case_rows import make_rows, reconstructions, tiled
from micore.kit.evolution import asked_losses
from micore.kit.projections import p_space_box, to_p_space
from micore.kit.row_optimizers import RowAdam
from micore.kit.search import RowSearch
from micore.kit.stages import Stages
from micore.runtime import Random, Runtime
from micore.target import Target
from micore.threat import Ledger, Spending

NAME = "smile"
STANDS = 6
"""Points of the curve of recovery over queries, besides the end."""


class SmileConfig(StylePriorConfig):
    """Settings of the attack; see the module's fidelity notes for which numbers are the paper's."""

    bank: int = Field(2000, ge=2, description="samples that the target scores once, for all classes")
    psi: float = Field(0.7, ge=0, description="truncation of the samples (MIRROR: 0.7); 1: none")
    width: float = Field(1.0, gt=0, description="deviations from the mean that the box reaches (MIRROR: 1)")
    network: Literal["small-cnn", "small-resnet", "resnet18"] = Field("resnet18", description="of the surrogates")
    widths: tuple[int, ...] = Field((64,), min_length=1, description="channels of each surrogate's first stage")
    epochs: int = Field(200, ge=1, description="of the surrogates' training (paper: 200)")
    surrogate_learning_rate: float = Field(0.01, gt=0, description="of the surrogates' SGD, halved at each fifth")
    balance: float = Field(1.0, ge=0, le=1, description="how much rare classes are favoured; 1: all alike, 0: not")
    steps: int = Field(100, ge=0, description="gradient steps on the surrogates")
    learning_rate: float = Field(0.05, gt=0, description="of these steps' Adam")
    restarts: int = Field(1, ge=1, description="searches, and so reconstructions, per class")
    population: int = Field(20, ge=3, description="points of a generation of CMA-ES")
    generations: int = Field(24, ge=0, description="generations of CMA-ES")
    step: float = Field(0.3, gt=0, description="first deviation of CMA-ES, in the prior's deviations in P space")

    @model_validator(mode="after")
    def _one_code(self) -> SmileConfig:
        if self.cutoff is not None:
            raise ValueError("cutoff: samples use one code for all layers here; leave it out")
        if self.restarts > self.bank:
            raise ValueError(f"restarts={self.restarts} of a bank of {self.bank}")
        return self

    def teaching(self) -> Teaching:
        """Return how surrogates learn."""
        students = StudentSettings(
            network=self.network, widths=self.widths, epochs=self.epochs,
            learning_rate=self.surrogate_learning_rate, halve_every=max(1, self.epochs // 5),
        )  # fmt: skip
        return Teaching(students=students, balance=self.balance)


SURROGATE_FIELDS = frozenset({"network", "widths", "epochs", "surrogate_learning_rate", "balance"})


class SurrogateGuided:
    """The attack (see the module's documentation)."""

    Config: ClassVar[type[Config]] = SmileConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {
            **SMALL, "width": 3.0, "network": "small-cnn", "widths": (16, 24), "epochs": 10,
            "surrogate_learning_rate": 0.05, "steps": 60, "learning_rate": 0.1, "restarts": 4, "population": 12,
            "generations": 43,
        },
        "smoke": {
            **TINY, "width": 3.0, "network": "small-cnn", "widths": (8,), "epochs": 5,
            "surrogate_learning_rate": 0.05, "steps": 10, "learning_rate": 0.1, "restarts": 2, "population": 8,
            "generations": 8,
        },
        "paper": {},
    }  # fmt: skip
    PREPARE_FIELDS: ClassVar[frozenset[str]] = PREPARE_FIELDS | SURROGATE_FIELDS

    def __init__(self, config: SmileConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Load or train the prior, let the target score its samples, and train the surrogates on its answers.

        Raises: DataError without a prior and public images; MiError for those that do not fit.
        """
        config, stages = self.config, Stages(runtime)
        prior = prior_stage(config, public, stages, NAME)
        ground = unscored_ground(config, prior, runtime)
        require_teachable(ground.sample(1, runtime.rng("size")))
        bank = bank_stage(ground, target.scores, stages)
        scored = CandidateBank.restore(bank, runtime)
        surrogates = stages.run(
            "surrogates", lambda own: surrogate_state(ground.render, scored, config.teaching(), own)
        )
        return Prepared(state={"prior": prior, "bank": bank, "surrogates": surrogates})

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Search on the surrogates, then on the target, from the best samples of all cases."""
        config, ground = self.config, restore_ground(self.config, prepared, runtime, NAME)
        starts = self._starts(cases, prepared.state if prepared else {}, ground, runtime)
        points = to_p_space(ground.bank.styles)
        refinement = Refinement(
            score=asked_losses(ground.render, target.scores, surprise), generations=config.generations,
            population=config.population, step=config.step, box=p_space_box(ground.bank.styles, width=config.width),
            spread=points.std(dim=0), stands=STANDS,
        )  # fmt: skip
        streams = [
            Random(runtime.rng("refinement", case.id, restart).seed())
            for case in cases
            for restart in range(config.restarts)
        ]
        found = refinement.run(make_rows(cases, starts), streams, target.ledger, runtime)
        images = tiled(ground.render, runtime.tile, found.values)
        course = [tiled(ground.render, runtime.tile, stand.values) for stand in found.course]
        yield from reconstructions(
            cases, found, images, torch.exp(-found.losses), latents=found.values, history="cross-entropy", course=course
        )

    def _starts(self, cases: Sequence[Case], state: Mapping[str, Any], ground: StyleGround, runtime: Runtime) -> Tensor:
        """Return codes (C, restarts, w_dim) that the surrogates take for the classes."""
        config, box = self.config, p_space_box(ground.bank.styles, width=self.config.width)
        surrogates = restore_students(state["surrogates"], runtime)
        search = RowSearch(
            objective=surprise_of_surrogates(surrogates, ground.render),
            optimizer=RowAdam(learning_rate=config.learning_rate), steps=config.steps,
            constraint=lambda styles, _: box.clamp(styles), keep="best",
        )  # fmt: skip
        rows = make_rows(cases, box.clamp(ground.bank.starts(cases, config.restarts)))
        found = search.run(rows, Ledger(), runtime, "searching on the surrogates")  # a ledger that nobody charges
        styles: Tensor = found.values.unflatten(0, (len(cases), config.restarts))
        return styles

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the target's work: the bank once; each start, and all points of all generations."""
        config = self.config
        each = 1 + config.generations * config.population
        return Forecast(
            preparation=Spending(queries=config.bank_queries), per_case=Spending(queries=config.restarts * each)
        )

    def prior(self, prepared: Prepared, runtime: Runtime) -> StyleGround:
        """Return the StyleGAN as a prior, truncated as the samples are."""
        return restore_ground(self.config, prepared, runtime, NAME)

    def generator(self, prepared: Prepared, runtime: Runtime) -> StyleRenderer:
        """Build the network that makes pictures of style codes."""
        return StyleRenderer(self.prior(prepared, runtime))

    def with_generator(self, prepared: Prepared, weights: Mapping[str, Tensor]) -> Prepared:
        """Return what was prepared with other weights of that network; bank and surrogates stay as they are."""
        return with_renderer(prepared, weights)
