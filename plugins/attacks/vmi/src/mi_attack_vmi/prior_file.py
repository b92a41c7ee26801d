"""A StyleGAN's file in a config: its path as the user gives it, and its hash, which decides what was prepared."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from micore.contracts import Config
from micore.errors import ConfigError
from micore.files import file_digest


class PriorFileConfig(Config):
    """The fields of the file; a run that goes on refuses another file in its place."""

    prior: str | None = Field(
        None,
        description="file of a StyleGAN2 prior (`mi prior`), for one flow per layer; none: a DCGAN of public images",
    )
    prior_digest: str | None = Field(
        None, validate_default=True, description="hash of that file; filled in, and compared when a run goes on"
    )

    @field_validator("prior")
    @classmethod
    def _whole_path(cls, prior: str | None) -> str | None:
        return None if prior is None else str(Path(prior).absolute())

    @field_validator("prior_digest")
    @classmethod
    def _same_file(cls, known: str | None, info: ValidationInfo) -> str | None:
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
