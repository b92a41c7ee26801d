"""SecretGen: recovery of partly hidden private images, with the target's gradients or with its scores alone.

Yuan, Wu, Long, Xiao, Li: "SecretGen: Privacy Recovery on Pre-trained Models via Distribution Discrimination", ECCV
2022 (arXiv:2207.12263).

Threat model: a private image of which a part is hidden, whose class is not known; unlabelled public images; the
target in white box, or its scores (``secretgen-bb``).

1. A completion network and two critics are trained on hidden public images.
2. Many random completions of the evidence, each also with one of 16 cells cut out, are shown to the target: the class
   with the largest mean probability, among those that some completion was classified as, is the pseudo label.
3. The completions that are surest of this class are the seeds of a search for completions that look real to the
   critics and, in white box, have this class. In black box the search asks the target nothing.

Fidelity notes (paper / authors' code / here)
- The authors keep the best of ``tries`` searches by the target's likelihood (their default is one search, from the
  surest seed); here as many as ``keep`` are given back, surest first, after a last look by the target, which costs one
  query each also in black box.
- Latents that fill up missing seeds are N(0, I) and outside the box in the authors' code; the first step clips them.
  Same here.
- The authors' loss is a mean over a batch of 64 images; here losses are summed and ``batch`` divides the learning
  rate.
- The critic of patches sees a random place in each step of the search, as in training.
- The diversity term of training: the target's features in white box, as published. In black box the authors take a
  face network of public data; here the pixels (see `mi_image.inpainting_training`).
- Hidden pixels are grey (0.5) and cut-outs have the mean colour of the public images (authors: both the mean colour of
  their data set).
- The presets ``default`` and ``smoke`` are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from mi_image.completion_prior import (
    BY_PIXELS,
    COMPLETION_FIELDS,
    SMALL,
    SMOKE,
    CompletionConfig,
    completion_cost,
    prepare_completion,
)
from mi_image.completion_search import (
    CUT_GRID,
    Ground,
    Refinement,
    ask,
    complete_unguided,
    confident_seeds,
    cut_outs,
    give_back,
    give_back_guesses,
    open_ground,
    probabilities,
    pseudo_labels,
)
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import DataError
from micore.kit.latent_objective import identity_of
from micore.kit.losses import cross_entropy
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Access, Spending

VIEWS = 1 + CUT_GRID**2


class SecretGenConfig(CompletionConfig):
    """Settings of SecretGen; the defaults of single fields are the authors', presets change them."""

    completions: int = Field(200, ge=1, description="random completions that the target is asked about (code: 200)")
    cut_outs: bool = Field(True, description="whether each is also shown with 16 cells cut out (code: yes)")
    steps: int = Field(1500, ge=0, description="steps of the search (code: 1500)")
    learning_rate: float = Field(0.01, gt=0, description="of the search (code: 0.01)")
    batch: int = Field(64, ge=1, description="rows over which the authors' loss is a mean: divides the learning rate")
    momentum: float = Field(0.9, ge=0, lt=1, description="of the search (code: 0.9)")
    box: float = Field(1.0, gt=0, description="largest absolute value of a latent (code: 1)")
    identity_weight: float = Field(100.0, ge=0, description="weight of the pseudo label's likelihood (code: 100)")
    tries: int = Field(1, ge=1, description="seeds that are refined (code: 1, of the 5 surest)")
    keep: int = Field(1, ge=1, description="completions given back for each image, at most as many as tries (code: 1)")

    @model_validator(mode="after")
    def _keep_what_is_there(self) -> SecretGenConfig:
        if self.keep > self.tries:
            raise ValueError(f"keep={self.keep} is more than tries={self.tries}")
        return self


class BlackBoxConfig(SecretGenConfig):
    """Settings of SecretGen from scores alone."""

    diversity: Literal["pixels"] = Field("pixels", description="what tells completions apart: the pixels")
    identity_weight: Literal[0] = Field(0, description="the search has no gradients of the target")


class SecretGen:
    """SecretGen with white-box access (see the module's documentation)."""

    Config: ClassVar[type[Config]] = SecretGenConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {**SMALL, **BY_PIXELS, "completions": 100, "steps": 150, "batch": 1, "tries": 4},
        "smoke": {**SMOKE, "completions": 12, "steps": 10, "batch": 1},
        "paper": {},
    }
    PREPARE_FIELDS: ClassVar[frozenset[str]] = COMPLETION_FIELDS
    ACCESS: ClassVar[Access] = Access.WHITE_BOX
    NAME: ClassVar[str] = "secretgen"

    def __init__(self, config: SecretGenConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Train the completion network on hidden public images (see `prepare_completion` for what it raises)."""
        return prepare_completion(self.NAME, self.config, target, public, runtime)

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Find every case's pseudo label (section 3.4) and refine the surest completions (3.5, 3.6)."""
        config, (ground, mean) = self.config, self._ground(cases, prepared, runtime)
        answer = probabilities(target, self.ACCESS)
        drawn = ground.latents(config.completions, "latents", config.box)
        views = (lambda images: cut_outs(images, mean)) if config.cut_outs else None
        answers = ask(ground, drawn, answer, target.n_classes, target.ledger, views)
        labels = pseudo_labels(answers)
        if not answers.enough:
            yield from give_back_guesses(ground, drawn, answers, labels)
        seeds = confident_seeds(answers, labels, drawn, spare=ground.latents(config.tries, "spare"))
        identity = identity_of(target.module, cross_entropy) if config.identity_weight else None
        rows, found = self._refinement().run(ground, seeds, labels, identity, target.ledger)
        yield from give_back(ground, rows, found, answer, target.ledger, config.keep)

    def control(self, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime) -> Iterator[Reconstruction]:
        """Complete the cases at random (the paper's baseline PII, without its search by the critics)."""
        ground, _ = self._ground(cases, prepared, runtime)
        yield from complete_unguided(ground, self.config.keep, self.config.box)

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the target's work: features in training, the pseudo labels, the search and a last look."""
        config = self.config
        asked = config.completions * (VIEWS if config.cut_outs else 1)
        steps = config.tries * config.steps if config.identity_weight else 0
        per_case = Spending(queries=asked + steps + config.tries, gradients=steps)
        return Forecast(preparation=completion_cost(config), per_case=per_case)

    def _refinement(self) -> Refinement:
        config = self.config
        return Refinement(
            steps=config.steps, learning_rate=config.learning_rate / config.batch, momentum=config.momentum,
            box=config.box, identity_weight=config.identity_weight, evidence_weight=config.evidence_weight,
        )  # fmt: skip

    def _ground(self, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime) -> tuple[Ground, Any]:
        """Return the cases' evidence with the networks, and the colour of cut-outs."""
        if prepared is None:
            raise DataError(f"{self.NAME} was not prepared")
        ground = open_ground(prepared.state, cases, self.config.evidence, runtime)
        return ground, prepared.state["mean"].to(runtime.device)


class SecretGenBlackBox(SecretGen):
    """SecretGen with the target's scores: pseudo labels from queries, a search by the critics alone."""

    Config: ClassVar[type[Config]] = BlackBoxConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {**SMALL, **BY_PIXELS, "completions": 200, "steps": 20, "batch": 1, "tries": 4},
        "smoke": {**SMOKE, **BY_PIXELS, "completions": 40, "steps": 5, "batch": 1},
        "paper": {},
    }
    ACCESS: ClassVar[Access] = Access.SCORES
    NAME: ClassVar[str] = "secretgen-bb"
