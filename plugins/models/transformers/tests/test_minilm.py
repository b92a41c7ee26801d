"""all-MiniLM-L6-v2: its embeddings are the published ones, and it is trained, stored and read as other models are."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from mi_model_transformers.folders import wheel
from mi_model_transformers.loading import load
from mi_model_transformers.minilm import build
from mi_text.adapter import TextAdapter
from micore.answers import answer_of, is_classifier, is_trained
from micore.errors import ModelError
from micore.external import SourceRequest
from micore.inputs import InputSpec
from micore.runtime import Runtime

TEXTS = ["Hello world", "My phone is 555-1234 and I live in Paris, Texas.", "", "word " * 300, "Ünïcödé café: 東京"]
NOTHING = InputSpec(shape=(1,))


@pytest.fixture(scope="module")
def minilm():
    return build(0, NOTHING).eval()


@pytest.fixture(scope="module")
def embeddings(minilm):
    with torch.no_grad():
        return answer_of(minilm, TextAdapter(minilm.own_input)(TEXTS))


def test_embeddings_are_those_of_sentence_transformers(embeddings):
    library = pytest.importorskip("sentence_transformers")
    published = library.SentenceTransformer(str(wheel()), device="cpu", local_files_only=True)
    published.max_seq_length = 128
    expected = published.encode(TEXTS, convert_to_tensor=True, show_progress_bar=False)
    assert torch.allclose(embeddings, expected, atol=1e-5)
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(len(TEXTS)), atol=1e-6)


@torch.no_grad()
def test_padding_changes_nothing(minilm, embeddings):
    adapter = TextAdapter(minilm.own_input)
    alone = torch.cat([minilm(adapter([text])) for text in TEXTS[:3]])
    padded = torch.cat([minilm(functional.pad(adapter([text]), (0, 40))) for text in TEXTS[:3]])
    assert torch.allclose(alone, embeddings[:3], atol=1e-5)
    assert torch.allclose(padded, embeddings[:3], atol=1e-5)


@torch.no_grad()
def test_relaxed_texts(minilm):
    ids = TextAdapter(minilm.own_input).encode(TEXTS[:1])
    relaxed = functional.one_hot(torch.tensor(ids), 30522).float()
    assert torch.allclose(minilm(relaxed), minilm(torch.tensor(ids)), atol=1e-5)


def test_it_comes_trained_and_brings_its_input(minilm):
    assert is_trained(minilm)
    assert not is_classifier(minilm)
    options = minilm.own_input.options
    assert minilm.own_input.shape == (128,)
    assert (options["pad_id"], options["closing_id"], options["mask_token"]) == (0, 102, "[MASK]")
    assert TextAdapter(minilm.own_input).vocabulary == 30522
    assert build(3, NOTHING, max_tokens=512).own_input.shape == (512,)
    with pytest.raises(ModelError, match="3 to 512 tokens, not 513"):
        build(0, NOTHING, max_tokens=513)


@torch.no_grad()
@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"])
def test_the_scheme_finds_the_wheel(name, embeddings):
    external = load(SourceRequest(uri=f"hf:{name}", runtime=Runtime(device=torch.device("cpu"))))
    assert external.card.role == "encoder"
    inputs = TextAdapter(external.card.input)(TEXTS)
    assert torch.allclose(answer_of(external.module, inputs), embeddings, atol=1e-6)
