"""Tokenizers: made for a data set, stored in the input spec of its models, read again from there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import lru_cache

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from micore.errors import ModelError
from micore.inputs import InputSpec

PAD, BEGIN, END, MASK, UNKNOWN = "<pad>", "<s>", "</s>", "<mask>", "<unk>"
SPECIALS = (PAD, BEGIN, END, MASK, UNKNOWN)
PAD_ID, BEGIN_ID, END_ID, MASK_ID, UNKNOWN_ID = range(len(SPECIALS))
"""Ids of the special tokens in every tokenizer that is made here."""

TOKENIZER = "tokenizer"
"""The option of an `InputSpec` that holds a tokenizer as JSON text."""


def train_tokenizer(texts: Iterable[str], vocabulary: int = 2048) -> str:
    """Make a byte-level BPE tokenizer of so many tokens, as JSON text; equal texts make equal tokenizers.

    Every text can be encoded and comes back unchanged, as bytes are tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(SPECIALS), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(list(texts), trainer)
    return str(tokenizer.to_str())


def narrowed(tokenizer: str, texts: Iterable[str]) -> str | None:
    """Return a tokenizer of word pieces with no other tokens than texts consist of, as JSON text.

    Its special tokens are those from here. It cuts these texts as the whole one does, without what the whole one puts
    around them. None for a tokenizer of another kind, whose tokens cannot be taken out one by one.
    """
    whole = json.loads(tokenizer)
    if whole["model"].get("type") != "WordPiece":
        return None
    encodings = Tokenizer.from_str(tokenizer).encode_batch(sorted(set(texts)), add_special_tokens=False)
    tokens = sorted({token for item in encodings for token in item.tokens} - {whole["model"]["unk_token"]})
    vocabulary = {token: place for place, token in enumerate((*SPECIALS, *tokens))}
    model = {**whole["model"], "unk_token": UNKNOWN, "vocab": vocabulary}
    found = Tokenizer.from_str(json.dumps({**whole, "model": model, "added_tokens": [], "post_processor": None}))
    found.add_special_tokens(list(SPECIALS))
    return str(found.to_str())


def text_input(tokenizer: str, max_tokens: int) -> InputSpec:
    """Describe the input of a model: up to ``max_tokens`` tokens of a tokenizer that `train_tokenizer` made."""
    return InputSpec(shape=(max_tokens,), options={TOKENIZER: tokenizer})


@lru_cache(maxsize=16)
def _read(text: str) -> Tokenizer:
    try:
        known = {"model", "added_tokens"} <= json.loads(text).keys()
    except (AttributeError, ValueError) as error:
        raise ModelError(f"the input spec's tokenizer is no JSON object: {error}") from error
    if not known:
        raise ModelError("the input spec's tokenizer has no model: it is no tokenizer of `tokenizers`")
    return Tokenizer.from_str(text)


def tokenizer_of(spec: InputSpec) -> Tokenizer:
    """Return the tokenizer of an input spec.

    Raises: ModelError when it has none, or one that cannot be read.
    """
    text = spec.options.get(TOKENIZER)
    if not isinstance(text, str):
        raise ModelError("the input spec has no tokenizer: this is no model of texts")
    return _read(text)


def decode(tokenizer: Tokenizer, ids: Sequence[Sequence[int]]) -> list[str]:
    """Return the texts of rows of token ids, without special tokens and the spaces around."""
    return [text.strip() for text in tokenizer.decode_batch([list(row) for row in ids], skip_special_tokens=True)]
