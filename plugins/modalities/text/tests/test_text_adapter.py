"""From texts to ids and back."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mi_text.adapter import ROUNDED, TextAdapter, pad
from mi_text.tokenizing import PAD_ID, SPECIALS, decode, narrowed, text_input, tokenizer_of, train_tokenizer
from micore.errors import ModelError
from micore.inputs import InputSpec

TOKENIZER = train_tokenizer(["the cat eats bread", "the dog eats corn, 12 times"], 300)
SPEC = text_input(TOKENIZER, 24)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=8))
def test_every_text_comes_back(text):
    adapter = TextAdapter(text_input(TOKENIZER, 64))
    assert decode(tokenizer_of(adapter.spec), adapter.encode([text])) == [text]


def test_equal_texts_make_equal_tokenizers():
    texts = ["the cat eats bread", "the dog eats corn, 12 times"]
    assert train_tokenizer(texts, 300) == TOKENIZER
    assert train_tokenizer(["another text"], 300) != TOKENIZER


def test_special_tokens_have_their_ids_and_digits_stand_alone():
    tokenizer = tokenizer_of(SPEC)
    assert [tokenizer.token_to_id(token) for token in SPECIALS] == list(range(len(SPECIALS)))
    assert len(tokenizer.encode("2026").ids) == 4


def test_rows_are_padded_to_a_round_width_and_cut_at_the_longest():
    ids = TextAdapter(SPEC)(["the cat", "7 " * 40])
    assert ids.shape == (2, 24)
    assert ids.dtype == torch.int64
    assert (ids[0, 4:] == PAD_ID).all()
    assert (ids[1] != PAD_ID).all()
    assert TextAdapter(SPEC)(["the"]).shape[1] == ROUNDED


def test_the_closing_token_of_a_tokenizer_stays():
    spec = InputSpec(shape=(4,), options={**SPEC.options, "closing_id": 9})
    assert TextAdapter(spec)(["1 2 3 4 5 6"])[0, :4].tolist()[-1] == 9


def test_tensors_pass():
    relaxed = torch.rand(2, 5, 300)
    assert TextAdapter(SPEC)(relaxed) is relaxed


def test_a_model_somewhere_else_is_given_the_texts():
    assert TextAdapter(InputSpec(shape=(16,), options={"untokenized": True}))(["a", "b"]) == ["a", "b"]


def test_pad_rounds_up_and_keeps_a_given_width():
    assert pad([[1, 2, 3]]).shape == (1, ROUNDED)
    assert pad([[]]).shape == (1, ROUNDED)
    assert pad([[1]], width=5).tolist() == [[1, 0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (InputSpec(shape=(3, 4)), "takes \\(tokens,\\)"),
        (InputSpec(shape=(4,)), "no tokenizer"),
    ],
)
def test_specs_of_other_models_are_refused(spec, message):
    with pytest.raises(ModelError, match=message):
        TextAdapter(spec)


@pytest.mark.parametrize("text", ["{", "[]", "{}", "7"])
def test_a_damaged_tokenizer_is_refused(text):
    with pytest.raises(ModelError, match="tokenizer"):
        TextAdapter(text_input(text, 4))(["a"])


def word_pieces():
    """A tokenizer of word pieces that puts marks around texts, as encoders have it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "cat", "##s", "ca", "##t", "eat", "bread", "dog", ".", "@"]
    made = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(dict.fromkeys(pieces))}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made


def test_a_narrowed_tokenizer_cuts_its_texts_as_the_whole_one_does():
    whole, texts = word_pieces(), ["Cats eat bread.", "cats @ bread"]
    narrow = tokenizer_of(text_input(narrowed(whole.to_str(), texts), 8))
    for text in texts:
        assert narrow.encode(text).tokens == whole.encode(text, add_special_tokens=False).tokens
    assert [narrow.token_to_id(token) for token in SPECIALS] == list(range(len(SPECIALS)))
    assert narrow.get_vocab_size() == len(SPECIALS) + 6
    assert narrow.encode("dog").tokens == ["<unk>"]
    assert decode(narrow, [narrow.encode("cats eat bread.").ids]) == ["cats eat bread."]


def test_only_tokenizers_of_word_pieces_can_be_narrowed():
    assert narrowed(TOKENIZER, ["the cat"]) is None
