"""MIRROR, white-box: a StyleGAN's codes by cross-entropy, kept in a box of P space.

An, Tao, Xu, Liu, Shen, Yao, Xu, Zhang: "MIRROR: Model Inversion for Deep Learning Network with High Fidelity",
NDSS 2022.

Threat model: white box (logits and gradients of the target); a StyleGAN of the same kind of pictures, from a file or
trained on unlabelled public images, that knows no target.

1. The target scores many samples of the prior; for each class the best are where the search begins.
2. The codes w of these samples, mapped to P space where they are nearly normal, give a box: in each dimension the mean
   and ``width`` deviations to either side.
3. One code per restart moves down the cross-entropy with Adam, its picture mirrored at random, and is put back into the
   box after each step, on both sides. The best state seen is kept.

Fidelity notes (paper / authors' code / here)
- The authors' random mirror image is one throw for the whole batch; here each row throws its own.
- The authors average the loss over a batch; here it is summed, which Adam hides up to its epsilon.
- The authors may add dropout in the target, a discriminator term and an energy term, off by default; left out.
- The authors put a code into the box after each step, so that the state that is kept can be the very first, outside the
  box. Here the search begins inside.
- The kept state is that with the lowest loss, as in the authors' code; reconstructions are returned best first by the
  target's confidence in the unchanged image.
- The authors' variants over w+ and over z are left out: their released command searches one code for all layers.
- The authors' StyleGAN is genforce's at 256 px, of which a part of CelebA was left out. Here any StyleGAN2 will do.
- The presets ``default`` and ``smoke`` are ours: a small StyleGAN trained on the public images, and fewer steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field, model_validator
from torch import Tensor

from mi_attack_mirror.space import code_box
from mi_image.augment import Augmentation
from mi_image.identity import default_flip, view_losses
from mi_image.stylegan_attacks import (
    PREPARE_FIELDS,
    SMALL,
    TINY,
    StyleGround,
    StylePriorConfig,
    StyleRenderer,
    prepare_ground,
    restore_ground,
    shown_channels,
    with_renderer,
)
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.kit.case_rows import confidences, make_rows, reconstructions, tiled, uniform_draws
from micore.kit.losses import cross_entropy
from micore.kit.row_optimizers import RowAdam, ramp_up_and_down
from micore.kit.search import RowSearch
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending


class MirrorConfig(StylePriorConfig):
    """Settings of MIRROR; the defaults of single fields are the authors', presets change them."""

    bank: int = Field(100_000, ge=2, description="samples that the target scores once, for all classes (code: 100,000)")
    psi: float = Field(0.7, ge=0, description="truncation of the samples (code: 0.7); 1: none")
    width: float = Field(1.0, gt=0, description="deviations from the mean that the box reaches (code: 1)")
    restarts: int = Field(8, ge=1, description="reconstructions per class (code: 8)")
    steps: int = Field(20_000, ge=0, description="Adam steps (code: 20,000)")
    learning_rate: float = Field(0.25, gt=0, description="of the search's Adam at its height (code: 0.25)")
    weight: float = Field(10.0, gt=0, description="of the cross-entropy (code: 10)")
    flip: float | None = Field(
        None, ge=0, le=1, description="probability of a mirror image (code: 0.5); none: 0.5 for colour, 0 for grey"
    )

    @model_validator(mode="after")
    def _enough(self) -> MirrorConfig:
        if self.restarts > self.bank:
            raise ValueError(f"restarts={self.restarts} of a bank of {self.bank}")
        return self


class Mirror:
    """The attack MIRROR with white-box access (see the module's documentation)."""

    Config: ClassVar[type[Config]] = MirrorConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {**SMALL, "restarts": 10, "steps": 200, "width": 3.0},
        "smoke": {**TINY, "restarts": 3, "steps": 40, "learning_rate": 0.1},
        "paper": {"cutoff": 8},
    }
    PREPARE_FIELDS: ClassVar[frozenset[str]] = PREPARE_FIELDS

    def __init__(self, config: MirrorConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Load or train the prior, and let the target score its samples.

        Raises: DataError without a prior and public images; MiError for those that do not fit.
        """
        return prepare_ground(self.config, target, public, runtime, "mirror")

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Search from the best samples of all cases."""
        config, ground = self.config, restore_ground(self.config, prepared, runtime, "mirror")
        module, box = target.module, code_box(ground.bank, config.width)
        starts = box.clamp(ground.bank.starts(cases, config.restarts))
        flip = default_flip(shown_channels(ground.render(starts[0, :1]), target), config.flip)
        views = Augmentation(crop_area=1.0, flip=flip, rotation=0.0, brightness=0.0, contrast=0.0)

        def surprise(styles: Tensor, rows: Mapping[str, Tensor], numbers: Tensor) -> Tensor:
            images = ground.render(styles)
            return config.weight * view_losses(module, cross_entropy, images, rows["labels"], views, numbers)

        rows = make_rows(cases, starts, uniform_draws(cases, config.restarts, views.n_numbers, runtime))
        schedule = ramp_up_and_down(config.steps) if config.steps else None
        search = RowSearch(
            objective=surprise, optimizer=RowAdam(learning_rate=config.learning_rate, schedule=schedule),
            steps=config.steps, constraint=lambda styles, _: box.clamp(styles), keep="best",
        )  # fmt: skip
        found = search.run(rows, target.ledger, runtime)
        images = tiled(ground.render, runtime.tile, found.values)
        scores, scored = confidences(target, images, rows.constants["labels"], rows.owners, runtime)
        yield from reconstructions(
            cases, found, images, scores, latents=found.values, scored=scored, history="cross-entropy"
        )

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the target's work: the bank once; a view in each step and a last look for each restart."""
        steps = self.config.restarts * self.config.steps
        return Forecast(
            preparation=Spending(queries=self.config.bank_queries),
            per_case=Spending(queries=steps + self.config.restarts, gradients=steps),
        )

    def prior(self, prepared: Prepared, runtime: Runtime) -> StyleGround:
        """Return the StyleGAN as a prior, truncated as the samples are."""
        return restore_ground(self.config, prepared, runtime, "mirror")

    def generator(self, prepared: Prepared, runtime: Runtime) -> StyleRenderer:
        """Build the network that makes pictures of style codes."""
        return StyleRenderer(self.prior(prepared, runtime))

    def with_generator(self, prepared: Prepared, weights: Mapping[str, Tensor]) -> Prepared:
        """Return what was prepared with other weights of that network."""
        return with_renderer(prepared, weights)
