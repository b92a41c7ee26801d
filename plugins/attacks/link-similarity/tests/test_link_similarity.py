"""Link stealing on the planted graph: what it recovers, spends and refuses."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from mi_attack_link_similarity.attack import LinkSimilarity
from mi_attack_link_similarity.shadow import learned_from
from mi_graph.baselines import EQUAL_KNOWLEDGE
from mi_graph.cases import known_of
from mi_graph.graphs import Graph
from mi_graph.similarity import DISTANCES
from mi_graph.splits import NodeSplit
from micore.contracts import Case, Prepared, Reconstruction, Split
from micore.errors import AccessDenied, ConfigError, DataError, UsageError
from micore.runtime import Random
from micore.target import Target
from micore.testing import Trial
from micore.testing.devices import pretend_accelerator
from micore.threat import Access, Spending


@pytest.fixture(scope="module")
def toy() -> Trial:
    return Trial("link-similarity")


@pytest.mark.parametrize("distance", DISTANCES)
def test_answers_tell_more_than_features(toy: Trial, distance: str) -> None:
    _, found = toy.run(toy.attack(distance=distance))
    floors = toy.modality.floors(toy.cases, toy.dataset)  # type: ignore[attr-defined]
    assert toy.recovered(found) > toy.recovered(list(floors["feature-cosine"])) + 0.1


@pytest.mark.parametrize("score", ["difference", "sum"])
def test_a_reference_and_features_help_or_not_but_beat_chance(toy: Trial, score: str) -> None:
    attack = toy.attack(attack=2, score=score)
    _, found = toy.run(attack)
    assert toy.recovered(found) > 0.1
    again, other = (Trial("link-similarity", seed=seed).run(attack)[1] for seed in (0, 1))
    assert again[0].samples == found[0].samples
    assert (other[0].samples == found[0].samples) == (score == "sum")  # only the reference is drawn


def test_each_node_is_asked_about_once(toy: Trial) -> None:
    target, (item,) = toy.run(toy.attack(batch_size=7))
    assert target.ledger.total == Spending(queries=60)
    assert target.ledger.used_access == Access.SCORES
    graph = item.samples.graphs[0]
    assert graph.n_edges == known_of(toy.cases[0]).n_edges
    whole = toy.run()[1][0].samples.graphs[0]
    torch.testing.assert_close(graph.scores, whole.scores, rtol=1e-4, atol=1e-5)


def test_a_budget_leaves_what_was_found(toy: Trial) -> None:
    target, (item,) = toy.run(toy.attack(batch_size=10), budget=35)
    assert target.ledger.total.queries == 30
    assert not item.complete
    assert toy.recovered([item]) > 0


SHADOWED = {1: 1, 4: 1, 5: 5, 7: 5}
"""Attacks that learn from a shadow, and which of them prepares the same."""


class Edges:
    """The toy whose adversary holds half of the edges, with what was prepared and found of it."""

    def __init__(self) -> None:
        self.toy = Trial("link-similarity", evidence="edges")
        self.prepared = {number: prepare(self.toy, attack=number) for number in (1, 5)}
        self.floors = self.toy.modality.floors(self.toy.cases, self.toy.dataset)  # type: ignore[attr-defined]
        self._found: dict[int, list[Reconstruction]] = {}

    def run(self, number: int, seed: int = 0, cases: Sequence[Case] = ()) -> list[Reconstruction]:
        """Attack with a shadow where the attack has one, and count the queries."""
        target, runtime = self.toy.target(), replace(self.toy.runtime, seed=seed)
        shadow = self.prepared[SHADOWED[number]] if number in SHADOWED else None
        found = list(self.toy.attack(attack=number).run(target, cases or self.toy.cases, shadow, runtime))
        assert target.ledger.total == Spending(queries=60)
        return found

    def found(self, number: int) -> list[Reconstruction]:
        """Attack once."""
        if number not in self._found:
            self._found[number] = self.run(number)
        return self._found[number]


@pytest.fixture(scope="module")
def edges() -> Edges:
    return Edges()


def prepare(toy: Trial, public: Split | None = None, target: Target | None = None, **options: Any) -> Prepared | None:
    given = toy.dataset.split("public") if public is None else public
    return toy.attack(**options).prepare(target or toy.target(), given, toy.runtime)


@pytest.mark.parametrize("number", [1, 3, 4, 5, 6, 7])
def test_attacks_that_learn_beat_all_floors_of_their_knowledge(number: int, edges: Edges) -> None:
    best = max(edges.toy.recovered(list(edges.floors[name])) for name in edges.floors if name in EQUAL_KNOWLEDGE)
    assert best > 0.3
    assert edges.toy.recovered(edges.found(number)) > best + 0.1


def test_a_seed_repeats_and_another_one_does_not(edges: Edges) -> None:
    assert edges.run(3)[0].samples == edges.found(3)[0].samples
    assert edges.run(3, seed=1)[0].samples != edges.found(3)[0].samples


@pytest.mark.parametrize("number", [1, 5])
def test_a_shadow_alone_tells_of_another_graph(toy: Trial, number: int, edges: Edges) -> None:
    floors = toy.modality.floors(toy.cases, toy.dataset)  # type: ignore[attr-defined]
    assert toy.recovered(edges.run(number, cases=toy.cases)) > toy.recovered(list(floors["feature-cosine"])) + 0.2


def test_all_that_an_attack_learns_from_counts(edges: Edges) -> None:
    """Attacks of two sources are neither of those that have one of them."""
    scores = {number: edges.found(number)[0].samples.graphs[0].scores for number in (1, 3, 4, 5, 6, 7)}
    for one, two in itertools.combinations(scores, 2):
        assert not torch.allclose(scores[one], scores[two])  # type: ignore[arg-type]


@pytest.mark.parametrize(("number", "width"), [(1, 12), (3, 4 * 3 + 12), (4, 12), (5, 32), (6, 4 * 6 + 32), (7, 32)])
def test_pairs_are_told_by_what_the_paper_lists(toy: Trial, number: int, width: int) -> None:
    attack = toy.attack(attack=number, evidence="edges")
    assert isinstance(attack, LinkSimilarity)
    answers, features = Random(0).normal((60, 3)).softmax(dim=1), Random(1).uniform((60, 24))
    assert attack._views(answers, features, toy.runtime).width == width


def test_the_shadow_is_trained_without_the_target_where_classes_are_known(toy: Trial) -> None:
    public = toy.dataset.split("public")
    target = toy.target()
    prepared = prepare(toy, target=target, attack=1)
    assert prepared is not None
    assert target.ledger.total == Spending()
    (answers,) = prepared.state["distances"]
    assert float((answers.argmax(dim=1) == public.labels).float().mean()) > 0.8
    unlabelled = replace(public, labels=None)  # type: ignore[type-var]
    asked = toy.target()
    other = prepare(toy, unlabelled, asked, attack=1)
    assert other is not None
    assert asked.ledger.total == Spending(queries=60)
    assert float((other.state["distances"][0].argmax(dim=1) == public.labels).float().mean()) > 0.8


def test_a_shadow_learns_from_some_nodes_of_each_class(toy: Trial) -> None:
    labels = torch.tensor([0] * 50 + [1] * 7 + [3])[Random(0).permutation(58)]
    rows = learned_from(labels, toy.runtime)
    assert labels[rows].bincount().tolist() == [20, 4, 0, 1]
    assert len(rows.unique()) == len(rows)


def test_what_an_attack_needs_is_said_before_it_asks(toy: Trial, edges: Edges) -> None:
    for number in (3, 4, 6, 7):
        with pytest.raises(ConfigError, match=f"attack {number} learns from known edges: --evidence edges"):
            toy.attack(attack=number)
    with pytest.raises(ConfigError, match="it is of attack 2, not 0: -p attack=2"):
        toy.attack(score="sum")
    with pytest.raises(ConfigError, match="it is of attack 0, not 3"):
        toy.attack(attack=3, evidence="edges", score="embeddings")
    target = toy.target()
    with pytest.raises(UsageError, match="attack 3 learns from known edges"):
        list(toy.attack(attack=3, evidence="edges").run(target, toy.cases, None, toy.runtime))
    for number in (1, 4, 5, 7):
        attack = toy.attack(attack=number, evidence="edges")
        with pytest.raises(DataError, match=f"attack {number} of link-similarity needs a public graph"):
            attack.prepare(target, None, toy.runtime)
        with pytest.raises(DataError, match=f"attack {number} of link-similarity was not prepared"):
            list(attack.run(target, edges.toy.cases, None, toy.runtime))
    bare = Graph(torch.zeros(3, 2), torch.empty(2, 0, dtype=torch.int64))
    with pytest.raises(DataError, match="that has edges and other pairs"):
        toy.attack(attack=1).prepare(target, NodeSplit(bare, torch.arange(3)), toy.runtime)
    assert target.ledger.total == Spending()


def test_a_budget_leaves_what_was_learned(edges: Edges) -> None:
    toy = edges.toy
    target, (item,) = toy.run(toy.attack(attack=3, batch_size=10), budget=35)
    assert target.ledger.total.queries == 30
    assert not item.complete
    assert toy.recovered([item]) > 0


@pytest.mark.parametrize("number", [6, 7])
def test_no_tensor_is_left_on_another_device(number: int, edges: Edges) -> None:
    """The conformance suite runs the attack's defaults alone, which learn nothing."""
    toy, expected = edges.toy, edges.found(number)
    toy.lab.bundle(toy.setting)  # trained outside, on the CPU
    with pretend_accelerator() as device:
        runtime = replace(toy.runtime, device=device)
        target = toy.lab.target(toy.setting, toy.spec.access, runtime=runtime)
        attack = toy.attack(attack=number)
        prepared = attack.prepare(target, toy.dataset.split("public"), runtime)
        found = list(attack.run(target, toy.cases, prepared, runtime))
    torch.testing.assert_close(found[0].samples.graphs[0].scores, expected[0].samples.graphs[0].scores)


def test_labels_alone_are_refused(toy: Trial) -> None:
    attack = toy.attack()
    assert isinstance(attack, LinkSimilarity)
    with pytest.raises(AccessDenied):
        list(attack.run(toy.target(access=Access.LABEL), toy.cases, None, toy.runtime))
