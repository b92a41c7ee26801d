"""Reports of checks, known failures, and the toy problem itself."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from broken.models import fails_anyhow
from good import GoodAttack
from toy_plugins import good_registry, spec

from micore.contracts import Prepared
from micore.errors import AccessDenied, BudgetExceeded, PluginError, UnknownNameError
from micore.kit.features import features_and_logits
from micore.registry import Registry
from micore.testing.check import check_plugin, parametrize_checks
from micore.testing.counting import counted
from micore.testing.lab import toy_target
from micore.testing.report import CheckSkipped, run_checks
from micore.testing.toys import toy_setting
from micore.threat import Access, Budget

BAD = "bad-sizes-are-refused"


def broken_report(lab, **options):
    registry = good_registry(model=spec("model", fails_anyhow))
    return check_plugin("model", "toy", registry=registry, lab=lab, **options)


def test_report_as_text_and_json(lab):
    report = broken_report(lab)
    assert not report.passed
    assert [row.check for row in report.failed] == [BAD]
    assert f"failed  {BAD}" in report.text()
    document = json.loads(json.dumps(report.to_dict()))
    assert document["schema"] == "micore.check/1"
    assert document["passed"] is False
    assert {row["status"] for row in document["checks"]} == {"passed", "failed", "skipped"}


def test_known_failure_is_skipped(lab):
    report = broken_report(lab, expected_failures={BAD: "issue 7"})
    assert report.passed
    assert any(row.reason == "known: issue 7" for row in report.rows)


def test_known_failure_that_passes_is_an_error(lab):
    report = broken_report(lab, expected_failures={BAD: "issue 7", "gradients-flow": "issue 8"})
    assert [row.reason for row in report.failed] == ["passes, but: issue 8"]


def test_unknown_check_and_unknown_plugin_are_errors(lab):
    with pytest.raises(PluginError, match="no-such-check"):
        broken_report(lab, expected_failures={"no-such-check": ""})
    with pytest.raises(UnknownNameError):
        check_plugin("model", "nobody", registry=good_registry())


def test_an_error_in_a_check_is_a_failure_and_stops_nothing():
    def explodes(bench):
        """Explode."""
        raise RuntimeError("two\nlines")

    def skips(bench):
        """Skip."""
        raise CheckSkipped("not today")

    rows = run_checks([explodes, skips], None)
    assert [(row.status, row.reason) for row in rows] == [
        ("failed", "RuntimeError: two lines"),
        ("skipped", "not today"),
    ]


def test_parametrize_checks_marks_and_skips():
    mark = parametrize_checks(good_registry(), slow={("attack", "toy")})
    marks = {parameter.id: [mark.name for mark in parameter.marks] for parameter in mark.args[1]}
    assert marks["attack-toy"] == ["slow"]
    assert marks["model-toy"] == []
    (none,) = parametrize_checks(Registry(), kind="command").args[1]
    assert none.marks[0].name == "skip"


# the toy problem


def test_toy_is_the_same_every_time():
    assert toy_setting().dataset.fingerprint == toy_setting().dataset.fingerprint
    assert toy_setting(seed=1).dataset.fingerprint != toy_setting().dataset.fingerprint
    one, two = (toy_target().module.inner.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(("size", "n_classes"), [(8, 4), (16, 4), (16, 3)])
def test_toy_target_knows_its_classes(size, n_classes):
    target = toy_target(size=size, n_classes=n_classes)
    split = toy_setting(size=size, n_classes=n_classes).dataset.split("holdout")
    assert (target.labels(split.samples) == split.labels).double().mean() > 0.95


def test_toy_target_keeps_to_its_threat_model():
    samples = toy_setting().dataset.split("holdout").samples
    target = toy_target(access=Access.LABEL, budget=Budget(queries=len(samples)))
    target.labels(samples)
    with pytest.raises(AccessDenied):
        target.scores(samples)
    with pytest.raises(BudgetExceeded):
        target.labels(samples[:1])


@pytest.mark.parametrize("part", [0, 1])
def test_gradients_are_counted_through_features_and_logits(part):
    """A loss on features alone passes no logits, and costs the same."""
    target, samples = toy_target(), torch.rand(5, 1, 8, 8, requires_grad=True)
    for _ in range(2):
        with counted(target.module.inner) as counts:
            before = target.ledger.total.gradients
            torch.autograd.grad(features_and_logits(target.module, samples)[part].sum(), samples)
        assert counts.gradients == target.ledger.total.gradients - before == 5


def test_gradients_of_parameters_are_counted():
    target = toy_target()
    weight = next(target.module.inner.parameters()).requires_grad_(True)
    torch.autograd.grad(target.module(torch.rand(3, 1, 8, 8)).sum(), weight)
    assert target.ledger.total.gradients == 3


def test_an_attack_without_randomness_need_not_depend_on_the_seed(lab):
    registry = good_registry(attack=spec("attack", Deterministic))
    report = check_plugin("attack", "toy", registry=registry, lab=lab)
    assert report.passed, report.text()
    assert "draws no random numbers" in report.text()


class Deterministic(GoodAttack):
    """Start from the mean of all public data; no paper, it is a toy."""

    def prepare(self, target, public, runtime):
        return Prepared(state={"mean": public.take(range(len(public))).mean(dim=0)})

    def run(self, target, cases, prepared, runtime):
        for case in cases:
            with target.ledger.owned_by([case.id]):
                mean = prepared.state["mean"].to(runtime.device)
                found = self.search(target, case, mean, runtime)
            yield replace(found, latents=found.samples - mean)

    def start(self, case, prior, runtime):
        return prior.expand(self.config.restarts, -1, -1, -1)
