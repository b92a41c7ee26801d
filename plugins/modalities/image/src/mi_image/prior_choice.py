"""The StyleGAN that an attack searches: a file of the user's, or one that is trained on the public images.

A file stands in a config by its path, as the user gives it, and by its hash, which decides what was prepared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor

from mi_image.prior_bundle import load_prior, stylegan_of
from mi_image.stylegan2_training import StyleGanSettings, require_trainable, train_stylegan
from micore.contracts import Config
from micore.errors import ConfigError, DataError, ModelError
from micore.files import file_digest
from micore.kit.stages import shared, tensor_digest
from micore.runtime import Runtime

__all__ = ["PriorFileConfig", "stylegan_state"]


class PriorFileConfig(Config):
    """The fields of a prior's file; a run that goes on refuses another file in its place."""

    prior: str | None = Field(
        None, description="file of a StyleGAN2 prior (`mi prior`); none: train one on the public images"
    )
    prior_digest: str | None = Field(
        None, validate_default=True, description="hash of that file; filled in, and compared when a run goes on"
    )

    @field_validator("prior")
    @classmethod
    def _whole_path(cls, prior: str | None) -> str | None:
        """Make the path absolute, so that a run can go on from any directory."""
        return None if prior is None else str(Path(prior).absolute())

    @field_validator("prior_digest")
    @classmethod
    def _same_file(cls, known: str | None, info: ValidationInfo) -> str | None:
        """Fill in the hash, or compare it with the one that is given (by a manifest)."""
        prior: str | None = info.data.get("prior")
        if prior is None:
            return None
        if not Path(prior).is_file():
            if known is not None:
                return known  # a run whose preparation is kept does not need the file again
            raise ConfigError(f"the prior {prior} is no file", hint="`mi prior train` or `mi prior convert` makes one")
        found = file_digest(Path(prior))
        if known is not None and known != found:
            raise ConfigError(f"the prior {prior} is not the file that it was", hint="start a new run, or put it back")
        return found


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
