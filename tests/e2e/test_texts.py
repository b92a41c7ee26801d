"""Whole runs on texts: an encoder and a language model, from ``mi train`` to the report."""

from __future__ import annotations

import json

import pytest

from micore import api
from micore.artifacts import Bundle
from micore.errors import ConfigError, ModelError, UsageError
from micore.runs import Run
from tests.e2e.commands import call

SMALL = {"private": 12, "holdout": 12, "public": 120}
CORPUS = {"background": 60, "per_level": 2, "repeats": "1,16", "canaries": 1, "canary_repeats": "1,16", "public": 60}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("texts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MI_HOME", str(place / "home"))
        yield place


@pytest.fixture(scope="module")
def encoder(place):
    path = place / "minilm.safetensors"
    api.train(data="records", model="minilm", data_options=SMALL, output=path, device="cpu")
    return path


@pytest.fixture(scope="module")
def language_model(place):
    path = place / "gpt.safetensors"
    model = "small-gpt:width=32,layers=1,heads=2"
    training = {"epochs": 2, "augment": "none"}
    api.train(data="customers", model=model, data_options=CORPUS, training=training, output=path, device="cpu")
    return path


@pytest.fixture(scope="module")
def inversion(place, encoder):
    return api.attack("geia", model=encoder, preset="smoke", classes="0-5", output=place / "geia", device="cpu")


def figures(run, name):
    return {item.subject: item.value for item in run.measurements() if item.name == name}


def test_an_encoder_comes_trained_and_says_what_a_search_still_finds(encoder):
    card = Bundle.load(encoder).card
    assert card.role == "encoder"
    assert card.metrics["holdout_neighbour_overlap"] == 1
    assert card.input.shape != (40,)  # its own input, not the data's


def test_an_inversion_stands_beside_what_needs_no_inverter(inversion):
    assert figures(inversion, "token-f1").keys() == {"attack", "no-target", "nearest-public"}
    assert inversion.manifest["evidence"] == "embedding"
    assert not [item for item in inversion.measurements() if item.evaluator.startswith("accuracy")]


def test_observed_evidence_costs_the_adversary_nothing(inversion):
    """120 public texts and what the attack asks of its own: none of the private ones."""
    assert inversion.manifest["preparation"]["spending"]["queries"] == SMALL["public"]


def test_the_report_marks_what_was_recovered_and_shows_nothing_private_unasked(inversion, place, tmp_path):
    private = json.loads((inversion.directory / "run.json").read_text())["data"]["uri"]
    assert private == "records"
    for flags, shown in (((), False), (("--show-private",), True)):
        page = tmp_path / f"report{len(flags)}.html"
        assert call(place, "report", inversion.directory, "--html", page, *flags).exit_code == 0
        assert ("<mark>" in page.read_text()) == shown
    page = tmp_path / "redacted.html"
    call(place, "report", inversion.directory, "--html", page, "--redact")
    assert "mi-texts" not in page.read_text()


def test_previews_are_text_files(inversion):
    assert len(list((inversion.directory / "samples").glob("*.txt"))) == 6


def test_a_run_is_evaluated_again_with_the_same_evidence(inversion):
    before = figures(inversion, "token-f1")
    again = api.evaluate(inversion.directory, evaluators=["text-overlap"])
    assert figures(again, "token-f1") == before


def test_noise_reaches_the_evidence(place, encoder):
    path = place / "noisy.safetensors"
    api.defend(encoder, defenses=["embedding-noise"], output=path, device="cpu")
    assert Bundle.load(path).card.metrics["holdout_neighbour_overlap"] < 1
    run = api.attack("geia", model=path, preset="smoke", classes="0-1", output=place / "noisy", device="cpu")
    assert run.manifest["status"] == "finished"


def test_a_language_model_is_trained_and_measured_by_its_loss(language_model):
    card = Bundle.load(language_model).card
    assert card.role == "language-model"
    assert 0 < card.metrics["train_loss"] < 8
    assert "train_accuracy" not in card.metrics


def test_secrets_are_ranked_by_repetition_levels(place, language_model):
    run = api.attack(
        "canary-exposure", model=language_model, preset="smoke", options={"keep": None}, output=place / "canary",
        device="cpu",
    )  # fmt: skip
    assert figures(run, "exposure")["attack"] >= 0
    assert {"exposure-repeats-1", "exposure-repeats-16"} <= {item.name for item in run.measurements()}


@pytest.mark.parametrize(
    ("plugin", "evidence", "message"),
    [
        ("geia", None, "attacks encoder targets; this one is a language-model"),
        ("lm-extraction", "embedding", "evidence"),
    ],
)
def test_what_does_not_fit_is_refused_before_it_begins(place, language_model, plugin, evidence, message):
    with pytest.raises((ConfigError, ModelError, UsageError), match=message) as caught:
        api.attack(plugin, model=language_model, evidence=evidence, output=place / "refused", device="cpu")
    assert "\n" not in caught.value.message
    assert not (place / "refused").exists()


def test_a_defense_of_encoders_does_not_fit_a_language_model(language_model):
    with pytest.raises(UsageError, match="defends encoder and gnn targets; this one is a language-model"):
        api.defend(language_model, defenses=["embedding-noise"], device="cpu")


def test_a_run_that_a_budget_stops_goes_on(place, encoder):
    run = api.attack(
        "geia", model=encoder, preset="smoke", classes="0-1", budget_queries=40, output=place / "budget", device="cpu"
    )
    assert run.manifest["status"] == "budget"
    assert Run.open(place / "budget").manifest["ledger"]["total"]["queries"] <= 40
