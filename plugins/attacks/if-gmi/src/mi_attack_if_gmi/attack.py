"""IF-GMI: the code of a StyleGAN is searched, then its intermediate features.

Qiu, Fang, Yu, Chen, Qiu, Xia: "A Closer Look at GAN Priors: Exploiting Intermediate Features for Enhanced Model
Inversion Attacks", ECCV 2024 (arXiv:2407.13863).

Threat model: white box (logits and gradients of the target); a StyleGAN of the same kind of pictures, from a file or
trained on unlabelled public images, that knows no target.

1. The target scores many candidates of the prior; for each class the best are where the search begins (as in PPA).
2. Stage 0 moves the style code down the Poincare distance under random crops.
3. Stage i runs the generator up to its block i, then moves the code and the features that enter the block together.
   After each step both are projected into L1 balls around where the stage began.
4. The stage whose pictures the target recognises best under random views is reported.

Fidelity notes (paper / authors' code / here)
- The authors choose the reported stage by the accuracy of the evaluation model. An adversary has none: here the target
  chooses, by the mean confidence in the views of PPA's last selection, for each class.
- The authors' later stages begin without the picture that the earlier blocks have made (the sum of their torgb layers).
  Here it is carried over; ``carry_image=false`` drops it as they do.
- The authors average the loss over a batch; here it is summed, which Adam hides up to its epsilon.
- The authors' radii lie far above what so few steps of this size can move a code, so that they bind the features at
  most; see the README. The last radius of a list serves all later stages.
- Candidates, cropping and the central part: as in PPA, see `mi_image.stylegan_attacks` and `mi_image.crops`.
- The presets ``default`` and ``smoke`` are ours: a small StyleGAN trained on the public images, larger steps, smaller
  radii, and cross-entropy instead of the Poincare distance (see PPA).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from mi_attack_if_gmi.selection import StageResult, best_stage
from mi_attack_if_gmi.stages import Stage, next_stage, style_stage
from mi_image.crops import final_views, mean_confidences, search_views, view_numbers
from mi_image.identity import default_flip, view_losses
from mi_image.stylegan_attacks import (
    PREPARE_FIELDS,
    SMALL,
    TINY,
    StyleGround,
    StylePriorConfig,
    prepare_ground,
    restore_ground,
    shown_channels,
)
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import ModelError
from micore.kit.case_rows import make_rows, reconstructions, tiled, uniform_draws
from micore.kit.losses import LOSSES
from micore.kit.row_optimizers import RowAdam
from micore.kit.search import Found, RowSearch, RowStatus
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending


class IntermediateFeaturesConfig(StylePriorConfig):
    """Settings of IF-GMI; the defaults of single fields are those of the authors for CelebA, presets change them."""

    restarts: int = Field(50, ge=1, description="candidates of the bank that are searched for each class (code: 50)")
    layers: int = Field(
        4, ge=0, description="stages after that of the style code: blocks whose input is searched (code: 4)"
    )
    steps: int = Field(70, ge=0, description="Adam steps on the style code alone (code: 70; FaceScrub 50, dogs 100)")
    feature_steps: int = Field(25, ge=0, description="Adam steps of each later stage (code: 25; dogs 10)")
    learning_rate: float = Field(0.005, gt=0, description="of Adam on the style code alone (code: 0.005)")
    feature_learning_rate: float = Field(0.005, gt=0, description="of Adam in the later stages (code: 0.005)")
    betas: tuple[float, float] = Field((0.1, 0.1), description="decays of Adam (code: 0.1, 0.1)")
    loss: Literal["poincare", "cross_entropy", "max_margin"] = Field(
        "poincare", description="what moves the search (paper: poincare); see the README on targets of few classes"
    )
    style_radii: tuple[float, ...] = Field(
        (1000.0, 2000.0, 3000.0, 4000.0, 5000.0, 6000.0, 8000.0, 8000.0), min_length=1,
        description="L1 distance that the style code may go in each stage (code: 1000, 2000...)",
    )  # fmt: skip
    feature_radii: tuple[float, ...] = Field(
        (1000.0, 2000.0, 3000.0, 4000.0, 5000.0, 6000.0, 8000.0, 8000.0), min_length=1,
        description="L1 distance that the features may go in each later stage (code: 1000 to 8000)",
    )  # fmt: skip
    carry_image: bool = Field(
        True, description="later stages go on with the picture of the earlier blocks (code: they do not)"
    )
    views: int = Field(1, ge=1, description="random crops per step (code: 1)")
    crop_area: float = Field(0.9, gt=0, le=1, description="smallest area of a crop (code: 0.9; dogs 0.75)")
    final_views: int = Field(100, ge=0, description="random views that choose the stage; 0: the image as it is")
    flip: float | None = Field(
        None, ge=0, le=1, description="mirror images among these views; none: 0.5 for colour, 0 for grey"
    )

    @field_validator("style_radii", "feature_radii")
    @classmethod
    def _positive(cls, radii: tuple[float, ...]) -> tuple[float, ...]:
        if min(radii) <= 0:
            raise ValueError("radii are positive")
        return radii

    @model_validator(mode="after")
    def _enough(self) -> IntermediateFeaturesConfig:
        if self.restarts > self.bank:
            raise ValueError(f"restarts={self.restarts} of a bank of {self.bank}")
        return self


class IntermediateFeatures:
    """The attack IF-GMI (see the module's documentation)."""

    Config: ClassVar[type[Config]] = IntermediateFeaturesConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {
            **SMALL, "restarts": 10, "layers": 2, "learning_rate": 0.05, "feature_learning_rate": 0.02,
            "final_views": 50, "loss": "cross_entropy", "style_radii": (30.0,), "feature_radii": (10.0, 20.0),
        },
        "smoke": {
            **TINY, "restarts": 3, "layers": 1, "steps": 20, "feature_steps": 10, "learning_rate": 0.05,
            "feature_learning_rate": 0.02, "final_views": 8, "loss": "cross_entropy", "style_radii": (20.0,),
            "feature_radii": (20.0,),
        },
        "paper": {"cutoff": 8, "mirror": True, "centre": 800 / 1024},
    }  # fmt: skip
    PREPARE_FIELDS: ClassVar[frozenset[str]] = PREPARE_FIELDS

    def __init__(self, config: IntermediateFeaturesConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Load or train the prior, and let the target score its candidates.

        Raises: DataError without a prior and public images; MiError for those that do not fit.
        """
        return prepare_ground(self.config, target, public, runtime, "if-gmi")

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Search stage after stage, and report the one that the target recognises best.

        Raises: ModelError when the prior has too few blocks for so many stages.
        """
        config, ground = self.config, self._ground(prepared, runtime)
        stage, results = style_stage(ground, ground.bank.starts(cases, config.restarts).flatten(0, 1)), []
        for index in range(config.layers + 1):
            found = self._search(stage, target, cases, runtime)
            results.append(self._judged(stage, found, target, cases, runtime))
            if index == config.layers or not results[-1].complete:
                break
            stage = next_stage(stage, _finite(found, stage), runtime, carry_image=config.carry_image)
        best, _ = best_stage(results, len(cases))
        yield from reconstructions(cases, best.found, best.images, best.scores, latents=best.styles, scored=best.scored)

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the target's work: the bank once; views of each stage's search and of its last look for each class."""
        config = self.config
        steps = config.steps + config.layers * config.feature_steps
        looks = (config.layers + 1) * max(1, config.final_views)
        searched = config.restarts * steps * config.views
        return Forecast(
            preparation=Spending(queries=config.bank_queries),
            per_case=Spending(queries=searched + config.restarts * looks, gradients=searched),
        )

    def prior(self, prepared: Prepared, runtime: Runtime) -> StyleGround:
        """Return the StyleGAN as a prior, truncated as the candidates are."""
        return restore_ground(self.config, prepared, runtime, "if-gmi")

    def _ground(self, prepared: Prepared | None, runtime: Runtime) -> StyleGround:
        ground = restore_ground(self.config, prepared, runtime, "if-gmi")
        most = ground.generator.n_blocks - 1
        if self.config.layers > most:
            raise ModelError(
                f"if-gmi: layers={self.config.layers}, but the prior has {most + 1} blocks", hint=f"-p layers={most}"
            )
        return ground

    def _search(self, stage: Stage, target: Target, cases: Sequence[Case], runtime: Runtime) -> Found:
        """Search one stage's rows."""
        config, module, views = self.config, target.module, search_views(self.config.crop_area)
        loss = LOSSES[config.loss]

        def losses(values: Tensor, rows: Mapping[str, Tensor], numbers: Tensor) -> Tensor:
            images = stage.render(values, rows.get("pictures"))
            return view_losses(module, loss, images, rows["labels"], views, numbers)

        first = stage.index == 0
        radii = _radius(config.style_radii, stage.index), _radius(config.feature_radii, stage.index - 1)
        search = RowSearch(
            objective=losses, steps=config.steps if first else config.feature_steps,
            optimizer=RowAdam(
                learning_rate=config.learning_rate if first else config.feature_learning_rate, betas=config.betas
            ),
            constraint=lambda values, starts: stage.project(values, starts, *radii),
        )  # fmt: skip
        purpose = f"views of stage {stage.index}"
        draw = uniform_draws(cases, config.restarts, config.views * views.n_numbers, runtime, purpose)
        rows = make_rows(cases, _by_case(stage.starts, cases), draw, _each_by_case(stage.constants, cases))
        return search.run(rows, target.ledger, runtime, f"searching, stage {stage.index}")

    def _judged(
        self, stage: Stage, found: Found, target: Target, cases: Sequence[Case], runtime: Runtime
    ) -> StageResult:
        """Render what a stage found, and ask the target how sure it is of it."""
        config = self.config
        images = tiled(stage.render, runtime.tile, found.values, *stage.constants.values())
        views = final_views(default_flip(shown_channels(images, target), config.flip))
        numbers = view_numbers(cases, config.restarts, config.final_views, views, runtime)
        rows = make_rows(cases, _by_case(found.values, cases))
        scores, scored = mean_confidences(
            target, images, rows.constants["labels"], numbers, views, rows.owners, runtime
        )
        return StageResult(
            found=found, styles=stage.styles(found.values), images=images, scores=scores.nan_to_num(0.0), scored=scored
        )


def _radius(radii: Sequence[float], index: int) -> float:
    """Return the radius of a stage; the last one serves all later stages."""
    return radii[min(max(index, 0), len(radii) - 1)]


def _finite(found: Found, stage: Stage) -> Tensor:
    """Return what was found, and where the stage began for rows that left the finite numbers."""
    failed = [status is RowStatus.FAILED for status in found.statuses]
    lost = torch.tensor(failed, device=stage.starts.device)[:, None]
    return torch.where(lost, stage.starts, found.values)


def _by_case(values: Tensor, cases: Sequence[Case]) -> Tensor:
    parts: Tensor = values.unflatten(0, (len(cases), -1))
    return parts


def _each_by_case(tensors: Mapping[str, Tensor], cases: Sequence[Case]) -> dict[str, Tensor]:
    return {name: _by_case(values, cases) for name, values in tensors.items()}
