"""Diff-MI: model inversion through a target-specific conditional diffusion model.

Li et al.: "Model Inversion Attacks Through Target-Specific Conditional Diffusion Models", 2024 (arXiv:2407.11424).

Threat model: white box (logits, features and gradients of the target), unlabelled public images of the same kind.

1. The target labels the public images: for each class the ``n_top`` images it is surest of, and their mean features.
2. A class-conditional diffusion model is trained on these pairs, with a null class for guidance.
3. It is tuned on the target: what it samples of a class shall have a large margin and the class's mean features.
4. For each class, pixels are searched from noise, in turn a step down the denoising error and one down the
   target's loss under random views, which is bounded by the first one's gradient.
5. The result is diffused a little and denoised; if asked, it is polished by a small attack on the target.

Fidelity notes (paper / authors' code / here)
- The authors tune on the 300 classes they attack. Here all classes of the target are tuned on, so that a preparation
  serves any choice of classes.
- The authors supply the table of mean features as a file. Here it is made of the pseudo-labelled images, in the pass
  that labels them.
- How often the class is left out in training is not published; here in 0.1 of the images. The mean of the weights
  starts with a lower decay, see `mi_attack_diff_mi.pretraining`.
- Tuning ends at 0.99 of the last predictions recognised, or after 100 epochs. Kept in ``paper``. With few classes one
  lucky epoch would end it, so ``default`` and ``smoke`` take a fixed number.
- The authors divide losses by a batch of 64 images and take gradient norms over it. Here losses are summed and norms
  are the row's own, so that a result depends on no other case; Adamax and the ratio of the norms hide the scale.
- The views' blur is 3 of 64 px wide in the authors' code; here it scales with the image.
- The authors end with an adversarial attack on the target and report the result. ``paper`` does so too; by default it
  is off, for it changes the target's confidence and nothing that a person sees. Scores are always those before it,
  and reconstructions are ordered by them; run with ``polish`` on and off to compare.
- The gradient of the denoising error goes through the network, as in the authors' code; ``prior_gradient=detached``
  leaves it out, in about three quarters of the time. On digits the result is the same after tuning, and worse without.
- The presets ``default`` and ``smoke`` are ours: a network of an eighth of the width with two levels, a short training,
  for small pictures on a CPU, with ``n_top`` 100 (paper: 30) and quicker tuning.
- Images are in [0, 1] outside of the diffusion model. Notes on network and samplers: `mi_attack_diff_mi.denoiser`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from mi_attack_diff_mi.denoiser import (
    Denoiser,
    DenoiserShape,
    DiffusionPrior,
    build_denoiser,
    require_makeable,
    restore_denoiser,
)
from mi_attack_diff_mi.finetuning import FinetuningSettings, finetune
from mi_attack_diff_mi.guidance import Guidance, Profile, Views, class_profile, seen_through
from mi_attack_diff_mi.polish import Polish
from mi_attack_diff_mi.pretraining import PretrainingSettings, pretrain
from mi_attack_diff_mi.reconstruction import Reconstructor
from mi_image.augment import Augmentation
from mi_image.identity import default_flip
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import DataError
from micore.kit.case_rows import confidences, reconstructions
from micore.kit.row_optimizers import RowAdamax
from micore.kit.stages import Stages
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending

Factor = Annotated[int, Field(ge=1)]


class DiffMiConfig(Config):
    """Settings of Diff-MI; the defaults of single fields are the authors', presets change them."""

    # diffusion model (paper section 4.1)
    n_top: int = Field(30, ge=1, description="public images per pseudo label (paper: 30)")
    base: int = Field(128, ge=4, description="channels of the network's finest level (code: 128)")
    multipliers: tuple[Factor, ...] = Field((1, 2, 3, 4), min_length=1, description="of the channels, per level")
    res_blocks: int = Field(3, ge=1, description="residual blocks per level (code: 3)")
    attention: tuple[Factor, ...] = Field((4, 8), description="reductions of the side with attention (code: 4, 8)")
    head_width: int = Field(128, ge=1, description="channels of an attention head")
    iterations: int = Field(50_000, ge=1, description="training steps of the diffusion model (paper: 50,000)")
    batch_size: int = Field(150, ge=1, description="images of a training step (paper: 150)")
    learning_rate: float = Field(1e-4, gt=0, description="of the training's AdamW (code: 1e-4)")
    ema: float = Field(0.9999, ge=0, lt=1, description="decay of the mean weights (code: 0.9999)")
    null_probability: float = Field(0.1, ge=0, le=1, description="share of images trained without their class")
    guidance: float = Field(3.0, ge=1, description="scale of classifier-free guidance (code: 3)")
    # target-specific fine-tuning (paper section 4.1)
    finetune_epochs: int = Field(100, ge=0, description="passes over the classes, at most (code: 100)")
    finetune_batch_size: int = Field(4, ge=1, description="classes of a step (code: 4)")
    finetune_learning_rate: float = Field(2e-4, gt=0, description="of its AdamW (code: 2e-4)")
    finetune_accuracy: float | None = Field(
        0.99, gt=0, le=1, description="it ends when the target recognises this share (code: 0.99); none: never early"
    )
    finetune_views: int = Field(2, ge=1, description="random views of each prediction (code: 2)")
    solver_steps: int = Field(10, ge=1, description="steps of DPM-Solver++ (code: 10)")
    # identity loss (paper section 4.2)
    margin_k: int = Field(20, ge=1, description="rivals in the margin (paper: 20)")
    feature_weight: float = Field(1.0, ge=0, description="weight of the distance to the class's features (code: 1)")
    # search (paper section 4.2, algorithm 1)
    steps: int = Field(30, ge=1, description="iterations of a prior and a target step (code: 30)")
    step_size: float = Field(1.0, gt=0, description="learning rate of Adamax (code: 1)")
    clip: float = Field(1.25, gt=0, description="bound on the target's gradient, in norms of the prior's (code: 1.25)")
    prior_gradient: Literal["full", "detached"] = Field(
        "full", description="full: through the network (code); detached: the error itself, half the time"
    )
    views: int = Field(4, ge=1, description="random views per iteration (code: 4)")
    restarts: int = Field(5, ge=1, description="reconstructions per class (paper: 5)")
    flip: float | None = Field(
        None, ge=0, le=1, description="probability of a mirror image (code: 0.5); none: 0.5 for colour, 0 for grey"
    )
    brightness: float = Field(0.2, ge=0, description="largest relative change of brightness (code: 0.2)")
    blur: float = Field(
        3 / 64, ge=0, description="deviation of the views' blur, as part of the side (code: 3 of 64 px)"
    )
    # refinement and polish
    refine_time: int = Field(100, ge=0, le=1000, description="how far it is diffused, of 1000 (code: 100); 0: not")
    refine_grid: int = Field(100, ge=1, le=1000, description="DDIM steps of the whole process (code: 100)")
    polish: bool = Field(
        False, description="end with an adversarial attack on the target (code: yes); inflates its scores"
    )
    polish_radius: float = Field(0.5, gt=0, description="L2 radius of the polish (code: 0.5)")
    polish_step: float = Field(0.1, gt=0, description="L2 length of its steps (code: 0.1)")
    polish_steps: int = Field(10, ge=1, description="its steps (code: 10)")


PRIOR_FIELDS = (
    "n_top", "base", "multipliers", "res_blocks", "attention", "head_width", "iterations", "batch_size",
    "learning_rate", "ema", "null_probability", "guidance", "finetune_epochs", "finetune_batch_size",
    "finetune_learning_rate", "finetune_accuracy", "finetune_views", "solver_steps", "margin_k", "feature_weight",
    "flip",
)  # fmt: skip


class DiffMi:
    """The attack Diff-MI (see the module's documentation)."""

    Config: ClassVar[type[Config]] = DiffMiConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {
            "n_top": 100, "base": 16, "multipliers": (1, 2), "res_blocks": 1, "attention": (), "head_width": 16,
            "iterations": 1000, "batch_size": 48, "learning_rate": 2e-3, "ema": 0.995,
            "finetune_epochs": 60, "finetune_learning_rate": 1e-3, "finetune_accuracy": None, "restarts": 10,
        },
        "smoke": {
            "n_top": 16, "base": 8, "multipliers": (1, 2), "res_blocks": 1, "attention": (), "head_width": 8,
            "iterations": 40, "batch_size": 16, "learning_rate": 2e-3, "ema": 0.9, "finetune_epochs": 1,
            "finetune_accuracy": None, "solver_steps": 3, "steps": 10, "views": 2, "restarts": 2, "refine_grid": 40,
        },
        "paper": {"polish": True},
    }  # fmt: skip
    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset(PRIOR_FIELDS)

    def __init__(self, config: DiffMiConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Label the public images with the target, train the diffusion model on them and tune it to the target.

        Raises: DataError without public images, or for images of a size that the network cannot make.
        """
        if public is None or len(public) == 0:
            raise DataError("diff-mi needs public images")
        images = public.take(torch.arange(len(public))).to(runtime.device)
        require_makeable(images, self.config.multipliers)  # before the target is asked anything
        stages, shape = Stages(runtime), self._shape(images, target.n_classes)
        labelled = stages.run(
            "labels", lambda stage: vars(class_profile(target.module, images, self.config.n_top, stage))
        )
        profile = Profile(**{name: values.to(runtime.device) for name, values in labelled.items()})
        trained = stages.run("training", lambda stage: self._pretrained(shape, images, profile, stage))
        tuned = stages.run("tuning", lambda stage: self._finetuned(shape, trained["denoiser"], profile, target, stage))
        return Prepared(state={**tuned, "features": profile.features, "shape": shape.to_dict()})

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Search the pixels of all restarts of all cases, refine them, and polish them if asked."""
        config, state = self.config, _state(prepared)
        denoiser, features = self._restore(state, runtime), state["features"].to(runtime.device)
        search = self._reconstructor(target, denoiser, features)
        owners = [case.id for case in cases for _ in range(config.restarts)]
        labels = torch.tensor([case.label for case in cases], device=runtime.device).repeat_interleave(config.restarts)
        streams = [runtime.rng("search", case.id, index) for case in cases for index in range(config.restarts)]
        found = search.run(labels, owners, streams, target.ledger, runtime)
        scores, enough = confidences(target, found.values, labels, owners, runtime)
        images = found.values
        if config.polish and found.complete:
            images, polished = self._polish.run(target.module, images, labels, owners, streams, target.ledger, runtime)
            enough = enough and polished
        yield from reconstructions(cases, found, images, scores, scored=enough)

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the target's work; with ``finetune_accuracy`` the tuning may end earlier, so this is the most."""
        config = self.config
        tuning = config.finetune_epochs * n_classes * config.solver_steps * config.finetune_views
        search = config.restarts * config.steps * config.views
        polish = config.restarts * config.polish_steps if config.polish else 0
        looks = config.restarts * (2 if config.polish else 1)
        return Forecast(
            preparation=Spending(queries=n_public + tuning, gradients=tuning),
            per_case=Spending(queries=search + polish + looks, gradients=search + polish),
        )

    def prior(self, prepared: Prepared, runtime: Runtime) -> DiffusionPrior:
        """Return the tuned diffusion model as a prior: samples of random pseudo labels."""
        return DiffusionPrior(self._restore(prepared.state, runtime), self.config.solver_steps, self.config.guidance)

    def _shape(self, images: Tensor, n_classes: int) -> DenoiserShape:
        config, (_, channels, height, width) = self.config, images.shape
        return DenoiserShape(
            channels=channels, height=height, width=width, n_classes=n_classes, base=config.base,
            multipliers=config.multipliers, res_blocks=config.res_blocks, attention=config.attention,
            head_width=config.head_width,
        )  # fmt: skip

    def _pretrained(
        self, shape: DenoiserShape, images: Tensor, profile: Profile, runtime: Runtime
    ) -> Mapping[str, Any]:
        config = self.config
        settings = PretrainingSettings(
            iterations=config.iterations, batch_size=config.batch_size, learning_rate=config.learning_rate,
            ema=config.ema, null_probability=config.null_probability,
        )  # fmt: skip
        denoiser = build_denoiser(shape, runtime)
        return {"denoiser": pretrain(denoiser, images, profile.members, settings, runtime)}

    def _finetuned(
        self, shape: DenoiserShape, weights: Mapping[str, Tensor], profile: Profile, target: Target, runtime: Runtime
    ) -> Mapping[str, Any]:
        config = self.config
        settings = FinetuningSettings(
            epochs=config.finetune_epochs, batch_size=config.finetune_batch_size,
            learning_rate=config.finetune_learning_rate, accuracy=config.finetune_accuracy,
            steps=config.solver_steps, scale=config.guidance, views=config.finetune_views,
        )  # fmt: skip
        augmentation = Augmentation(flip=default_flip(shape.channels, config.flip), colour_probability=0.5)
        denoiser, guidance = restore_denoiser(shape, weights, runtime), self._guidance(target, profile.features)
        return finetune(denoiser, guidance, augmentation, settings, runtime)

    def _guidance(self, target: Target, features: Tensor) -> Guidance:
        return Guidance(
            module=target.module, features=features, k=self.config.margin_k, weight=self.config.feature_weight
        )

    def _reconstructor(self, target: Target, denoiser: Denoiser, features: Tensor) -> Reconstructor:
        config = self.config
        flip = default_flip(denoiser.shape.channels, config.flip)
        views = Views(flip=flip, brightness=config.brightness, blur=config.blur)
        return Reconstructor(
            denoiser=denoiser, losses=seen_through(self._guidance(target, features), views),
            n_numbers=config.views * views.n_numbers, steps=config.steps,
            optimizer=RowAdamax(learning_rate=config.step_size), scale=config.guidance, clip=config.clip,
            full_gradient=config.prior_gradient == "full", refine_time=config.refine_time,
            refine_grid=config.refine_grid,
        )  # fmt: skip

    @property
    def _polish(self) -> Polish:
        config = self.config
        return Polish(radius=config.polish_radius, step=config.polish_step, steps=config.polish_steps)

    def _restore(self, state: Mapping[str, Any], runtime: Runtime) -> Denoiser:
        return restore_denoiser(DenoiserShape.from_dict(state["shape"]), state["denoiser"], runtime)


def _state(prepared: Prepared | None) -> Mapping[str, Any]:
    if prepared is None:
        raise DataError("diff-mi was not prepared")
    return prepared.state
