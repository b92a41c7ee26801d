"""What an adversary sees of an image for goal ``instance``: a part of it, or a blurred copy.

A corruption is a pure function of images and random numbers, so attacks can corrupt public images in the same
way as the evidence that they hold. Every row has its own numbers and depends on no other row.

Source: Yuan et al. (SecretGen, ECCV 2022) hide the centre box from .25 to .75 of the side, or a part of the face.
Here hidden pixels are grey (0.5), not the mean pixel of a data set: `fill` changes that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import AfterValidator
from torch import Tensor

from micore.contracts import Case
from micore.errors import UsageError
from micore.runtime import Random, derive_seed

FILL = 0.5
"""The grey of hidden pixels."""

_CELLS = 4
"""Scattered patches are cells of a grid of this many by as many; half of them are hidden."""

BLUR = 0.125
"""Standard deviation of the blur as part of the side."""

Hide = Callable[[Tensor, int, int], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskedImage:
    """What the adversary holds of one image, on the CPU.

    kind: name of the corruption. image (C, H, W) in [0, 1]: the corrupted image. mask (1, H, W): 1 where a pixel
    is hidden, 0 where it is the true one.
    """

    kind: str
    image: Tensor
    mask: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Corruption:
    """One way to hide parts of images.

    hide: from numbers (B, n_numbers), height and width to masks (B, 1, H, W), 1 = hidden.
    soften: what hidden pixels still show of images (B, C, H, W); None: nothing, they are grey.
    """

    kind: str
    summary: str
    hide: Hide
    n_numbers: int = 0
    soften: Callable[[Tensor], Tensor] | None = None

    def draw(self, rng: Random, n: int) -> Tensor:
        """Draw the random numbers of n images: (n, n_numbers) in [0, 1)."""
        return rng.uniform((n, self.n_numbers))

    def apply(self, images: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Return the corrupted images (B, C, H, W) and their masks (B, 1, H, W), by numbers (B, n_numbers)."""
        masks = self.hide(numbers, *images.shape[-2:]).to(images)
        shown = torch.full_like(images, FILL) if self.soften is None else self.soften(images)
        return torch.where(masks > 0, shown, images), masks


# the kinds -----------------------------------------------------------------------------------------------------


def _centre(numbers: Tensor, height: int, width: int) -> Tensor:
    """Hide the box from .25 to .75 of the side."""
    rows, columns = _places(height, numbers), _places(width, numbers)
    inside = ((rows - 0.5).abs() < 0.25)[:, None] & ((columns - 0.5).abs() < 0.25)[None, :]
    return inside.expand(len(numbers), 1, height, width)


def _bottom(numbers: Tensor, height: int, width: int) -> Tensor:
    """Hide the lower half."""
    lower = (_places(height, numbers) > 0.5)[:, None]
    return lower.expand(len(numbers), 1, height, width)


def _scattered(numbers: Tensor, height: int, width: int) -> Tensor:
    """Hide the half of the grid's cells that have the smallest numbers."""
    ranks = numbers.argsort(dim=1, stable=True).argsort(dim=1, stable=True)
    cells = (ranks < _CELLS**2 // 2).view(-1, 1, _CELLS, _CELLS)
    rows, columns = ((_places(side, numbers) * _CELLS).long() for side in (height, width))
    return cells[:, :, rows][..., columns]


def _everything(numbers: Tensor, height: int, width: int) -> Tensor:
    return torch.ones((len(numbers), 1, height, width), dtype=torch.bool, device=numbers.device)


def _places(side: int, like: Tensor) -> Tensor:
    """Return the centres of pixels along a side, (side,) in (0, 1)."""
    return (torch.arange(side, device=like.device) + 0.5) / side


def blur(images: Tensor) -> Tensor:
    """Blur images (B, C, H, W) by a Gaussian of `BLUR` of the side; weights of pixels at the border add up to 1."""
    height, width = (_gaussian(side, images) for side in images.shape[-2:])
    return (height @ images @ width.T).clamp(0, 1)


def _gaussian(side: int, like: Tensor) -> Tensor:
    places = _places(side, like)
    weights = torch.exp(-((places[:, None] - places[None, :]) ** 2) / (2 * BLUR**2))
    return (weights / weights.sum(dim=1, keepdim=True)).to(like)


_ALL = (
    Corruption(kind="centre", summary="the centre box (.25 to .75 of the side) is hidden", hide=_centre),
    Corruption(kind="bottom", summary="the lower half is hidden", hide=_bottom),
    Corruption(kind="scattered", summary="8 of 16 square patches are hidden", hide=_scattered, n_numbers=_CELLS**2),
    Corruption(kind="blur", summary="the whole image is strongly blurred", hide=_everything, soften=blur),
)
CORRUPTIONS: Mapping[str, Corruption] = {corruption.kind: corruption for corruption in _ALL}
KINDS = tuple(CORRUPTIONS)
"""The names of the corruptions; the first is the default."""


def known_kind(kind: str) -> str:
    """Return the kind. Raises: ValueError for an unknown one."""
    if kind not in CORRUPTIONS:
        raise ValueError(f"{kind!r} is no kind of evidence; there are {', '.join(KINDS)}")
    return kind


EvidenceKind = Annotated[str, AfterValidator(known_kind)]
"""The type of the config field ``evidence`` of an attack that prepares for one kind."""


def find_corruption(kind: str | None) -> Corruption:
    """Return a corruption by name; the default one for None.

    Raises: UsageError.
    """
    try:
        return CORRUPTIONS[known_kind(KINDS[0] if kind is None else kind)]
    except ValueError as error:
        raise UsageError(str(error), hint="--evidence " + "|".join(KINDS)) from error


# evidence of cases ---------------------------------------------------------------------------------------------


def corrupt_case(image: Tensor, kind: str | None, case_id: str) -> MaskedImage:
    """Corrupt one image (C, H, W) on the CPU; the case's id alone decides the random numbers.

    Raises: UsageError for an unknown kind.
    """
    corruption = find_corruption(kind)
    numbers = corruption.draw(Random(derive_seed("corruption", corruption.kind, case_id)), 1)
    corrupted, masks = corruption.apply(image[None], numbers)
    return MaskedImage(kind=corruption.kind, image=corrupted[0], mask=masks[0])


def stack_evidence(cases: Sequence[Case], kind: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the corrupted images (B, C, H, W) of cases and their masks (B, 1, H, W), on the device.

    Raises: UsageError when a case holds none, or one of another kind than the attack prepared for.
    """
    held = [case.evidence for case in cases if isinstance(case.evidence, MaskedImage)]
    if len(held) < len(cases):
        raise UsageError("this attack needs masked images as evidence", hint="it recovers instances, not classes")
    others = sorted({item.kind for item in held} - {kind})
    if others:
        raise UsageError(f"the attack prepared for evidence {kind!r}; the cases hold {', '.join(others)}")
    return torch.stack([item.image for item in held]).to(device), torch.stack([item.mask for item in held]).to(device)


def paste(completions: Tensor, images: Tensor, masks: Tensor) -> Tensor:
    """Return completions (B, C, H, W) where masks (B, 1, H, W) are 1, the evidence elsewhere; differentiable."""
    return torch.where(masks > 0, completions, images)


def fill(images: Tensor, masks: Tensor, value: Tensor | float) -> Tensor:
    """Paint the hidden pixels of images (B, C, H, W) with a grey, or with a colour (C,)."""
    colour = torch.as_tensor(value, dtype=images.dtype, device=images.device).view(1, -1, 1, 1)
    return torch.where(masks > 0, colour, images)


def squared_distances(public: Tensor, evidence: Sequence[MaskedImage], corruption: Corruption) -> Tensor:
    """Return how far public images (P, C, H, W) are from pieces of evidence of one kind: (P, len(evidence)), float64.

    Visible pixels are compared with the public image, hidden ones, where they still show something, with the
    softened public image. The sum over pixels is not divided.
    """
    images = torch.stack([item.image for item in evidence]).double()
    hidden = torch.stack([item.mask for item in evidence]).double().expand_as(images)
    total = _weighted(public.double(), images, 1 - hidden)
    return total if corruption.soften is None else total + _weighted(corruption.soften(public).double(), images, hidden)


def _weighted(public: Tensor, images: Tensor, weights: Tensor) -> Tensor:
    """Return sum over pixels of weight * (public - image)^2 for all pairs, (P, E)."""
    public, images, weights = public.flatten(1), images.flatten(1), weights.flatten(1)
    crossed = public @ (weights * images).T
    own = (weights * images.square()).sum(dim=1)
    return (public.square() @ weights.T - 2 * crossed + own).clamp_min(0)
