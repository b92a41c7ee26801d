"""What the model specs name: build an untrained network for the texts that an `InputSpec` describes."""

from __future__ import annotations

from typing import Any

from mi_text.classifiers import ConvolutionalClassifier, TransformerClassifier
from mi_text.language_model import CausalLanguageModel
from mi_text.masked_model import MaskedLanguageModel
from mi_text.tokenizing import tokenizer_of
from mi_text.transformer import Size
from micore.errors import ModelError
from micore.inputs import InputSpec


def small_gpt(
    n_classes: int, input_spec: InputSpec, *, width: int = 256, layers: int = 4, heads: int = 4, dropout: float = 0.0
) -> CausalLanguageModel:
    """Build a causal language model.

    Raises: ModelError, as do all builders here, when input or arguments do not fit.
    """
    size = _size(input_spec, extra=2, width=width, layers=layers, heads=heads, dropout=dropout)
    return CausalLanguageModel(size)


def small_bert(
    n_classes: int, input_spec: InputSpec, *, width: int = 256, layers: int = 4, heads: int = 4, dropout: float = 0.1
) -> MaskedLanguageModel:
    """Build a masked language model."""
    return MaskedLanguageModel(_size(input_spec, width=width, layers=layers, heads=heads, dropout=dropout))


def text_transformer(
    n_classes: int, input_spec: InputSpec, *, width: int = 128, layers: int = 2, heads: int = 4, dropout: float = 0.1
) -> TransformerClassifier:
    """Build a classifier on a bidirectional transformer."""
    _require_classes(n_classes)
    size = _size(input_spec, width=width, layers=layers, heads=heads, dropout=dropout)
    return TransformerClassifier(n_classes, size)


def text_cnn(n_classes: int, input_spec: InputSpec, *, width: int = 128, filters: int = 64) -> ConvolutionalClassifier:
    """Build a classifier on convolutions."""
    _require_classes(n_classes)
    return ConvolutionalClassifier(n_classes, _size(input_spec).vocabulary, width=width, filters=filters)


def _size(input_spec: InputSpec, *, extra: int = 0, **arguments: Any) -> Size:
    """Return the size of a network for so many tokens, and some more for the marks of beginning and end."""
    if len(input_spec.shape) != 1 or input_spec.shape[0] < 1:
        raise ModelError(f"networks of texts take (tokens,), not inputs of shape {input_spec.shape}")
    vocabulary = tokenizer_of(input_spec).get_vocab_size()
    return Size(vocabulary=vocabulary, tokens=input_spec.shape[0] + extra, **arguments)


def _require_classes(n_classes: int) -> None:
    if n_classes < 1:
        raise ModelError(f"a classifier needs at least one class, not {n_classes}")
