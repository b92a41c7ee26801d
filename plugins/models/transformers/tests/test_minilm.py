"""all-MiniLM-L6-v2: its embeddings are the published ones, and it is trained, stored and read as other models are."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from mi_model_transformers.folders import folder_of, wheel
from mi_model_transformers.loading import load
from mi_model_transformers.minilm import build
from mi_text.adapter import TextAdapter
from micore.answers import answer_of, is_classifier, is_trained
from micore.errors import ModelError
from micore.external import SourceRequest
from micore.inputs import InputSpec
from micore.runtime import Runtime

TEXTS = ["Hello world", "My phone is 555-1234 and I live in Paris, Texas.", "", "word " * 300, "Ünïcödé café: 東京"]
PUBLISHED = [
    [-0.0344773, 0.0310233, 0.006735, 0.026109, -0.039362, -0.1603025],
    [-0.0242143, -0.0709494, 0.1153459, -0.0797211, -0.0384469, -0.0365493],
    [-0.1188384, 0.0482987, -0.0025481, -0.0110112, 0.0519508, 0.0102918],
    [0.0129987, -0.0642173, -0.0287093, 0.0157994, -0.0403067, 0.0205587],
    [0.0669585, -0.0095277, 0.0495134, -0.0449762, -0.0851571, -0.0078883],
]
"""How the embeddings of the texts begin by sentence-transformers 6.2.0, cut at 128 tokens."""

NOTHING = InputSpec(shape=(1,))


@pytest.fixture(scope="module")
def minilm():
    return build(0, NOTHING).eval()


@pytest.fixture(scope="module")
def embeddings(minilm):
    with torch.no_grad():
        return answer_of(minilm, TextAdapter(minilm.own_input)(TEXTS))


def test_embeddings_are_the_published_ones(embeddings):
    assert torch.allclose(embeddings[:, :6], torch.tensor(PUBLISHED), atol=1e-5)
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(len(TEXTS)), atol=1e-6)


@pytest.mark.slow
def test_embeddings_are_those_of_sentence_transformers(embeddings):
    library = pytest.importorskip("sentence_transformers")
    published = library.SentenceTransformer(str(wheel()), device="cpu", local_files_only=True)
    published.max_seq_length = 128
    expected = published.encode(TEXTS, convert_to_tensor=True, show_progress_bar=False)
    assert torch.allclose(embeddings, expected, atol=1e-5)


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
def test_the_scheme_finds_the_wheel(embeddings):
    assert folder_of("sentence-transformers/all-MiniLM-L6-v2") == wheel()
    external = load(SourceRequest(uri="hf:all-MiniLM-L6-v2", runtime=Runtime(device=torch.device("cpu"))))
    assert external.card.role == "encoder"
    inputs = TextAdapter(external.card.input)(TEXTS)
    assert torch.allclose(answer_of(external.module, inputs), embeddings, atol=1e-6)
