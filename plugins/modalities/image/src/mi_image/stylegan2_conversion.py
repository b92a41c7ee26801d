"""Converting StyleGAN2 networks of the official layout to priors.

The names of parameters and buffers stay as they are (`mi_image.stylegan2`); what a network was built with is read
off the shapes, and off the plain attributes where the file is a pickle of the release.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mi_image.stylegan2_pickle import Layer, read_generator
from micore.errors import ModelError
from micore.importing import read_weights

__all__ = ["convert", "convert_pickle", "convert_weights", "infer_arguments"]

RELEASED_CLAMP = 256.0
"""``conv_clamp`` of networks that the PyTorch release trained, for state dicts, which do not say it."""

_LAYOUTS = {
    "synthesis.input.": "StyleGAN3",
    "style.": "another implementation of StyleGAN2 (names like `style.1.weight`)",
    "g_mapping.": "StyleGAN 1",
}
"""Other layouts that a name gives away."""

_BUILT_AS = (
    (r"synthesis\.b\d+", "architecture", "skip"),
    (r"synthesis\.b\d+\.conv[01]", "activation", "lrelu"),
    (r"mapping\.fc\d+", "activation", "lrelu"),
    (r"mapping\.fc\d+", "bias_gain", 0.01),
)
"""Layers by name, their plain attributes, and the only value that this implementation has."""


def convert(path: Path, conv_clamp: float | None = RELEASED_CLAMP) -> dict[str, Any]:
    """Read an official pickle, or a state dict of the official layout, as a prior's state.

    conv_clamp: of a state dict; a pickle says it itself.

    Raises: ModelError when the file cannot be read without running code, or holds another kind of network.
    """
    if path.suffix.lower() in (".pkl", ".pickle") and not _is_archive(path):
        return convert_pickle(read_generator(path), str(path))
    try:
        weights = read_weights(path)
    except ModelError as error:
        raise ModelError(error.message, hint="a state dict holds names and tensors only") from error
    return convert_weights(weights, str(path), conv_clamp)


def _is_archive(path: Path) -> bool:
    """Say whether torch.save wrote the file, as a zip archive."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(2) == b"PK"


def convert_pickle(generator: Layer, origin: str) -> dict[str, Any]:
    """Convert a generator of an official pickle; what this implementation does not have is refused.

    Raises: ModelError for another architecture.
    """
    state = convert_weights(generator.tensors(), origin, None)
    layers = dict(generator.layers())
    for name, layer in layers.items():
        for pattern, attribute, value in _BUILT_AS:
            found = layer.state.get(attribute, value)
            if found != value and re.fullmatch(pattern, name):
                raise ModelError(f"{origin}: {name} has {attribute}={found!r}; only {value!r} is supported")
    clamps = {layer.state["conv_clamp"] for layer in layers.values() if "conv_clamp" in layer.state}
    if len(clamps) > 1:
        raise ModelError(f"{origin} clamps its layers differently: conv_clamp is {sorted(map(str, clamps))}")
    clamp = next(iter(clamps), None)
    return {**state, "arguments": {**state["arguments"], "conv_clamp": None if clamp is None else float(clamp)}}


def convert_weights(weights: Mapping[str, Tensor], origin: str, conv_clamp: float | None) -> dict[str, Any]:
    """Convert a state dict of the official layout, with or without the prefix ``G_ema.``.

    Networks without noise get noise of strength 0. The result is copied and float32.

    Raises: ModelError, naming ``origin``, for another layout or shapes that do not belong together.
    """
    named = {name.removeprefix("G_ema."): tensor.detach().float().clone() for name, tensor in weights.items()}
    arguments = {**infer_arguments(named, origin), "conv_clamp": conv_clamp}
    return {"arguments": arguments, "weights": {**_silent_noise(named), **named}}


def infer_arguments(weights: Mapping[str, Tensor], origin: str) -> dict[str, Any]:
    """Read the arguments of `StyleGan2Generator`, save conv_clamp, off the shapes of its weights.

    Raises: ModelError when a layer is missing or its shape fits no such network.
    """
    _require_layout(weights, origin)
    sizes = sorted(
        int(match[1]) for name in weights if (match := re.fullmatch(r"synthesis\.b(\d+)\.conv1\.weight", name))
    )
    if sizes != [2**i for i in range(2, len(sizes) + 2)] or len(sizes) < 2:
        raise ModelError(f"{origin}: blocks of {sizes} px; a StyleGAN2 has 4, 8, 16...")
    widths = [weights[f"synthesis.b{r}.conv1.weight"].shape[0] for r in sizes]
    embed = weights.get("mapping.embed.weight")
    n_classes = 0 if embed is None else embed.shape[1]
    w_dim, inputs = len(weights["mapping.w_avg"]), weights["mapping.fc0.weight"].shape[1]
    base, most = _channel_rule(sizes, widths, origin)
    return {
        "latent_dim": inputs - (w_dim if n_classes else 0),
        "size": sizes[-1],
        "channels": weights[f"synthesis.b{sizes[-1]}.torgb.weight"].shape[0],
        "w_dim": w_dim,
        "n_classes": n_classes,
        "n_mapping_layers": sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", name)) for name in weights),
        "channel_base": base,
        "channel_max": most,
    }


def _channel_rule(sizes: list[int], widths: list[int], origin: str) -> tuple[int, int]:
    """Return channel_base and channel_max with min(channel_base / r, channel_max) channels at r px."""
    most = max(widths)
    base = max(r * width for r, width in zip(sizes, widths, strict=True))
    if [min(base // r, most) for r in sizes] != widths:
        raise ModelError(f"{origin}: {widths} channels at {sizes} px follow no channel_base and channel_max")
    return base, most


def _require_layout(weights: Mapping[str, Tensor], origin: str) -> None:
    for prefix, layout in _LAYOUTS.items():
        if any(name.startswith(prefix) for name in weights):
            raise ModelError(
                f"{origin} is a network of {layout}", hint="only the official StyleGAN2-ADA layout converts"
            )
    needed = ("mapping.w_avg", "mapping.fc0.weight", "synthesis.b4.const")
    missing = [name for name in needed if name not in weights]
    if missing:
        raise ModelError(f"{origin} is no generator of the official StyleGAN2-ADA layout: {missing[0]} is missing")


def _silent_noise(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return noise of strength 0 for every layer, for those that have none."""
    found = {}
    for name in weights:
        if match := re.fullmatch(r"(synthesis\.b(\d+)\.conv[01])\.weight", name):
            found[f"{match[1]}.noise_strength"] = torch.zeros(())
            found[f"{match[1]}.noise_const"] = torch.zeros(int(match[2]), int(match[2]))
    return found
