"""Pixels against the truth: what an attack on an instance recovered, beside the very image that it is about.

``psnr`` and ``ssim`` compare whole images. An attack that gives back the visible part unchanged has much of both
for nothing, so ``psnr-hidden`` and ``ssim-hidden`` compare the hidden part alone. All samples that an attack gives
back count. ``lpips`` is measured where the user gives the weights that it needs. No evaluator model judges here: for
likeness in its features and for recognition see ``distance`` and ``accuracy``, which judge goal ``instance`` too.

The subject ``holdout`` (other images of the class) is left out: its pixels say nothing of this image. The ceiling of
these figures needs no measurement: the image itself has an SSIM of 1, and 58.9 dB, what rounding to 8 bits leaves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mi_evaluator_paired.likeness import SMALLEST_SIDE, psnr, readable, ssim_maps, weighted_mean
from mi_evaluator_paired.perceptual import Backbone, Perceptual
from mi_image.corruptions import MaskedImage
from micore.contracts import Config, Measurement, Reference, Subject
from micore.errors import DataError, ModelError
from micore.inputs import InputSpec
from micore.kit.dataset_options import DatasetOptions, find_place
from micore.kit.measuring import Figure, Rows, measure
from micore.runs.subjects import HOLDOUT
from micore.runtime import Runtime

IDENTITY = "paired@pixels"
NOTHING_HIDDEN = "no pixel of some images is known to be hidden: they have no value over the hidden part"
TOO_SMALL = f"images of less than {SMALLEST_SIDE} pixels a side have no SSIM"


class PairedConfig(Config):
    """Settings of the evaluator."""

    batch_size: int = Field(256, ge=1, description="images compared at once")
    lpips: str | None = Field(
        None, description="file with torchvision's weights of lpips_net, also below the data root; none: no LPIPS"
    )
    lpips_net: Backbone = Field("alex", description="network of LPIPS: alex (AlexNet) or vgg (VGG-16)")
    resamples: int = Field(2000, ge=1, description="bootstrap resamples behind each interval")


@dataclass(frozen=True, slots=True)
class Pairs:
    """What was recovered and what is true, row by row: both (N, C, H, W) in [0, 1], and the hidden pixels.

    hidden (N, 1, H, W): 1 where the adversary did not see the pixel; 0 throughout where nobody says which it saw.
    spoiled: samples with pixels that are no numbers.
    """

    images: Tensor
    truth: Tensor
    hidden: Tensor
    spoiled: int

    @property
    def notes(self) -> tuple[str, ...]:
        """Say what all figures of these pairs must be read with."""
        spoiled = f"{self.spoiled} samples with pixels that are no numbers: these count as wrong as can be"
        return (spoiled,) if self.spoiled else ()


class PairedEvaluator:
    """Judge recovered images by PSNR and SSIM, and by LPIPS where there are weights, against the truth."""

    Config: ClassVar[type[Config]] = PairedConfig

    def __init__(self, config: PairedConfig) -> None:
        """Look for the weights at once: an attack may take hours before its judges are asked.

        Raises: ModelError.
        """
        self.config = config
        self._weights = find_place(DatasetOptions(), config.lpips) if config.lpips else None
        if self._weights is not None and not self._weights.is_file():
            raise ModelError(
                f"paired: {self._weights} does not exist", hint="lpips=FILE, a state dict of torchvision's"
            )

    def evaluate(self, subjects: Sequence[Subject], reference: Reference, runtime: Runtime) -> list[Measurement]:
        """Measure every subject but `holdout` alike.

        Raises: DataError when the truth of a case is not known; ModelError for weights that do not fit.
        """
        net = Perceptual(self._weights, self.config.lpips_net, runtime.device) if self._weights else None
        found = []
        for subject in subjects:
            if subject.name != HOLDOUT:
                rows = Rows.of(subject, reference.truth, labelled=False)
                pairs = pairs_of(subject, reference)
                for figure in self._figures(pairs):
                    found.append(measure(figure, rows, IDENTITY, resamples=self.config.resamples))
                if net is not None:
                    identity = f"paired@{net.digest[:12]}"
                    found.append(measure(_lpips(net, pairs), rows, identity, resamples=self.config.resamples))
        return found

    def _figures(self, pairs: Pairs) -> list[Figure]:
        parts = [self._values(*part) for part in _batches(pairs, self.config.batch_size)]
        whole_psnr, whole_ssim, hidden_psnr, hidden_ssim = torch.cat(parts, dim=1).unbind(0)
        notes = pairs.notes
        small = (TOO_SMALL,) if min(pairs.truth.shape[-2:]) < SMALLEST_SIDE else ()
        bare = (NOTHING_HIDDEN,) if bool((pairs.hidden.flatten(1).sum(dim=1) == 0).any()) else ()
        return [
            Figure("psnr", whole_psnr, "dB", "up", notes),
            Figure("ssim", whole_ssim, "SSIM", "up", notes + small),
            Figure("psnr-hidden", hidden_psnr, "dB", "up", notes + bare),
            Figure("ssim-hidden", hidden_ssim, "SSIM", "up", notes + bare + small),
        ]

    def _values(self, images: Tensor, truth: Tensor, hidden: Tensor) -> Tensor:
        """Return the four figures of each row, (4, N)."""
        everything, maps = torch.ones_like(hidden), ssim_maps(images, truth)
        values = [(psnr(images, truth, part), weighted_mean(maps, part)) for part in (everything, hidden)]
        return torch.stack([figure for pair in values for figure in pair])


def pairs_of(subject: Subject, reference: Reference) -> Pairs:
    """Lay out all samples of a subject beside the truth of their cases, on the CPU, in the size of the truth.

    Raises: DataError when the truth of a case is not known.
    """
    unknown = [item.case.id for item in subject.reconstructions if item.case.id not in reference.truth]
    if unknown:
        raise DataError(f"paired: nobody knows the truth of {', '.join(unknown[:3])} ({len(unknown)} cases)")
    images, truth, hidden = [], [], []
    for item in subject.reconstructions:
        original = reference.truth[item.case.id].sample.cpu().float()
        fit = reference.modality.adapter(InputSpec(shape=tuple(original.shape[1:])))
        images.append(fit(item.samples.cpu().float()))
        truth.append(original.expand_as(images[-1]))
        hidden.append(_hidden(item.case.evidence, original).expand(len(item.samples), -1, -1, -1))
    found, original = torch.cat(images), torch.cat(truth)
    spoiled = int((~found.isfinite()).flatten(1).any(dim=1).sum())
    return Pairs(readable(found, original), original, torch.cat(hidden), spoiled)


def _lpips(net: Perceptual, pairs: Pairs) -> Figure:
    small = f"images of less than {net.smallest} pixels a side have no LPIPS"
    notes = (net.note, *pairs.notes, *((small,) if min(pairs.truth.shape[-2:]) < net.smallest else ()))
    return Figure("lpips", net.distances(pairs.images, pairs.truth), "LPIPS", "down", notes)


def _hidden(evidence: object, original: Tensor) -> Tensor:
    """Return the mask (1, 1, H, W) of a case; zeros where its evidence is no masked image of this size."""
    if isinstance(evidence, MaskedImage) and evidence.mask.shape[-2:] == original.shape[-2:]:
        return evidence.mask.cpu()[None]
    return torch.zeros_like(original[:, :1])


def _batches(pairs: Pairs, size: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    parts = (pairs.images, pairs.truth, pairs.hidden)
    return list(zip(*(part.split(size) for part in parts), strict=True))
