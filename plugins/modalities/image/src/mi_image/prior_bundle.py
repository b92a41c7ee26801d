"""Priors as bundles: one ``.safetensors`` file with weights and a card of role ``prior``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mi_image.stylegan2 import StyleGan2Generator
from micore.artifacts import Bundle, Card, PluginUse
from micore.errors import ModelError
from micore.inputs import InputSpec
from micore.versions import versions

__all__ = ["ROLE", "STYLEGAN2", "load_prior", "stylegan2", "stylegan_bundle", "stylegan_of"]

ROLE = "prior"
STYLEGAN2 = "stylegan2"

_FROM_CARD = ("size", "channels", "n_classes")
"""Arguments of the generator that the card says elsewhere."""


def stylegan2(n_classes: int, input_spec: InputSpec, **arguments: Any) -> nn.Module:
    """Build a StyleGAN2 generator of such pictures; n_classes 0 for an unconditional one.

    Raises: ModelError when size or arguments do not fit.
    """
    shape = input_spec.shape
    if len(shape) != 3 or shape[0] not in (1, 3) or shape[1] != shape[2]:
        raise ModelError(f"stylegan2 makes square images of 1 or 3 channels, not of shape {shape}")
    try:
        return StyleGan2Generator(channels=shape[0], size=shape[1], n_classes=n_classes, **arguments)
    except (TypeError, ValueError) as error:
        raise ModelError(f"stylegan2 cannot be built: {error}", hint="see `mi show` for this model") from error


def stylegan_bundle(
    state: Mapping[str, Any], *, data: Mapping[str, Any], training: Mapping[str, Any], seed: int = 0
) -> Bundle:
    """Turn what `train_stylegan` or a conversion gives into a bundle.

    data: what the card says of the training images, {} where nothing is known. training: how it came about.
    """
    arguments = dict(state["arguments"])
    size, channels, n_classes = (int(arguments.pop(name, 0)) for name in _FROM_CARD)
    card = Card(
        role=ROLE,
        modality="image",
        model=PluginUse(name=STYLEGAN2, config=arguments),
        input=InputSpec(shape=(channels, size, size)),
        classes=tuple(str(label) for label in range(n_classes)),
        data=data,
        training=training,
        seed=seed,
        versions=versions(),
    )
    weights: Mapping[str, Tensor] = state["weights"]
    return Bundle(card=card, weights={name: tensor.detach().cpu() for name, tensor in weights.items()})


def stylegan_of(bundle: Bundle) -> dict[str, Any]:
    """Return a StyleGAN bundle as the state that `restore_stylegan` takes.

    Raises: ModelError when it is another kind of prior.
    """
    card = bundle.card
    if card.model.name != STYLEGAN2:
        raise ModelError(f"{bundle.source} is a prior of kind {card.model.name!r}, not {STYLEGAN2!r}")
    channels, size, _ = card.input.shape
    arguments = {**card.model.config, "size": size, "channels": channels, "n_classes": len(card.classes)}
    return {"arguments": arguments, "weights": dict(bundle.weights)}


def load_prior(path: Path) -> Bundle:
    """Read a prior's bundle.

    Raises: ModelError when the file is missing or damaged, is a pickle, or holds something else than a prior.
    """
    try:
        bundle = Bundle.load(path)
    except ModelError as error:
        raise ModelError(
            error.message, hint="`mi prior convert` turns the weights of a StyleGAN2 into a prior"
        ) from error
    if bundle.card.role != ROLE:
        raise ModelError(f"{path} is a {bundle.card.role}, not a prior", hint="`mi prior train` makes one")
    if bundle.card.modality != "image" or len(bundle.card.input.shape) != 3:
        raise ModelError(f"{path} is a prior of modality {bundle.card.modality!r}, not of images")
    return bundle
