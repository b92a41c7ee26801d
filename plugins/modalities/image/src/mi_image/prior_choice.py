"""The StyleGAN that an attack searches: a file of the user's, or one that is trained on the public images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from mi_image.prior_bundle import load_prior, stylegan_of
from mi_image.stylegan2_training import StyleGanSettings, require_trainable, train_stylegan
from micore.errors import DataError, ModelError
from micore.kit.stages import shared, tensor_digest
from micore.runtime import Runtime

__all__ = ["stylegan_state"]


def stylegan_state(
    path: str | None, images: Tensor | None, settings: StyleGanSettings, runtime: Runtime, *, conditional: bool = True
) -> Mapping[str, Any]:
    """Return the state of a prior, for `restore_stylegan`.

    With a path, that of the file; ``images`` are then only compared with it. Without one, a generator is trained
    on the images: once for all attacks with equal settings and images (`micore.kit.stages.shared`), going on from
    the runtime's checkpoint.

    Args:
        path: a prior's bundle (`mi prior`).
        images: the public images (N, C, H, W) in [0, 1].
        settings: how a StyleGAN is trained.
        runtime: of the preparation, or of its stage.
        conditional: whether the attack can draw labels for a conditional prior.

    Raises: ModelError when the file is no StyleGAN prior or does not fit the images; DataError when there is
    neither a file nor images that one can be trained on.
    """
    if path is not None:
        return _loaded(Path(path), images, conditional)
    if images is None:
        raise DataError("there are no public images to train a StyleGAN on", hint="-p prior=FILE, see `mi prior`")
    require_trainable(images)
    identity = {"settings": asdict(settings), "images": tensor_digest(images)}

    def work(stage: Runtime) -> Mapping[str, Any]:
        return train_stylegan(images, settings, stage, stage.checkpoints.load())

    return shared("stylegan", identity, work, runtime)


def _loaded(path: Path, images: Tensor | None, conditional: bool) -> dict[str, Any]:
    """Read a bundle and compare it with the images, which look like what the target takes."""
    state = stylegan_of(load_prior(path))
    arguments = state["arguments"]
    if arguments["n_classes"] and not conditional:
        raise ModelError(
            f"{path} is conditional, on {arguments['n_classes']} classes",
            hint="this attack takes an unconditional prior",
        )
    if images is not None:
        _require_fit(path, arguments, images.shape[1], max(images.shape[2:]))
    return state


def _require_fit(path: Path, arguments: Mapping[str, Any], channels: int, size: int) -> None:
    if arguments["channels"] < channels:
        raise ModelError(
            f"{path} makes grey pictures, and the public images are in colour: it cannot show the target's classes",
            hint="use a prior in colour (one for grey images may be in colour, too)",
        )
    if arguments["size"] < size:
        raise ModelError(
            f"{path} makes pictures of {arguments['size']} px, and the public images have {size} px",
            hint=f"use a prior of {size} px or more, or data and target of {arguments['size']} px (-D size=...)",
        )
