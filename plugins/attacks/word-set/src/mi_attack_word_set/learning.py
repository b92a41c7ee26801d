"""Training of the adversary's networks on public texts and their embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from mi_attack_word_set.networks import LabelNetwork, SetNetwork
from mi_attack_word_set.words import WordSets, best_threshold, common_words, word_sets
from mi_text.decoder import standardised, statistics_of
from mi_text.public_embeddings import Pairs
from mi_text.steps import StepPlan, train_steps
from micore.errors import UsageError
from micore.kit.case_rows import tiled
from micore.runtime import Runtime

GRID = torch.arange(1, 50) / 50
"""Thresholds that are tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """How a network of words is trained; the fields are those of the attack's config."""

    kind: Literal["labels", "set"]
    vocabulary: int
    hidden: int
    plan: StepPlan
    positive_weight: float
    explore: float
    longest: int
    held_out: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WordReader:
    """A trained network with all that it takes to read embeddings."""

    network: LabelNetwork | SetNetwork
    words: list[str]
    statistics: list[Tensor]
    threshold: float
    longest: int

    @property
    def dimensions(self) -> int:
        """How many dimensions the embeddings have."""
        return len(self.statistics[0])

    def confidences(self, embeddings: Tensor, runtime: Runtime) -> Tensor:
        """Return the log-confidence of each word in each embedding (N, d), -inf where it is not predicted, (N, size).

        On the CPU. The network runs in tiles of constant size, so that a row does not depend on the others.
        """
        vectors = standardised(embeddings, self.statistics).to(runtime.device)
        return tiled(self._of_tile, runtime.tile, vectors).cpu()

    def _of_tile(self, vectors: Tensor) -> Tensor:
        if isinstance(self.network, LabelNetwork):
            return self.network.confidences(vectors, self.threshold)
        return self.network.confidences(vectors, self.longest)


def learn(pairs: Pairs, learning: Learning, runtime: Runtime) -> dict[str, Any]:
    """Train a network and tune its threshold; return all as plain data.

    Raises: UsageError with fewer than two public texts.
    """
    if len(pairs.texts) < 2:
        raise UsageError("one public text is not enough to learn and to tune", hint="give more public texts")
    n_held = max(1, round(len(pairs.texts) * learning.held_out))
    vocabulary = common_words(pairs.texts[:-n_held], learning.vocabulary)
    sets, statistics = word_sets(pairs.texts, vocabulary), statistics_of(pairs.embeddings[:-n_held])
    vectors = standardised(pairs.embeddings, statistics).to(runtime.device)
    network = _build(learning.kind, vectors.shape[1], learning.hidden, len(vocabulary), runtime)

    def losses(rows: Tensor) -> Tensor:
        hot = sets.hot(rows).to(runtime.device)
        own = vectors[rows.to(runtime.device)]
        if isinstance(network, LabelNetwork):
            return network.losses(own, hot, learning.positive_weight)
        return network.losses(own, hot, _steps(hot, learning.longest), learning.explore)

    history = train_steps(network, losses, sets.known()[:-n_held], learning.plan, runtime, "words")
    threshold = 0.0
    if isinstance(network, LabelNetwork):
        threshold = _tuned(network, vectors[-n_held:], sets, runtime)
    return {
        "network": {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()},
        "words": vocabulary, "statistics": statistics, "threshold": threshold, "history": history,
        "longest": learning.longest, "kind": learning.kind, "hidden": learning.hidden,
    }  # fmt: skip


def restore(state: Mapping[str, Any], runtime: Runtime) -> WordReader:
    """Build what `learn` made."""
    statistics = [tensor.cpu() for tensor in state["statistics"]]
    network = _build(state["kind"], len(statistics[0]), int(state["hidden"]), len(state["words"]), runtime)
    network.load_state_dict(state["network"])
    return WordReader(
        network=network.eval().requires_grad_(False), words=list(state["words"]), statistics=statistics,
        threshold=float(state["threshold"]), longest=int(state["longest"]),
    )  # fmt: skip


def _build(kind: str, inputs: int, hidden: int, size: int, runtime: Runtime) -> LabelNetwork | SetNetwork:
    with runtime.seeded("words", "parameters"):
        network = (LabelNetwork if kind == "labels" else SetNetwork)(inputs, hidden, size)
    return runtime.place(network)


def _steps(hot: Tensor, longest: int) -> int:
    """Return the steps of a batch: its largest set, half as many again for wrong words, and the end."""
    largest = int(hot.sum(dim=1).max())
    return min(largest + largest // 2, longest) + 1


def _tuned(network: LabelNetwork, held: Tensor, sets: WordSets, runtime: Runtime) -> float:
    probabilities = tiled(lambda part: network(part).sigmoid(), runtime.tile, held).cpu()
    rows = torch.arange(len(sets.sizes) - len(held), len(sets.sizes))
    return best_threshold(probabilities, sets.hot(rows), sets.sizes[rows], GRID)
