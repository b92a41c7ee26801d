"""Torchvision's classifiers by name, untrained or with weights from a local file or cache."""

from __future__ import annotations

import difflib
from typing import Any

import torch
from torch import nn

from micore.errors import ModelError
from micore.inputs import InputSpec


def build(n_classes: int, input_spec: InputSpec, *, name: str = "resnet18", weights: str | None = None) -> nn.Module:
    """Build a torchvision classifier for ``n_classes``.

    ``weights`` names torchvision's pretrained weights (such as ``DEFAULT``), which must be in torch's
    cache; then the classification layer is replaced. Without them a ``vit_*`` is built for the data's
    picture size.

    Raises: ModelError for an unknown name, weights that cannot be had, or an input that does not fit.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        close = ", ".join(difflib.get_close_matches(name, known)) or "see torchvision.models.list_models()"
        raise ModelError(f"torchvision has no classifier {name!r}", hint=close)
    _check_sizes(n_classes, input_spec)
    module = _make(name, n_classes, weights, input_spec.shape[1])
    if hasattr(module, "aux_logits"):
        module.aux_logits = False  # one output, so that every model answers alike
        for head in ("AuxLogits", "aux1", "aux2"):
            if getattr(module, head, None) is not None:
                setattr(module, head, None)
    _try_out(module, name, input_spec.shape)
    return module


def _check_sizes(n_classes: int, input_spec: InputSpec) -> None:
    shape = input_spec.shape
    if n_classes < 1 or len(shape) != 3 or min(shape) < 1:
        raise ModelError(f"no classifier has {n_classes} classes and inputs of shape {shape}")
    if shape[0] != 3:
        raise ModelError(f"torchvision models take 3 channels, not {shape[0]}", hint="-D channels=3")


def _make(name: str, n_classes: int, weights: str | None, size: int) -> nn.Module:
    from torchvision import models

    options: dict[str, Any] = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
    try:
        if weights is not None:
            return replace_head(models.get_model(name, weights=weights), n_classes)
        if name.startswith("vit_"):
            options["image_size"] = size
        module: nn.Module = models.get_model(name, weights=None, num_classes=n_classes, **options)
    except KeyError as error:
        known = ", ".join(models.get_model_weights(name).__members__)
        raise ModelError(f"torchvision has no weights {weights!r} for {name!r}", hint=known) from error
    except (AssertionError, OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"torchvision model {name!r} cannot be built: {error}") from error
    return module


def replace_head(module: nn.Module, n_classes: int) -> nn.Module:
    """Replace the last linear layer by one for ``n_classes``.

    Raises: ModelError when there is none.
    """
    paths = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    if not paths:
        raise ModelError(f"{type(module).__name__} has no linear classification layer to replace")
    old = module.get_submodule(paths[-1])
    parent, _, attribute = paths[-1].rpartition(".")
    setattr(module.get_submodule(parent), attribute, nn.Linear(old.in_features, n_classes))  # type: ignore[arg-type]
    return module


def _try_out(module: nn.Module, name: str, shape: tuple[int, ...]) -> None:
    """Ask the network once: torchvision says nowhere which picture sizes an architecture takes."""
    training = module.training
    try:
        with torch.no_grad():
            module.eval()(torch.zeros(1, *shape))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ModelError(f"torchvision model {name!r} takes no inputs of shape {shape}: {error}") from error
    finally:
        module.train(training)
