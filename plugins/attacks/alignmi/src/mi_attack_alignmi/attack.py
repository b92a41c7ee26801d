"""AlignMI: gradient-manifold alignment of model inversion, without training.

Peng, Han, Yu, Liu, Liu, Zhou: "Generative Model Inversion Through the Lens of the Manifold Hypothesis", NeurIPS 2025
(arXiv:2509.20177).

Threat model: that of the base attack, here white box with public images.

Gradients of a classifier's loss in its input are noisy: most of them points away from the images that a generator can
make. Averaged over changed copies of a candidate (equation 8), what they have in common remains. The base attack is
run as it is, on a target with such gradients:

- ``transform=warp``: random crops, mirror images and rotations (TAA, the paper's better one);
- ``transform=noise``: normal noise (PAA);
- ``transform=erase``: squares erased (ours), for targets that were trained on erased images: an adversary who knows of
  the defense shows the target what it has learned on.

The paper reports that it lifts PPA, and that it does so against BiDO, NegLS and TL-DMI, too.

Fidelity notes (paper / here)
- Paper: the mean of the loss's gradients. Here the base attack brings its own loss, which may mix logits and features:
  the target's Jacobians are averaged, and the loss is derived once, at the mean of the copies' logits (``value=mean``)
  or at the candidate's own (``value=plain``). For a loss that is linear in the logits (a margin, a logit) both are the
  paper's gradient.
- Features that a base attack reads beside the logits are those of the last copy.
- Crops are square; the paper's have a ratio of 0.9 to 1.1. Crop, mirror image and rotation are one warp that is
  resampled once (`mi_image.augment`).
- Noise is of the range [0, 1] and, as far as the paper says, not clipped.
- Random numbers: fixed by the run's seed and the candidate's own pixels (`micore.kit.keyed_noise`), so that a case
  depends on no other. A candidate that has moved by less than a level of 8 bits may be changed as before.
- Where the base attack asks without gradients (its last look at confidences, its choice of starts), it gets the
  target's own answer for one query. What it prepares is that of its own runs, with plain gradients.
- The paper averages 50 copies; the presets ``default`` and ``smoke`` fewer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mi_attack_alignmi.alignment import Value, aligned
from mi_attack_alignmi.changes import Change, Erasing, Noise, Warp
from mi_image.augment import Augmentation
from mi_image.identity import default_flip
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.kit.target_views import TargetView
from micore.kit.wrappers import Wrapper, WrapperConfig
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending


class AlignedConfig(WrapperConfig):
    """Settings of AlignMI; the base attack's own are in ``base_options``."""

    base: str = Field("plmi", description="attack whose gradients are averaged")
    copies: int = Field(50, ge=1, description="changed copies of each candidate in a step (paper: 50)")
    transform: Literal["warp", "noise", "erase"] = Field(
        "warp", description="how they are changed (paper: warp, noise)"
    )
    value: Value = Field("mean", description="logits of a step: the copies' mean, or plain: the candidate's own")
    crop_area: float = Field(0.8, gt=0, le=1, description="warp: smallest area of a random crop (paper: 0.8)")
    flip: float | None = Field(
        None, ge=0, le=1, description="warp: share of mirror images (paper: 0.5); none: 0.5 for colour, 0 for grey"
    )
    rotation: float = Field(5.0, ge=0, le=180, description="warp: largest rotation in degrees (paper: 5)")
    brightness: float = Field(0.0, ge=0, description="warp: largest relative change of brightness (paper: none)")
    contrast: float = Field(0.0, ge=0, description="warp: largest relative change of contrast (paper: none)")
    spread: float = Field(0.05, gt=0, description="noise: standard deviation, of the range [0, 1] (paper: 0.05)")
    erase_least: float = Field(0.1, gt=0, le=1, description="erase: smallest area of the square (the defense's: 0.1)")
    erase_most: float = Field(0.4, gt=0, le=1, description="erase: largest area of the square (the defense's: 0.4)")
    erase_fill: float = Field(0.5, ge=0, le=1, description="erase: value that the square is filled with")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.erase_least > self.erase_most:
            raise ValueError(f"erase_least={self.erase_least} is larger than erase_most={self.erase_most}")
        return self

    def change(self, channels: int) -> Change:
        """Return how copies of images of so many channels are changed."""
        if self.transform == "noise":
            return Noise(spread=self.spread)
        if self.transform == "erase":
            return Erasing(least=self.erase_least, most=self.erase_most, fill=self.erase_fill)
        flip = default_flip(channels, self.flip)
        return Warp(
            augmentation=Augmentation(self.crop_area, flip, self.rotation, self.brightness, self.contrast)
        )  # fmt: skip


class Aligned(Wrapper):
    """The attack AlignMI (see the module's documentation)."""

    Config: ClassVar[type[Config]] = AlignedConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {"copies": 8},
        "smoke": {"base_preset": "smoke", "copies": 3},
        "paper": {"base_preset": "paper"},
    }
    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset()  # prepares what its base does

    def __init__(self, config: AlignedConfig) -> None:
        super().__init__(config)
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared | None:
        """Prepare the base attack."""
        return self.wrapped().prepare(target, public, runtime)

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Run the base attack on averaged gradients."""
        config = self.config
        module = aligned(target.module, config.change, config.copies, config.value, runtime)
        yield from self.wrapped().run(TargetView(target, module=module), cases, prepared, runtime)

    def cost(self, base: Forecast, n_public: int) -> Forecast:
        """Count the copies of each of the base's steps; its queries without gradients stay as they are."""
        spent, copies = base.per_case, self.config.copies
        own = spent.gradients if self.config.value == "plain" else 0
        per_case = Spending(
            queries=spent.queries - spent.gradients + copies * spent.gradients + own,
            gradients=copies * spent.gradients,
        )  # fmt: skip
        return Forecast(preparation=base.preparation, per_case=per_case)
