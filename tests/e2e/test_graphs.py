"""Whole runs on graphs: from ``mi train`` to the report, with a defense and edges that the target never saw."""

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


def test_a_defended_target_answers_on_other_edges(place):
    path = place / "defended.safetensors"
    bundle = api.train(
        data="blocks", model="gcn", data_options=DATA, defenses=["lap-graph:epsilon=1"], output=path, device="cpu"
    )
    assert bundle.card.metrics["defenses"]["lap-graph"]["epsilon"] == 1
    run = api.attack("linkteller", model=path, output=place / "against", device="cpu")
    assert abs(figures(run, "auc-kept-removed")["attack"] - 0.5) < 0.15


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
