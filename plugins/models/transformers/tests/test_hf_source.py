"""Checkpoints of transformers as targets: tiny ones, made here, that say the same as transformers itself."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, field

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch.nn import functional
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from mi_model_transformers.classifier import class_order
from mi_model_transformers.loading import load
from mi_text import asking
from mi_text.adapter import TextAdapter
from mi_text.language_model import LIKELIHOODS
from mi_text.masked_model import FILL
from mi_text.sampling import Sampling
from micore.errors import ConfigError, ModelError, UsageError
from micore.external import SourceRequest
from micore.inputs import InputSpec
from micore.runtime import Random, Runtime
from micore.target import Target
from micore.threat import Access, Ledger

WORDS = ["ann", "ben", "cleo", "lives", "works", "in", "rome", "oslo", "and", "sleeps", "at", "home"]
TEXTS = ["ann lives in rome", "ben works", "cleo lives in oslo and works at home", "ann"]
CPU = Runtime(device=torch.device("cpu"))


def bert_tokenizer() -> PreTrainedTokenizerFast:
    names = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", *WORDS]
    inside = Tokenizer(models.WordLevel({name: place for place, name in enumerate(names)}, unk_token="[UNK]"))
    inside.pre_tokenizer = pre_tokenizers.Whitespace()
    inside.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inside, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
        unk_token="[UNK]", model_max_length=24,
    )  # fmt: skip


def gpt_tokenizer(*, marks: bool = False) -> PreTrainedTokenizerFast:
    """As GPT-2's: one mark for beginning and end, none for padding; with ``marks`` it puts it before every text."""
    names = ["<|end|>", *WORDS]
    inside = Tokenizer(models.WordLevel({name: place for place, name in enumerate(names)}, unk_token="ann"))
    inside.pre_tokenizer = pre_tokenizers.Whitespace()
    inside.decoder = decoders.Sequence([decoders.Fuse()]) if marks else inside.decoder
    if marks:
        inside.post_processor = processors.TemplateProcessing(single="<|end|> $A", special_tokens=[("<|end|>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=inside, bos_token="<|end|>", eos_token="<|end|>")


BERT = {
    "vocab_size": 5 + len(WORDS), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 24, "initializer_range": 0.3,
}  # fmt: skip
GPT = {
    "vocab_size": 1 + len(WORDS),
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 24,
    "initializer_range": 0.3,
}


def saved(folder, network, tokenizer):
    network.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, network


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        names = {"id2label": {0: "Work", 1: "home", 2: "City"}, "label2id": {"Work": 0, "home": 1, "City": 2}}
        gpt = GPT2LMHeadModel(GPT2Config(**GPT, bos_token_id=0, eos_token_id=0))
        return {
            "encoder": saved(root / "encoder", BertModel(BertConfig(**BERT)), bert_tokenizer()),
            "classifier": saved(
                root / "classifier", BertForSequenceClassification(BertConfig(**BERT, **names)), bert_tokenizer()
            ),
            "masked-language-model": saved(root / "masked", BertForMaskedLM(BertConfig(**BERT)), bert_tokenizer()),
            "language-model": saved(root / "gpt", gpt, gpt_tokenizer()),
            "marked": saved(root / "marked", gpt, gpt_tokenizer(marks=True)),
        }


@dataclass
class Data:
    """As much of a data set as a source looks at."""

    classes: tuple[str, ...] = ("city", "home", "work")
    modality: str = "text"
    input: InputSpec = field(default_factory=lambda: InputSpec(shape=(16,)))


def opened(place, dataset=None, **options):
    return load(SourceRequest(uri=f"hf:{place}", runtime=CPU, options=options, dataset=dataset))


def target_of(external, access=Access.WHITE_BOX):
    return Target(
        external.module, access=access, adapter=TextAdapter(external.card.input), input_spec=external.card.input,
        classes=external.card.classes, ledger=Ledger(), runtime=CPU, role=external.card.role,
    )  # fmt: skip


@pytest.mark.parametrize("role", ["encoder", "classifier", "masked-language-model", "language-model"])
def test_the_role_is_that_of_the_architecture(checkpoints, role):
    external = opened(checkpoints[role][0], dataset=Data())
    assert (external.card.role, external.card.classes) == (role, Data().classes)
    assert external.highest_access == Access.WHITE_BOX


# encoders -------------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_encoder_gives_what_transformers_gives(checkpoints, pooling):
    folder, network = checkpoints["encoder"]
    found = target_of(opened(folder, pooling=pooling)).scores(TEXTS)
    for row, text in zip(found, TEXTS, strict=True):
        ids = torch.tensor([[1, *(5 + WORDS.index(word) for word in text.split()), 2]])
        states = network(ids).last_hidden_state[0]
        expected = functional.normalize(states.mean(dim=0) if pooling == "mean" else states[0], dim=0)
        assert torch.allclose(row, expected, atol=1e-5)


@torch.no_grad()
def test_long_texts_are_cut_and_closed(checkpoints):
    external = opened(checkpoints["encoder"][0], max_tokens=5)
    ids = TextAdapter(external.card.input)([TEXTS[2]])
    assert ids[0, :5].tolist() == [1, *(5 + WORDS.index(word) for word in ["cleo", "lives", "in"]), 2]
    assert not ids[0, 5:].any()


def test_gradients_reach_relaxed_texts(checkpoints):
    module = opened(checkpoints["encoder"][0]).module
    ids = torch.tensor([[1, 7, 9, 2]])
    relaxed = functional.one_hot(ids, BERT["vocab_size"]).float().requires_grad_()
    embedding = module(relaxed)
    assert torch.allclose(embedding, module(ids), atol=1e-6)
    embedding[0, 0].backward()
    assert float(relaxed.grad.abs().sum()) > 0


def test_pooling_of_sentence_transformers(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints["encoder"][0], tmp_path / "saved")
    pooling = folder / "1_Pooling" / "config.json"
    pooling.parent.mkdir()
    pooling.write_text(
        '{"word_embedding_dimension": 16, "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}'
    )
    assert opened(folder).module.pooling == "cls"
    assert opened(folder, pooling="mean").module.pooling == "mean"
    pooling.write_text('{"pooling_mode": "mean"}')
    assert opened(folder).module.pooling == "mean"
    pooling.write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(ModelError, match="pools by max_tokens, which is not supported"):
        opened(folder)
    pooling.unlink()
    (folder / "modules.json").write_text('[{"type": "sentence_transformers.models.Dense"}]')
    with pytest.raises(ModelError, match="pools by Dense"):
        opened(folder)


# classifiers ----------------------------------------------------------------------------------------------


@torch.no_grad()
def test_classes_are_in_the_order_of_the_data_set(checkpoints):
    folder, network = checkpoints["classifier"]
    inputs = bert_tokenizer()(TEXTS, padding=True, return_tensors="pt")
    own = network(inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits.softmax(dim=1)
    target = target_of(opened(folder, dataset=Data()))
    assert torch.allclose(target.scores(TEXTS), own[:, [2, 1, 0]], atol=1e-5)
    by_number = target_of(opened(folder, dataset=Data(classes=("a", "b", "c")), labels="number"))
    assert torch.allclose(by_number.scores(TEXTS), own, atol=1e-5)
    assert opened(folder).card.classes == ("Work", "home", "City")


def test_classes_that_do_not_fit(checkpoints):
    folder = checkpoints["classifier"][0]
    with pytest.raises(ModelError, match="the checkpoint has 3 classes; the data set has 2"):
        opened(folder, dataset=Data(classes=("a", "b")))
    with pytest.raises(ModelError, match="classes are Work, home, City; the data set's a, b, c"):
        opened(folder, dataset=Data(classes=("a", "b", "c")))
    assert class_order(["LABEL_0", "LABEL_1"], ["x", "y"], by_number=False) == [0, 1]


# masked language models -----------------------------------------------------------------------------------


@torch.no_grad()
def test_hidden_words_are_filled_in(checkpoints):
    folder, network = checkpoints["masked-language-model"]
    target = target_of(opened(folder))
    ids = torch.tensor([[1, 5, 3, 9, 2]])
    expected = network(ids).logits.softmax(dim=2)
    text = f"ann {target.input_spec.options['mask_token']} {WORDS[4]}"
    assert torch.allclose(target.ask(FILL, [text])[:, :5], expected, atol=1e-5)
    assert torch.allclose(target.scores([text]), expected[:, 2], atol=1e-5)
    with pytest.raises(UsageError, match="offers no 'generate'"):
        opened(folder).module.serve("generate", ids)


# language models ------------------------------------------------------------------------------------------


def ids_of(text):
    return [1 + WORDS.index(word) for word in text.split()]


@torch.no_grad()
@pytest.mark.parametrize("name", ["language-model", "marked"])
def test_likelihoods_are_those_of_the_network(checkpoints, name):
    folder, network = checkpoints[name]
    target = target_of(opened(folder))
    found = asking.likelihoods(target, [*TEXTS, ""])
    for values, text in zip(found, [*TEXTS, ""], strict=True):
        ids = ids_of(text)
        logits = network(torch.tensor([[0, *ids]])).logits[0].log_softmax(dim=1)
        expected = torch.stack([logits[place, token] for place, token in enumerate([*ids, 0])])
        assert torch.allclose(values, expected, atol=1e-5)
    losses = target.module.inner.task_loss(TextAdapter(target.input_spec)(TEXTS), torch.zeros(len(TEXTS)))
    assert torch.allclose(losses, torch.stack([-values.mean() for values in found[:-1]]), atol=1e-5)


@torch.no_grad()
def test_next_token(checkpoints, monkeypatch):
    folder, network = checkpoints["language-model"]
    expected = torch.cat([network(torch.tensor([[0, *ids_of(text)]])).logits[:, -1].softmax(dim=1) for text in TEXTS])
    target = target_of(opened(folder))
    assert torch.allclose(target.scores(TEXTS), expected, atol=1e-5)
    monkeypatch.setattr("mi_model_transformers.language_model.LARGEST", 1)  # one row at a time
    assert torch.allclose(target.scores(TEXTS), expected, atol=1e-5)
    relaxed = functional.one_hot(torch.tensor([ids_of(TEXTS[0])]), GPT["vocab_size"]).float()
    assert torch.allclose(target.module.inner.answer(relaxed), expected[:1], atol=1e-5)


@torch.no_grad()
def test_texts_go_on_greedily_as_step_by_step(checkpoints):
    folder, network = checkpoints["language-model"]
    found = opened(folder).module.serve(
        "generate", TextAdapter(opened(folder).card.input)(TEXTS), sampling=Sampling(max_tokens=6, temperature=0),
        rng=Random(0),
    )  # fmt: skip
    assert found.shape == (len(TEXTS), 6)
    for row, text in zip(found.tolist(), TEXTS, strict=True):
        ids = [0, *ids_of(text)]
        for token in row:
            best = int(network(torch.tensor([ids])).logits[0, -1].argmax())
            assert token == best  # the end is 0, which is the padding, too
            if best == 0:
                break
            ids.append(best)


@torch.no_grad()
def test_samples_follow_the_distribution(checkpoints):
    folder, network = checkpoints["language-model"]
    target = target_of(opened(folder))
    texts = asking.generate(target, ["ann"] * 4000, Sampling(max_tokens=1), Random(5), batch=1000)
    expected = network(torch.tensor([[0, *ids_of("ann")]])).logits[0, -1].softmax(dim=0)
    counts = torch.tensor([texts.count(word) for word in ["", *WORDS]]) / len(texts)
    assert float((counts - expected).abs().max()) < 4 * math.sqrt(0.25 / 4000)
    again = asking.generate(target, ["ann"] * 4000, Sampling(max_tokens=1), Random(5), batch=1000)
    assert again == texts


def test_settings_of_the_checkpoint_change_nothing(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints["language-model"][0], tmp_path / "own")
    (folder / "generation_config.json").write_text('{"eos_token_id": [0, 3], "top_k": 1, "repetition_penalty": 9.0}')
    options = {"sampling": Sampling(max_tokens=8, top_k=4), "rng": Random(2)}
    inputs = torch.tensor([ids_of("ann lives")] * 32)
    module = opened(folder).module
    assert module.end_ids == (0, 3)
    found = module.serve("generate", inputs, **options)
    plain = opened(checkpoints["language-model"][0]).module.serve(
        "generate", inputs, sampling=Sampling(max_tokens=8, top_k=4), rng=Random(2)
    )
    stopped = plain.masked_fill((plain == 3).cummax(dim=1).values, 0)
    assert torch.equal(found, stopped)
    assert bool((plain == 3).any())


def test_a_network_that_is_full_stops(checkpoints):
    module = opened(checkpoints["language-model"][0], max_tokens=20).module
    module.end_ids = (9,)  # hardly ever chosen in so few steps, whatever it is
    found = module.serve(
        "generate", torch.ones(2, 20).long(), sampling=Sampling(max_tokens=9, temperature=0), rng=Random(0)
    )
    assert found.shape == (2, 9)
    assert not found[:, 3:].any()
    assert module.serve(LIKELIHOODS, torch.ones(2, 20).long()).shape == (2, 21)


# what is refused ------------------------------------------------------------------------------------------


def test_no_such_checkpoint(tmp_path):
    with pytest.raises(ModelError, match=r"'no/such' is no folder") as caught:
        opened("no/such")
    assert "nothing is downloaded" in caught.value.hint
    with pytest.raises(ModelError, match="holds no weights"):
        opened(tmp_path)


def test_pickles_are_read_only_when_trusted(checkpoints, tmp_path):
    source, network = checkpoints["encoder"]
    folder = shutil.copytree(source, tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="is a pickle"):
        opened(folder)
    ids = torch.tensor([[1, 7, 9, 2]])
    assert torch.equal(opened(folder, trust=True).module(ids), opened(source).module(ids))


def test_what_is_missing_is_named(checkpoints, tmp_path):
    source = checkpoints["encoder"][0]
    folder = shutil.copytree(source, tmp_path / "bare")
    for path in folder.glob("*token*"):
        path.unlink()
    with pytest.raises(ModelError, match="has no tokenizer"):
        opened(folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="has no tokenizer that can be read"):
        opened(folder)
    bert_tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"], "vocab_size": 9}')
    with pytest.raises(ModelError, match="a tokenizer of 17 tokens and a network of 9"):
        opened(folder)
    (folder / "config.json").write_text('{"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}')
    with pytest.raises(ModelError, match="encoder with a decoder"):
        opened(folder)
    (folder / "config.json").write_text('{"model_type": "bert", "architectures": ["BertForQuestionAnswering"]}')
    with pytest.raises(ModelError, match="not supported: BertForQuestionAnswering"):
        opened(folder)
    (folder / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="no checkpoint that transformers knows"):
        opened(folder)
    with pytest.raises(ModelError, match="no weights for cls"):
        opened(source, role="masked-language-model")


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"max_tokens": 25}, ModelError, "3 to 24 tokens, not 25"),
        ({"max_tokens": 2}, ModelError, "3 to 24 tokens, not 2"),
        ({"pool": "cls"}, ConfigError, "no option 'pool'"),
        ({"role": "judge"}, ConfigError, "role"),
    ],
)
def test_options_that_do_not_fit(checkpoints, options, error, match):
    with pytest.raises(error, match=match):
        opened(checkpoints["encoder"][0], **options)


def test_data_of_another_kind(checkpoints):
    with pytest.raises(ModelError, match="takes texts; the data are of modality image"):
        opened(checkpoints["encoder"][0], dataset=Data(modality="image"))


def test_the_fingerprint_is_of_weights_and_settings(checkpoints, tmp_path):
    folder = checkpoints["encoder"][0]
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert opened(moved).fingerprint == opened(folder).fingerprint
    assert opened(folder, pooling="cls").fingerprint != opened(folder).fingerprint
    assert opened(checkpoints["masked-language-model"][0], role="encoder").fingerprint != opened(folder).fingerprint
