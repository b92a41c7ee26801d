"""Whole runs on graphs: from ``mi train`` to the report, with a defense and edges that the target never saw.

On one private graph, then on many.
"""

from __future__ import annotations

import pytest

from micore import api
from micore.artifacts import Bundle
from micore.errors import AccessDenied, ConfigError, ModelError, UsageError
from tests.e2e.commands import call

DATA = {"nodes": 120, "kept": 0.6}
FLOORS = {"feature-cosine", "node-index", "degree-product"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("graphs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MI_HOME", str(place / "home"))
        yield place


@pytest.fixture(scope="module")
def target(place):
    path = place / "gcn.safetensors"
    api.train(data="blocks", model="gcn", data_options=DATA, output=path, device="cpu")
    return path


@pytest.fixture(scope="module")
def links(place, target):
    return api.attack("link-similarity", model=target, output=place / "links", device="cpu")


def figures(run, name):
    return {item.subject: item.value for item in run.measurements() if item.name == name}


def test_a_graph_network_is_trained_as_it_says_itself(target):
    card = Bundle.load(target).card
    assert (card.role, card.training["epochs"], card.training["augment"]) == ("gnn", 200, "none")
    assert card.metrics["holdout_accuracy"] > 0.8


def test_an_attack_stands_beside_what_the_same_knowledge_gives(links):
    auc, gain = figures(links, "auc"), figures(links, "gain")
    assert auc.keys() == {"attack", *FLOORS}
    assert gain["attack"] == pytest.approx(auc["attack"] - auc["feature-cosine"])
    assert gain["attack"] > 0.05
    assert links.manifest["cases"][0]["spending"]["queries"] == 120


def test_edges_that_the_target_has_are_told_from_those_it_never_saw(links):
    told = figures(links, "auc-kept-removed")
    assert told["attack"] > 0.55
    assert abs(told["feature-cosine"] - 0.5) < 0.15


def test_the_report_draws_right_missed_and_false_edges(links, place):
    page = place / "report.html"
    assert call(place, "report", links.directory, "--html", page, "--show-private").exit_code == 0
    text = page.read_text()
    assert "<svg" in text
    assert all(f"> {kind} <" in text for kind in ("right", "missed", "false"))
    assert len(list((links.directory / "samples").glob("*.svg"))) == 1


def test_labels_as_evidence_bring_their_floors(place, target):
    run = api.attack("graphmi", model=target, preset="smoke", output=place / "graphmi", device="cpu")
    assert figures(run, "auc").keys() == {"attack", *FLOORS, "same-label", "cosine-and-label"}
    assert run.manifest["evidence"] == "labels"


def test_known_edges_bring_their_floors_and_are_not_judged(place, target):
    run = api.attack(
        "link-similarity", model=target, evidence="edges", options={"attack": 7}, output=place / "known", device="cpu"
    )
    auc, gain = figures(run, "auc"), figures(run, "gain")
    learned = {"common-neighbours", "feature-links", "neighbour-links"}
    assert auc.keys() == {"attack", *FLOORS, *learned}
    best = max(auc[name] for name in ("feature-cosine", *learned))
    assert gain["attack"] == pytest.approx(auc["attack"] - best)
    assert gain["attack"] > 0
    assert run.manifest["evidence"] == "edges"
    assert run.manifest["cases"][0]["spending"]["queries"] == 120
    notes = next(item.notes for item in run.measurements() if item.name == "auc")
    assert any("known edges are left out" in note for note in notes)
    assert call(place, "evaluate", run.directory, "-e", "edges").exit_code == 0
    assert figures(run, "auc") == auc


@pytest.mark.parametrize("name", ["lap-graph", "gap"])
def test_a_defended_target_answers_on_other_edges(place, name):
    path = place / f"{name}.safetensors"
    bundle = api.train(
        data="blocks", model="gcn", data_options=DATA, defenses=[f"{name}:epsilon=1"], output=path, device="cpu"
    )
    assert bundle.card.metrics["defenses"][name]["epsilon"] == pytest.approx(1)
    run = api.attack("linkteller", model=path, output=place / f"against-{name}", device="cpu")
    assert abs(figures(run, "auc-kept-removed")["attack"] - 0.5) < 0.15


def test_a_target_that_looks_at_no_edge_is_attacked_by_all_means(place):
    path = place / "perceptron.safetensors"
    api.train(data="blocks", model="gcn", data_options=DATA, defenses=["gap:hops=0"], output=path, device="cpu")
    run = api.attack(
        "link-similarity", model=path, options={"score": "embeddings"}, output=place / "blind", device="cpu"
    )
    assert abs(figures(run, "auc-kept-removed")["attack"] - 0.5) < 0.15
    with pytest.raises(ModelError, match="no graph convolutions"):
        api.attack("graphmi", model=path, output=place / "none", device="cpu")


def test_a_gradient_of_single_nodes_is_refused_with_what_protects_edges(place):
    with pytest.raises(UsageError, match="this one is a gnn") as caught:
        api.train(data="blocks", model="gcn", data_options=DATA, defenses=["dp-sgd"], output=place / "x", device="cpu")
    assert {"edge-rand", "gap", "lap-graph"} <= set(caught.value.hint.removeprefix("of a gnn: ").split(", "))


def test_what_does_not_fit_is_refused(place, target):
    with pytest.raises(AccessDenied):
        api.attack("link-similarity", model=target, access="label", output=place / "denied", device="cpu")
    with pytest.raises(ConfigError, match="attack 3 learns from known edges: --evidence edges"):
        api.attack("link-similarity", model=target, options={"attack": 3}, output=place / "without", device="cpu")
    with pytest.raises(ConfigError, match="option 'evidence'"):
        api.attack("linkteller", model=target, evidence="edges", output=place / "unused", device="cpu")
    with pytest.raises(UsageError, match="there is one private graph"):
        api.attack("link-similarity", model=target, classes="3", output=place / "choice", device="cpu")
    with pytest.raises(ModelError, match="is for modality image"):
        api.attack("plmi", model=target, output=place / "other", device="cpu")


# many private graphs ----------------------------------------------------------------------------------------------

WHOLE_FLOORS = {"erdos-renyi", "random-public", "public-of-size", "mean-embedding"}


@pytest.fixture(scope="module")
def classifier(place):
    path = place / "gin.safetensors"
    api.train(data="motifs", model="gin", output=path, device="cpu")
    return path


@pytest.fixture(scope="module")
def whole(place, classifier):
    return api.attack("embedding-to-graph", model=classifier, output=place / "whole", device="cpu")


def test_a_network_learns_to_tell_graphs_apart(classifier):
    card = Bundle.load(classifier).card
    assert card.input.options == {"task": "graph"}
    assert card.metrics["holdout_accuracy"] > 0.65


def test_whole_graphs_stand_beside_public_ones(whole):
    for name, margin in (("degree-cosine", 0.04), ("wl-kernel", 0.01)):
        found = figures(whole, name)
        assert found.keys() == {"attack", *WHOLE_FLOORS}
        assert found["attack"] > max(found[floor] for floor in WHOLE_FLOORS) + margin
    error = figures(whole, "edge-count-error")
    assert error["attack"] < 0.5 * min(error[floor] for floor in WHOLE_FLOORS)
    assert whole.manifest["evidence"] == "size"


def test_each_private_graph_costs_one_query_and_each_public_one_as_well(whole):
    cases = whole.manifest["cases"]
    assert len(cases) == 50
    assert {case["spending"]["queries"] for case in cases} == {1}
    assert whole.manifest["ledger"]["total"]["queries"] == 50 + 120


def test_the_report_shows_private_and_recovered_graphs(whole, place):
    page = place / "whole.html"
    assert call(place, "report", whole.directory, "--html", page, "--show-private").exit_code == 0
    text = page.read_text()
    assert "<svg" in text
    assert "> missed <" not in text
    assert "same_edges" in text
    assert len(list((whole.directory / "samples").glob("*.svg"))) == 50


def test_the_authors_way_runs_on_chosen_graphs(place, classifier):
    options = {"graph_steps": 40, "matchings": 1}
    run = api.attack(
        "embedding-to-graph", model=classifier, preset="paper", options=options, classes="3,7-8",
        output=place / "paper", device="cpu",
    )  # fmt: skip
    assert [case["id"] for case in run.manifest["cases"]] == ["graph-3", "graph-7", "graph-8"]


def test_what_does_not_fit_many_graphs_is_refused(place, classifier):
    with pytest.raises(UsageError, match="not the 'features' are known, but their size"):
        api.attack("link-similarity", model=classifier, output=place / "no", device="cpu")
    with pytest.raises(UsageError, match="on 120 private samples"):
        api.attack("embedding-to-graph", model=classifier, classes="120", output=place / "no", device="cpu")
    with pytest.raises(AccessDenied):
        api.attack("embedding-to-graph", model=classifier, access="label", output=place / "no", device="cpu")
    with pytest.raises(ModelError, match="this network classifies many"):
        api.train(data="motifs", model="gcn", defenses=["edge-rand"], output=place / "no.safetensors", device="cpu")
    assert not (place / "no").exists()
