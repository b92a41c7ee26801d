"""The checks let good plugins pass and reject broken ones, each for its own reason."""

from __future__ import annotations

import pytest
from broken import attacks, commands, datasets, defenses, evaluators, modalities, models, sources, trackers
from good import CarefulEvaluator
from toy_plugins import KINDS, OPTIONS, good_registry, registry_with, spec

from micore.testing import checks_attack
from micore.testing.check import CHECKS, check_name, check_plugin, open_bench, run_check
from micore.testing.checks_plugin import CONFIG_CHECKS, PLUGIN_CHECKS, PRESET_CHECKS
from micore.testing.lab import Lab

MODULES = (attacks, commands, datasets, defenses, evaluators, modalities, models, sources, trackers)
BROKEN = [toy for module in MODULES for toy in module.broken]
SHARED = {check_name(check) for check in (*PLUGIN_CHECKS, *CONFIG_CHECKS, *PRESET_CHECKS)}
NEEDS_A_PACKAGE = {"plugin-imports-without-torch", "help-loads-no-torch"}  # see test_package.py


@pytest.mark.parametrize("kind", KINDS)
def test_good_toy_passes_everything(kind, lab):
    report = check_plugin(kind, "toy", registry=good_registry(), lab=lab, options=OPTIONS.get(kind))
    assert report.passed, report.text()
    skipped = {row.check for row in report.rows if row.status == "skipped"}
    assert skipped <= NEEDS_A_PACKAGE, report.text()


def test_an_evaluator_may_judge_with_several_models_and_find_nothing_in_noise(lab):
    registry = good_registry(evaluator=spec("evaluator", CarefulEvaluator, needs=("evaluator-models",)))
    report = check_plugin("evaluator", "toy", registry=registry, lab=lab)
    assert report.passed, report.text()


@pytest.mark.parametrize("toy", BROKEN, ids=lambda toy: toy.id)
def test_broken_toy_is_rejected(toy, lab, monkeypatch):
    monkeypatch.setattr(checks_attack, "SMOKE_SECONDS", 0.4 if toy.check == "smoke-is-quick" else 60)
    monkeypatch.setattr(checks_attack, "slowness", lambda: 1.0)
    registry = registry_with(toy.kind, toy.implementation, **toy.changes)
    lab = Lab(registry) if toy.kind == "modality" else lab
    name = toy.changes.get("name", "toy")
    bench = open_bench(registry.find(toy.kind, name), registry, lab, OPTIONS.get(toy.kind))
    row = run_check(next(check for check in CHECKS[toy.kind][1] if check_name(check) == toy.check), bench)
    assert row.status == "failed", row
    assert toy.says in (row.reason or ""), row


@pytest.mark.parametrize("kind", KINDS)
def test_every_check_has_a_broken_toy(kind):
    wanted = {check_name(check) for check in CHECKS[kind][1]} - SHARED - NEEDS_A_PACKAGE
    assert wanted == {toy.check for toy in BROKEN if toy.kind == kind} - SHARED


def test_every_shared_check_has_a_broken_toy():
    assert {toy.check for toy in BROKEN} >= SHARED - NEEDS_A_PACKAGE


def test_every_check_says_why_it_is_there():
    for _, checks in CHECKS.values():
        for check in checks:
            assert (check.__doc__ or "").strip(), check
