"""Small planted problems of texts, on which the checks of attacks, defenses and evaluators run.

Texts are four of twenty-four words. An encoder of the words answers with an embedding; language models learn some
secret texts that stand often in their corpus; a classifier learns which words belong to which class.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mi_text.adapter import TextAdapter
from mi_text.builders import small_bert, small_gpt, text_cnn, text_transformer
from mi_text.datasets.dataset import TextDataset
from mi_text.evidence import Hole
from mi_text.splits import Facts, TextSplit
from micore.artifacts import PluginUse
from micore.contracts import Case
from micore.inputs import InputSpec
from micore.kit.training import TrainingConfig
from micore.runtime import Random, derive_seed
from micore.testing.setting import ToySetting

WORDS = (
    "red", "blue", "green", "black", "white", "grey", "cat", "dog", "bird", "fish", "horse", "cow",
    "eats", "sees", "likes", "takes", "finds", "brings", "milk", "bread", "corn", "wood", "stone", "glass",
)  # fmt: skip
SECRETS = ("alice has code 27", "bob owns pin 91", "carol got key 46")
OTHER_SECRETS = ("dave has code 58", "erin owns pin 13", "frank got key 72")
N_CLASSES = 3
TOKENS = 16
TRAINING = TrainingConfig.model_validate({"epochs": 10, "batch_size": 32, "learning_rate": 1e-2, "augment": "none"})
REMEMBERING = TRAINING.model_copy(update={"epochs": 40})
SIZE: Mapping[str, Any] = {"width": 32, "layers": 1, "heads": 2}


class WordEncoder(nn.Module):
    """Embeds a text as the sum of fixed random vectors of its tokens; it comes as it is, untrained."""

    comes_trained = True

    def __init__(self, vocabulary: int, width: int = 64) -> None:
        super().__init__()
        drawn = Random(derive_seed("word-encoder", vocabulary)).normal((vocabulary, width))
        self.vectors = nn.Parameter(drawn.index_fill(0, torch.tensor([0]), 0.0))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the embeddings (N, width) of ids (N, T) or relaxed texts (N, T, V), of unit length."""
        vectors = inputs @ self.vectors if inputs.is_floating_point() else self.vectors[inputs]
        embedded: Tensor = nn.functional.normalize(vectors.sum(dim=1), dim=1)
        return embedded

    def answer(self, inputs: Tensor) -> Tensor:
        """Return the embeddings."""
        embedded: Tensor = self(inputs)
        return embedded


def word_encoder(n_classes: int, input_spec: InputSpec, **arguments: Any) -> WordEncoder:
    """Build the toy's encoder."""
    return WordEncoder(TextAdapter(input_spec).vocabulary, **arguments)


def toys() -> list[ToySetting]:
    """Return the problems of goals class, instance, corpus (of both kinds of language models) and prompt."""
    return [_classes(), _instances(), _corpus(), _masked_corpus(), _prompts()]


def _setting(**values: Any) -> ToySetting:
    common: dict[str, Any] = {
        "modality": "text", "judge_model": PluginUse(name="text-cnn", config={"width": 16, "filters": 8}),
        "judge_build": text_cnn, "problem": problem, "noise": _noise, "fresh_inputs": _relaxed, "training": TRAINING,
        "inputs": (values["dataset"].input,),
    }  # fmt: skip
    return ToySetting(**{**common, **values})


def _classes() -> ToySetting:
    """Return the problem of goal ``class``: each class has eight words of its own in half of the places."""
    private, holdout = (_topical(n, name) for name, n in (("private", 32), ("holdout", 8)))
    public = TextSplit(tuple(_sentences(192, "class-public")))
    return _setting(
        dataset=_dataset("toy-topics", private, holdout, public, tuple(f"topic-{k}" for k in range(N_CLASSES))),
        model=PluginUse(name="text-transformer", config=dict(SIZE)), build=text_transformer, judge=_topic_contrast,
    )  # fmt: skip


def _instances() -> ToySetting:
    """Return the problem of goal ``instance``: texts behind the embeddings of `WordEncoder`."""
    private, holdout = (_noted(_sentences(n, name)) for name, n in (("private", 8), ("holdout", 12)))
    public = TextSplit(tuple(_sentences(512, "public", without=private.texts)))
    return _setting(
        goals=("instance",), role="encoder", dataset=_dataset("toy-texts", private, holdout, public),
        model=PluginUse(name="word-encoder"), build=word_encoder,
        judge=lambda case, texts: _overlap(_text_of(case, private), texts),
    )  # fmt: skip


def _corpus() -> ToySetting:
    """Return the problem of goal ``corpus``: secrets that stand sixteen times in the corpus of a language model."""
    dataset = _secretive("toy-corpus")
    return _setting(
        goals=("corpus",), role="language-model", dataset=dataset, judge=_knows_secrets, training=REMEMBERING,
        model=PluginUse(name="small-gpt", config=dict(SIZE)), build=small_gpt,
    )  # fmt: skip


def _masked_corpus() -> ToySetting:
    dataset = _secretive("toy-masked-corpus")
    return _setting(
        goals=("corpus",), role="masked-language-model", dataset=dataset, judge=_knows_secrets, training=REMEMBERING,
        model=PluginUse(name="small-bert", config={**SIZE, "dropout": 0.0}), build=small_bert,
    )  # fmt: skip


def _prompts() -> ToySetting:
    """Return the problem of goal ``prompt``: what a language model was asked, from what it answers."""
    private, holdout = (
        _labelled(tuple(_sentences(n, f"prompt-{name}"))) for name, n in (("private", 8), ("holdout", 8))
    )
    public = TextSplit(tuple(_sentences(512, "prompt-public", without=private.texts)))
    return _setting(
        goals=("prompt",), role="language-model", dataset=_dataset("toy-prompts", private, holdout, public),
        model=PluginUse(name="small-gpt", config=dict(SIZE)), build=small_gpt,
        judge=lambda case, texts: _overlap(_text_of(case, private), texts),
    )  # fmt: skip


# data -----------------------------------------------------------------------------------------------------


def _dataset(
    name: str, private: TextSplit, holdout: TextSplit, public: TextSplit, classes: tuple[str, ...] = ("text",)
) -> TextDataset:
    return TextDataset(
        name=name, classes=classes, private=private, holdout=holdout, public=public, vocabulary=400, max_tokens=TOKENS
    )


def _labelled(texts: tuple[str, ...], facts: tuple[Facts, ...] = ()) -> TextSplit:
    return TextSplit(texts, torch.zeros(len(texts), dtype=torch.int64), facts)


def _noted(texts: Sequence[str]) -> TextSplit:
    """Return texts whose first and last words are noted as facts."""
    facts = tuple({"first": text.split()[0], "last": text.split()[-1]} for text in texts)
    return _labelled(tuple(texts), facts)


def _sentences(n: int, purpose: str, without: Sequence[str] = ()) -> list[str]:
    """Return different texts of four words."""
    rng = random.Random(derive_seed("toy-texts", purpose))
    found: dict[str, None] = {}
    while len(found) < n:
        text = " ".join(rng.sample(WORDS, 4))
        if text not in without:
            found[text] = None
    return list(found)


def _topical(per_class: int, purpose: str) -> TextSplit:
    rng = random.Random(derive_seed("toy-topics", purpose))
    texts, labels = [], []
    for label in range(N_CLASSES):
        own = WORDS[label::N_CLASSES]
        for _ in range(per_class):
            words = [*rng.sample(own, 3), rng.choice(WORDS)]
            rng.shuffle(words)
            texts.append(" ".join(words))
            labels.append(label)
    return TextSplit(tuple(texts), torch.tensor(labels))


def _secretive(name: str) -> TextDataset:
    """Return a corpus in which each of three secrets stands sixteen times; held-out texts hold other secrets."""
    plain = _sentences(16, f"{name}-plain")
    secret = [text for text in SECRETS for _ in range(16)]
    private = _labelled((*secret, *plain), (*map(_facts, secret), *({} for _ in plain)))
    others = _sentences(9, f"{name}-held", plain)
    holdout = _labelled((*OTHER_SECRETS, *others), (*map(_facts, OTHER_SECRETS), *({} for _ in others)))
    return _dataset(name, private, holdout, TextSplit(tuple(_sentences(64, f"{name}-public", plain))))


def _facts(secret: str) -> dict[str, str]:
    words = secret.split()
    return {"name": words[0], "code": words[-1], "canary": words[-1]}


# judging --------------------------------------------------------------------------------------------------


def problem(samples: Any) -> str | None:
    """Tell what is wrong with samples that should be texts."""
    if isinstance(samples, str) or not isinstance(samples, Sequence):
        return f"samples are {type(samples).__name__}, not a list of texts"
    wrong = next((item for item in samples if not isinstance(item, str)), None)
    return None if wrong is None else f"a sample is {type(wrong).__name__}, not a text"


def _noise(n: int, rng: Random) -> list[str]:
    rows = rng.integers(len(WORDS), (n, 4)).tolist()
    return [" ".join(WORDS[index] for index in row) for row in rows]


def _relaxed(spec: InputSpec, n: int, rng: Random) -> Tensor:
    """Return random relaxed texts, (n, T, V)."""
    return (3 * rng.normal((n, spec.shape[0], TextAdapter(spec).vocabulary))).softmax(dim=2)


def _text_of(case: Case, private: TextSplit) -> str:
    return private.texts[int(case.id.rpartition("-")[2])]


def _overlap(truth: str, texts: Sequence[str]) -> Tensor:
    """Judge texts (n,) by the words that they share with the truth, above what four random words share with it."""
    chance = 4 / len(WORDS)
    shared = torch.tensor([_f1(truth.split(), text.split()) for text in texts])
    return (shared - chance) / (1 - chance)


def _f1(one: Sequence[str], other: Sequence[str]) -> float:
    common = sum((Counter(one) & Counter(other)).values())
    return 2 * common / (len(one) + len(other)) if one or other else 0.0


def _topic_contrast(case: Case, texts: Sequence[str]) -> Tensor:
    """Judge texts by the share of their words that are the class's own, above the share by chance."""
    own, chance = set(WORDS[(case.label or 0) :: N_CLASSES]), 1 / N_CLASSES
    shares = [sum(word in own for word in text.split()) / max(1, len(text.split())) for text in texts]
    return (torch.tensor(shares) - chance) / (1 - chance)


def _knows_secrets(case: Case, texts: Sequence[str]) -> Tensor:
    """Judge texts by whether they hold a secret of the corpus; where one is hidden, by whether they hold that one."""
    if isinstance(case.evidence, Hole):
        place = SECRETS.index(next(text for text in SECRETS if text.startswith(case.evidence.before)))
        return torch.tensor([float(SECRETS[place] in text) for text in texts])
    return torch.tensor([float(any(secret in text for secret in SECRETS)) for text in texts])
