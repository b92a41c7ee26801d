"""Word sets: which words stand in a text, from its embedding.

Song, Raghunathan: "Information Leakage in Embedding Models", CCS 2020 (arXiv:2004.00053), section 4.

Threat model: the adversary holds the embedding of a private text, and may ask the encoder for the embeddings of public
texts (access scores). The text comes back as a set of words, without order.

1. The encoder embeds the public texts.
2. ``labels``: a perceptron learns to tell for each word whether it stands in the text (the paper's multi-label
   classification); ``set``: a recurrent decoder gives one word a step, in any order (its multi-set prediction).
3. The private embedding is read by that network.

Fidelity notes (paper / others' code / here). There is no code of the authors that could be compared.
- ``set``: the loss of a step is -1/|R| sum over R of log p, R being the words that were not given yet. A known
  re-implementation takes the KL divergence to the softmax of a 0/1 vector over all words instead, which is nearly
  uniform: a weak baseline.
- ``set``: words are not given twice (a set, no multiset), and an end is learned, so that nobody has to know how many
  words there are. The word that a training step gives is drawn from the network itself, of all words in a share
  ``explore`` of the steps, of the remaining true ones in the others.
- ``labels``: which probability makes a word a member is tuned on held-out public texts; words that are there weigh
  ``positive_weight`` in the loss, as most are not.
- Words are those that the evaluators compare, signs of punctuation among them, in lower case; the paper's are tokens.
- The paper's white-box inversion, which relaxes the text and follows the encoder's gradients, is not here.
- Hidden units, steps and rates are ours: the paper's could not be checked. The preset ``paper`` has larger networks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from mi_attack_word_set.learning import Learning, WordReader, learn, restore
from mi_attack_word_set.words import sentence
from mi_text.public_embeddings import Pairs, nearest_public, observed_embeddings, public_pairs
from mi_text.steps import StepPlan
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import DataError
from micore.kit.stages import Stages
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending


class WordSetConfig(Config):
    """Settings of the attack."""

    method: Literal["labels", "set"] = Field(
        "labels", description="labels: a classifier of every word; set: a decoder that gives one word a step"
    )
    public: int | None = Field(20_000, ge=2, description="public texts that are used and asked for; None: all")
    vocabulary: int = Field(4000, ge=1, description="words that can be recovered: the most frequent public ones")
    hidden: int = Field(512, ge=1, description="hidden units of the network")
    steps: int = Field(3000, ge=1, description="steps of the training")
    batch_size: int = Field(64, ge=1, description="texts of a step")
    learning_rate: float = Field(1e-3, gt=0, description="of AdamW")
    positive_weight: float = Field(5.0, gt=0, description="labels: how much words that are there weigh in the loss")
    explore: float = Field(0.5, ge=0, le=1, description="set: share of training steps that may give a wrong word")
    longest: int = Field(32, ge=1, description="set: words that are given at most")
    held_out: float = Field(0.05, gt=0, lt=1, description="share of the public texts that tune the threshold")


class WordSet:
    """Words behind embeddings (see the module's documentation)."""

    Config: ClassVar[type[Config]] = WordSetConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "smoke": {"hidden": 64, "steps": 150, "batch_size": 32, "learning_rate": 1e-2, "longest": 8, "held_out": 0.1},
        "paper": {"public": None, "vocabulary": 30_000, "hidden": 1024, "steps": 50_000, "batch_size": 256},
    }
    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset(WordSetConfig.model_fields)

    def __init__(self, config: WordSetConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Ask for the public embeddings and train the network on them.

        Raises: UsageError without public texts.
        """
        stages = Stages(runtime)
        pairs = public_pairs(target, public, self.config.public, runtime)
        state = stages.run("words", lambda stage: learn(pairs, self._learning(), stage))
        return Prepared(state={**state, "texts": list(pairs.texts), "embeddings": pairs.embeddings})

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Read each case's embedding; the target is not asked again."""
        reader = restore(_state(prepared), runtime)
        yield from _read(cases, observed_embeddings(cases, reader.dimensions), reader, runtime)

    def control(self, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime) -> Iterator[Reconstruction]:
        """Read the mean public embedding instead: the words that are likely in any text."""
        reader = restore(_state(prepared), runtime)
        mean = reader.statistics[0].expand(len(cases), -1)
        yield from _read(cases, mean, reader, runtime)

    def baselines(
        self, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Mapping[str, Sequence[Reconstruction]]:
        """Return the public text whose embedding is nearest."""
        state = _state(prepared)
        pairs = Pairs(texts=tuple(state["texts"]), embeddings=state["embeddings"].cpu())
        return {"nearest-public": nearest_public(cases, pairs)}

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the target's work: an embedding of each public text that is used."""
        limit = self.config.public
        return Forecast(
            preparation=Spending(queries=n_public if limit is None else min(limit, n_public)), per_case=Spending()
        )

    def _learning(self) -> Learning:
        config = self.config
        plan = StepPlan(steps=config.steps, batch_size=config.batch_size, learning_rate=config.learning_rate)
        return Learning(
            kind=config.method, vocabulary=config.vocabulary, hidden=config.hidden, plan=plan,
            positive_weight=config.positive_weight, explore=config.explore, longest=config.longest,
            held_out=config.held_out,
        )  # fmt: skip


def _read(cases: Sequence[Case], embeddings: Tensor, reader: WordReader, runtime: Runtime) -> Iterator[Reconstruction]:
    for case, confidences in zip(cases, reader.confidences(embeddings, runtime), strict=True):
        text, score = sentence(confidences, reader.words)
        yield Reconstruction(case=case, samples=[text], scores=torch.tensor([score]))


def _state(prepared: Prepared | None) -> Mapping[str, Any]:
    if prepared is None:
        raise DataError("word-set was not prepared")
    return prepared.state
