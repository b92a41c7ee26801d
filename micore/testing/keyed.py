"""A planted problem for goal ``instance``: what is hidden is bound to what is visible by the target alone.

Every sample has a key, a spot near a corner, and a content, a spot inside the centre box. In private samples of
a class the content belongs to the key; in public samples both are anywhere. So who holds a private sample with
the centre hidden sees the key, and learns the content only from a target that was trained on the pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from micore.runtime import Random
from micore.testing.toys import contrast, spots

N_KEYS = 4
KEY_WIDTH, CONTENT_WIDTH = 0.07, 0.08
FAINT = 0.15
FAINT_SHARE = 0.25
"""Share of the samples whose key is faint, and of those whose content is: so a target learns to use both."""

_KEYS = 0.5 + 0.38 * torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
_CONTENTS = 0.5 + 0.13 * torch.tensor([[1.0, -1.0], [-1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
"""Places of keys and contents by class; a content lies nowhere near its own key."""


def keyed(per_class: int, size: int, rng: Random) -> tuple[Tensor, Tensor]:
    """Return private samples of `N_KEYS` classes (N, 1, size, size) in [0, 1] and their labels (N,)."""
    labels = torch.arange(N_KEYS).repeat_interleave(per_class)
    lots = rng.uniform((len(labels), 1, 1, 1))
    keys = torch.where(lots < FAINT_SHARE, FAINT, 1.0)
    contents = torch.where(lots > 1 - FAINT_SHARE, FAINT, 1.0)
    return _draw(_KEYS[labels], _CONTENTS[labels], keys, contents, size, rng), labels


def unbound(n: int, size: int, rng: Random) -> Tensor:
    """Return public samples: a key at any corner, a content anywhere in the box."""
    corners = _KEYS[rng.integers(N_KEYS, (n,))]
    places = 0.33 + 0.34 * rng.uniform((n, 2))
    full = torch.ones(n, 1, 1, 1)
    return _draw(corners, places, full, full, size, rng)


def _draw(keys: Tensor, contents: Tensor, key_light: Tensor, content_light: Tensor, size: int, rng: Random) -> Tensor:
    inside = box(size)
    outer = spots(keys + 0.02 * rng.normal(keys.shape), size, KEY_WIDTH) * ~inside
    inner = spots(contents + 0.02 * rng.normal(contents.shape), size, CONTENT_WIDTH) * inside
    brightness = 0.7 + 0.3 * rng.uniform((len(keys), 1, 1, 1))
    noise = 0.05 * rng.normal(outer.shape)
    return (brightness * (key_light * outer + content_light * inner) + noise).clamp(0, 1)


def box(size: int) -> Tensor:
    """Return the centre box, from .25 to .75 of the side, (size, size), True inside."""
    near = ((torch.arange(size) + 0.5) / size - 0.5).abs() < 0.25
    return near[:, None] & near[None, :]


def content_contrast(samples: Tensor, label: int) -> Tensor:
    """Judge samples (n, C, size, size) by their centres: more like the class's content than the others', (n,)."""
    size = samples.shape[-1]
    inside = box(size)
    grids = samples.detach().cpu().double().mean(dim=1)[:, inside]
    templates = spots(_CONTENTS, size, CONTENT_WIDTH).double()[:, 0][:, inside]
    return contrast(grids, templates, label)
