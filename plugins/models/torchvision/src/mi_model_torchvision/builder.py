"""Torchvision's classifiers by name, untrained or with weights from a local file or cache."""

from __future__ import annotations

import difflib

from torch import nn

from micore.errors import ModelError
from micore.inputs import InputSpec


def build(n_classes: int, input_spec: InputSpec, *, name: str = "resnet18", weights: str | None = None) -> nn.Module:
    """Build a torchvision classifier for ``n_classes``.

    ``weights`` names torchvision's pretrained weights (such as ``DEFAULT``), which must be in torch's
    cache; then the classification layer is replaced.

    Raises: ModelError for an unknown name, weights that cannot be had, or an input that does not fit.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        close = ", ".join(difflib.get_close_matches(name, known)) or "see torchvision.models.list_models()"
        raise ModelError(f"torchvision has no classifier {name!r}", hint=close)
    if input_spec.shape[0] != 3:
        raise ModelError(f"torchvision models take 3 channels, not {input_spec.shape[0]}", hint="-D channels=3")
    module = _make(name, n_classes, weights)
    if hasattr(module, "aux_logits"):
        module.aux_logits = False  # one output, so that every model answers alike
        for head in ("AuxLogits", "aux1", "aux2"):
            if getattr(module, head, None) is not None:
                setattr(module, head, None)
    return module


def _make(name: str, n_classes: int, weights: str | None) -> nn.Module:
    from torchvision import models

    options = {"init_weights": False} if name in ("inception_v3", "googlenet") else {}
    try:
        if weights is None:
            module: nn.Module = models.get_model(name, weights=None, num_classes=n_classes, **options)
            return module
        return replace_head(models.get_model(name, weights=weights), n_classes)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"torchvision model {name!r} cannot be built: {error}") from error


def replace_head(module: nn.Module, n_classes: int) -> nn.Module:
    """Replace the last linear layer by one for ``n_classes``."""
    path = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)][-1]
    old = module.get_submodule(path)
    parent, _, attribute = path.rpartition(".")
    setattr(module.get_submodule(parent), attribute, nn.Linear(old.in_features, n_classes))  # type: ignore[arg-type]
    return module
