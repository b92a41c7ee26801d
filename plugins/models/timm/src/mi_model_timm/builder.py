"""timm's classifiers by name, untrained or pretrained from a local cache."""

from __future__ import annotations

import difflib
from typing import Any

import torch
from torch import nn

from micore.errors import ModelError
from micore.inputs import InputSpec


def build(
    n_classes: int, input_spec: InputSpec, *, name: str = "resnet18", pretrained: bool = False, **arguments: Any
) -> nn.Module:
    """Build a timm classifier for ``n_classes``; further arguments go to ``timm.create_model``.

    ``name`` may have a tag that chooses among pretrained weights (``vit_tiny_patch16_224.augreg_in21k``).
    ``pretrained`` takes timm's weights, which must be in the local hub cache. Transformers are built for
    the data's picture size.

    Raises: ModelError for an unknown name, weights that cannot be had, or input or arguments that do not fit.
    """
    import timm

    if not timm.is_model(name):
        close = ", ".join(difflib.get_close_matches(name, timm.list_models())) or "see timm.list_models()"
        raise ModelError(f"timm has no classifier {name!r}", hint=close)
    shape = input_spec.shape
    if n_classes < 1 or len(shape) != 3 or min(shape) < 1:
        raise ModelError(f"no classifier has {n_classes} classes and inputs of shape {shape}")
    options: dict[str, Any] = {"num_classes": n_classes, "in_chans": shape[0], "pretrained": pretrained, **arguments}
    try:
        module = _create(name, options, shape[1:])
    except (OSError, ValueError, RuntimeError, TypeError, AssertionError) as error:
        raise ModelError(f"timm model {name!r} cannot be built: {error}") from error
    _try_out(module, name, shape)
    return module


def _create(name: str, options: dict[str, Any], size: tuple[int, ...]) -> nn.Module:
    """Create the model for this picture size where its kind needs to know it."""
    import timm

    try:
        module: nn.Module = timm.create_model(name, **{"img_size": size, **options})
    except TypeError:  # convolutional networks take no img_size
        module = timm.create_model(name, **options)
    return module


def _try_out(module: nn.Module, name: str, shape: tuple[int, ...]) -> None:
    """Ask the network once: timm says nowhere which picture sizes an architecture takes."""
    training = module.training
    try:
        with torch.no_grad():
            module.eval()(torch.zeros(1, *shape))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ModelError(f"timm model {name!r} takes no inputs of shape {shape}: {error}") from error
    finally:
        module.train(training)
