"""timm's classifiers by name, untrained or pretrained from a local cache."""

from __future__ import annotations

import difflib

from torch import nn

from micore.errors import ModelError
from micore.inputs import InputSpec


def build(
    n_classes: int, input_spec: InputSpec, *, name: str = "resnet18", pretrained: bool = False, **arguments: object
) -> nn.Module:
    """Build a timm classifier for ``n_classes``; further arguments go to ``timm.create_model``.

    ``pretrained`` takes timm's weights, which must be in the local hub cache. Transformers are built for
    the data's picture size.

    Raises: ModelError for an unknown name, weights that cannot be had, or arguments that do not fit.
    """
    import timm

    if name not in timm.list_models():
        close = ", ".join(difflib.get_close_matches(name, timm.list_models())) or "see timm.list_models()"
        raise ModelError(f"timm has no classifier {name!r}", hint=close)
    channels, height, _ = input_spec.shape
    options = {"num_classes": n_classes, "in_chans": channels, "pretrained": pretrained, **arguments}
    try:
        return _create(name, options, height)
    except (OSError, ValueError, RuntimeError, TypeError, AssertionError) as error:
        raise ModelError(f"timm model {name!r} cannot be built: {error}") from error


def _create(name: str, options: dict[str, object], size: int) -> nn.Module:
    """Create the model for this picture size where its kind needs to know it."""
    import timm

    try:
        module: nn.Module = timm.create_model(name, img_size=size, **options)
    except TypeError:  # convolutional networks take no img_size
        module = timm.create_model(name, **options)
    return module
