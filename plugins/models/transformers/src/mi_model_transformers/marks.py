"""What a checkpoint's tokenizer says of the input: how long it may be, and which tokens mark its parts."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import Tokenizer

from micore.errors import ModelError
from micore.inputs import InputSpec

MAX_TOKENS = 128
"""Tokens of a text at most, where nothing else is said."""


def marked_input(tokenizer: Any, config: Any, max_tokens: int | None = None) -> InputSpec:
    """Describe the input of a network that reads a text whole, with the marks that its tokenizer puts around it.

    Options: tokenizer (JSON text), pad_id, and closing_id, mask_id and mask_token where there are such.
    Raises: ModelError when there is no token for padding, or for more tokens than the network takes.
    """
    inside, longest = plain(tokenizer), longest_of(tokenizer, config)
    wanted = min(MAX_TOKENS, longest) if max_tokens is None else max_tokens
    if not 3 <= wanted <= longest:
        raise ModelError(f"the model takes texts of 3 to {longest} tokens, not {wanted}", hint="max_tokens=...")
    found = {
        "tokenizer": inside.to_str(), "pad_id": pad_id_of(tokenizer), "closing_id": _closing(inside),
        "mask_id": tokenizer.mask_token_id, "mask_token": tokenizer.mask_token,
    }  # fmt: skip
    return InputSpec(shape=(wanted,), options={name: value for name, value in found.items() if value is not None})


def bare_input(tokenizer: Any, config: Any, max_tokens: int | None = None) -> InputSpec:
    """Describe the input of a language model: a text's tokens only; the model puts the mark of the beginning itself.

    Without ``max_tokens`` it is at most half of what the network takes, so that there is room to go on.
    Raises: ModelError when there is no token for padding, or no room is left.
    """
    inside, longest = plain(tokenizer), longest_of(tokenizer, config)
    wanted = min(MAX_TOKENS, longest // 2) if max_tokens is None else max_tokens
    if not 1 <= wanted <= longest - 2:
        raise ModelError(f"the model takes texts of 1 to {longest - 2} tokens, not {wanted}", hint="max_tokens=...")
    if inside.encode("").ids:
        inside = Tokenizer.from_str(json.dumps({**json.loads(inside.to_str()), "post_processor": None}))
    return InputSpec(shape=(wanted,), options={"tokenizer": inside.to_str(), "pad_id": pad_id_of(tokenizer)})


def longest_of(tokenizer: Any, config: Any) -> int:
    """Return how many tokens a network takes, all marks included."""
    positions = getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length
    return int(min(tokenizer.model_max_length, positions))


def pad_id_of(tokenizer: Any) -> int:
    """Return the token that fills rows up: where there is none, the end of a text, which can do no harm at the end.

    Raises: ModelError when there is neither.
    """
    found = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    if found is None:
        raise ModelError("the tokenizer has no token for padding", hint="set its pad_token, and save it again")
    return int(found)


def end_ids_of(tokenizer: Any, generation: Any) -> list[int]:
    """Return the tokens that end a text, the tokenizer's own first.

    Raises: ModelError when there is none.
    """
    named = getattr(generation, "eos_token_id", None)
    others = named if isinstance(named, list) else [named]
    found = [int(token) for token in (tokenizer.eos_token_id, *others) if token is not None]
    if not found:
        raise ModelError(
            "the tokenizer has no token for the end of a text", hint="set its eos_token, and save it again"
        )
    return list(dict.fromkeys(found))


def plain(tokenizer: Any) -> Tokenizer:
    """Return a copy of the tokenizer inside that neither pads nor cuts."""
    copy = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    copy.no_padding()
    copy.no_truncation()
    return copy


def _closing(tokenizer: Tokenizer) -> int | None:
    """Return the mark that the tokenizer puts at the end of every text."""
    empty, other = tokenizer.encode("").ids, tokenizer.encode("a").ids
    return int(empty[-1]) if empty and empty[-1] == other[-1] else None
