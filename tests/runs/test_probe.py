"""A probe tries each phase for a while, and charges and keeps nothing."""

from __future__ import annotations

import time
from typing import Any

import pytest

from micore.contracts import Prepared
from micore.runs.plan import plan
from micore.runs.probe import Phase, probe
from micore.runs.session import open_session
from micore.threat import Budget
from tests import toys
from tests.toys import ScriptedAttack


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch, home: Any) -> dict[str, int]:
    """Let the scripted attack take its time; the steps of preparation and search can be set."""
    steps = {"prepare": 1000, "run": 1000}

    def work(runtime: Any, name: str, target: Any, samples: Any) -> None:
        with runtime.progress.track(name, steps[name]) as report:
            for step in range(steps[name]):
                time.sleep(0.002)
                target.scores(samples)
                report(step + 1)

    def prepare(self: Any, target: Any, public: Any, runtime: Any) -> Prepared:
        work(runtime, "prepare", target, public.take([0]))
        return Prepared(state={})

    def run(self: Any, target: Any, cases: Any, prepared: Any, runtime: Any) -> Any:
        work(runtime, "run", target, toys.open_toy(None, **toys.SMALL).split("public").take([0]))
        return iter(())

    monkeypatch.setattr(ScriptedAttack, "prepare", prepare)
    monkeypatch.setattr(ScriptedAttack, "run", run)
    return steps


def test_a_long_preparation_hides_the_search(slow, plugins, shared_target):
    session = open_session(plugins, toys.toy_request(shared_target))
    found = probe(session, 0.1)
    (phase,) = found.phases
    assert (phase.name, phase.steps) == ("prepare", 1000)
    assert 0 < phase.tried < 1000
    assert 1.5 < (phase.seconds or 0) < 60, "a thousand steps of two milliseconds and a query"
    assert not found.complete
    assert found.seconds is None
    assert (found.memory["process"] or 0) > 1e6


def test_a_short_preparation_shows_it(slow, plugins, shared_target, home):
    slow["prepare"] = 5
    session = open_session(plugins, toys.toy_request(shared_target, budget=Budget(queries=3)))
    found = probe(session, 0.1)
    assert [phase.name for phase in found.phases] == ["prepare", "run"]
    assert [phase.over for phase in found.phases] == [True, False]
    assert found.complete
    assert found.seconds == pytest.approx(sum(phase.seconds or 0 for phase in found.phases))
    assert session.target.ledger.budget.queries == 3, "the run's budget is as it was"
    assert not list(home.rglob("prepared.safetensors")), "nothing is kept"


def test_the_pace_is_that_after_the_first_report():
    assert Phase("x", 100).seconds is None
    assert Phase("x", 100, tried=1, elapsed=2.0, first=(1, 2.0)).seconds is None
    assert Phase("x", 100, tried=11, elapsed=3.0, first=(1, 2.0)).seconds == pytest.approx(2 + 0.1 * 99)
    assert Phase("x", 100, tried=100, elapsed=3.0, first=(1, 2.0), over=True).seconds == 3.0


def test_a_plan_has_the_phases(slow, plugins, shared_target):
    slow["prepare"], slow["run"] = 3, 4
    document = plan(plugins, toys.toy_request(shared_target), 0.5).to_dict()
    assert [(phase["name"], phase["steps"]) for phase in document["phases"]] == [("prepare", 3), ("run", 4)]
    assert document["seconds"] is not None
    assert document["memory_bytes"]["process"] > 1e6


def test_a_plan_without_a_probe(plugins, shared_target, home):
    document = plan(plugins, toys.toy_request(shared_target), 0).to_dict()
    assert document["phases"] is document["seconds"] is document["memory_bytes"] is None


def test_nobody_is_asked_elsewhere(plugins, home):
    request = toys.toy_request("oracle:1", attack="by-label", data=toys.DataRequest.parse("grids", toys.SMALL))
    found = plan(plugins, request)
    assert found.session.target.ledger.total.queries == 0
    document = found.to_dict()
    assert document["phases"] is None
    assert document["target_seconds"] is None
