"""How the model is asked, and what must be right before anything is sent."""

from __future__ import annotations

import ipaddress
import os
import re
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field

from micore.contracts import Config
from micore.errors import ConfigError

SAME = "Do A and B show the same individual or, where no individuals are shown, the same kind of object?"
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


class VlmJudgeConfig(Config):
    """Settings of the evaluator."""

    url: str | None = Field(
        None, description="address of an OpenAI-compatible interface, such as http://localhost:8000/v1"
    )
    model: str | None = Field(None, description="name of the model there; it must take images")
    send_private: bool = Field(
        False, description="say that private images may be sent to url; nothing is sent without it"
    )
    key_env: str | None = Field(
        None, description="NAME of the environment variable that holds the key, never the key; none: no key is sent"
    )
    question: str = Field(SAME, min_length=1, description="what is asked; the answer is to be yes or no")
    references: int = Field(4, ge=1, le=8, description="private images of the class beside each reconstruction")
    limit: int = Field(10, ge=1, description="samples of each class that are judged, drawn from each subject's")
    timeout: float = Field(60.0, gt=0, description="seconds that an answer may take")
    retries: int = Field(5, ge=0, description="times that a request is sent again before the evaluation stops")
    workers: int = Field(4, ge=1, le=64, description="requests under way at a time")
    max_tokens: int | None = Field(16, ge=1, description="tokens of an answer; none: the server's own limit")
    fields: dict[str, Any] = Field({}, description="further fields of each request as JSON; null takes one away")
    cache: bool = Field(True, description="keep verdicts (by a hash, without pictures), and ask nothing twice")
    resamples: int = Field(2000, ge=1, description="bootstrap resamples behind each interval")


def check(config: VlmJudgeConfig) -> None:
    """Refuse what cannot be asked, and what would give images or a key away.

    Raises: ConfigError.
    """
    if not config.url or not config.model:
        raise ConfigError("vlm-judge asks a model of yours", hint="-e vlm-judge:url=http://HOST/v1,model=NAME,...")
    address = urlsplit(config.url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ConfigError("vlm-judge: url is no address", hint="http://HOST:PORT/v1")
    if address.username or address.password or address.query:
        raise ConfigError("vlm-judge: url has credentials or a query, which a run would store", hint="use key_env=NAME")
    if not config.send_private:
        raise ConfigError(
            f"vlm-judge sends private images of your data set to {address.hostname}; you did not allow that",
            hint="send_private=true, if whoever runs that server may see them",
        )
    _check_key(config.key_env, address.scheme, address.hostname)


def key_of(config: VlmJudgeConfig) -> str | None:
    """Return the key from the environment; None where none is asked for."""
    return os.environ.get(config.key_env) if config.key_env else None


def _check_key(name: str | None, scheme: str, host: str) -> None:
    if name is None:
        return
    if not VARIABLE.fullmatch(name):  # it may be the key itself: it is not repeated
        raise ConfigError(
            "vlm-judge: key_env is no name of a variable (capitals, digits, _)",
            hint="export MY_KEY=..., then key_env=MY_KEY",
        )
    if not os.environ.get(name):
        raise ConfigError(f"vlm-judge: the environment has no {name}", hint=f"export {name}=...")
    if scheme == "http" and not _is_local(host):
        raise ConfigError(f"vlm-judge: the key would be sent to {host} unencrypted", hint="use https")


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
