"""Preparations are made once, under a key of all they depend on, and always paid for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from micore.artifacts import load_state
from micore.contracts import Prepared
from micore.errors import BudgetExceeded
from micore.home import cache
from micore.runs.preparation import SpendingCheckpoints, prepare, public_split
from micore.runs.session import open_session
from micore.runtime import Checkpoints
from micore.threat import Access, Budget, Ledger, Spending
from tests import toys
from tests.toys import ScriptedAttack

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def opened(plugins, shared_target):
    """Open a session: ``opened(**changes of the request)``."""

    def session(**changes):
        return open_session(
            changes.pop("registry", plugins), toys.toy_request(changes.pop("model", shared_target), **changes)
        )

    return session


def prepared(session):
    return prepare(session.attack, session.target, session.public, session.runtime, session.preparation_key)


def test_a_preparation_is_made_once_and_charged_every_time(opened, monkeypatch):
    first = opened()
    made = prepared(first)
    assert (made.cached, made.spending) == (False, {"queries": 5, "gradients": 0})
    monkeypatch.setattr(ScriptedAttack, "prepare", lambda *_: pytest.fail("must come from the cache"))
    second = opened()
    found = prepared(second)
    assert (found.cached, found.spending, found.seconds) == (True, made.spending, made.seconds)
    assert torch.equal(found.prepared.state["mean"], made.prepared.state["mean"])
    assert first.target.ledger.to_dict() == second.target.ledger.to_dict()
    assert second.target.ledger.used_access is Access.WHITE_BOX


def test_a_cached_preparation_that_is_too_dear_is_refused(opened):
    prepared(opened())
    with pytest.raises(BudgetExceeded):
        prepared(opened(budget=Budget(queries=4)))


def test_an_attack_that_prepares_nothing_is_cached_too(opened):
    assert prepared(opened(attack="by-label")).prepared is None
    again = prepared(opened(attack="by-label"))
    assert again.cached
    assert again.prepared is None


def test_the_key_depends_on_what_the_preparation_depends_on(opened, plugins, tmp_path):
    base = opened().preparation_key
    other = tmp_path / "other.safetensors"
    toys.toy_bundle(plugins, seed=1).save(other)
    newer = toys.registry()
    newer._records = [replace(record, version="9") for record in newer._records]
    keys = {
        "field": opened(options={"prepare_queries": 6}).preparation_key,
        "seed": opened(seed=1).preparation_key,
        "precision": opened(precision="bf16").preparation_key,
        "target": opened(model=other).preparation_key,
        "access": opened(attack="by-label", access=Access.SCORES).preparation_key,
        "least access": opened(attack="by-label").preparation_key,
        "version": opened(registry=newer).preparation_key,
    }
    assert len({base, *keys.values()}) == len(keys) + 1
    assert opened(options={"steps": 7, "restarts": 3}).preparation_key == base, "these are no fields of it"
    assert opened(choice="0,1", batch=1, budget=Budget(queries=99)).preparation_key == base


def test_the_key_depends_on_the_public_data(opened):
    from micore.data import DataRequest

    plain = opened(attack="by-label", data=DataRequest.parse("grids", toys.SMALL))
    without = opened(attack="by-label", data=DataRequest.parse("bare:public", toys.SMALL))
    assert without.public is None
    assert without.preparation_key != plain.preparation_key


def test_a_killed_preparation_goes_on_with_its_spending(opened, monkeypatch):
    whole = prepared(opened(options={"prepare_queries": 4}))
    (cache() / "prepared").rename(cache() / "elsewhere")
    steps: list[int] = []

    def killing(self, step):
        steps.append(step)
        if step == 2 and len(steps) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(ScriptedAttack, "before_prepare_step", killing)
    stopped = opened(options={"prepare_queries": 4})
    frequent = replace(stopped.runtime, checkpoints=Checkpoints(interval_s=0))
    with pytest.raises(KeyboardInterrupt):
        prepared(replace(stopped, runtime=frequent))
    going_on = opened(options={"prepare_queries": 4})
    found = prepared(going_on)
    assert steps == [0, 1, 2, 2, 3]
    assert torch.equal(found.prepared.state["mean"], whole.prepared.state["mean"])
    assert found.spending == whole.spending
    assert going_on.target.ledger.total == Spending(4, 0)
    assert [path.name for path in (cache() / "prepared").rglob("*.safetensors")] == ["prepared.safetensors"]


def test_spending_checkpoints(tmp_path):
    ledger = Ledger()
    ledger.charge(queries=3)
    checkpoints = SpendingCheckpoints(tmp_path / "c", ledger, 0)
    assert checkpoints.load() is None
    checkpoints.offer(lambda: {"x": 1})
    other = Ledger()
    going_on = SpendingCheckpoints(tmp_path / "c", other)
    for _ in range(2):  # an attack that looks twice has not spent twice
        assert going_on.load() == {"x": 1}
        assert other.to_dict() == ledger.to_dict()
    assert checkpoints.load() == {"x": 1}
    assert ledger.total == Spending(3, 0), "one's own spending is not taken over"
    assert load_state(tmp_path / "c")[0].keys() == {"state", "ledger", "seconds"}


def test_a_preparation_of_an_older_release_is_still_read(opened):
    from micore.artifacts import save_state

    session = opened()
    path = cache() / "prepared" / session.preparation_key / "prepared.safetensors"
    save_state(path, {"prepared": {}}, {"seconds": 1, "spending": {"queries": 2, "gradients": 0}})
    found = prepared(session)
    assert found.prepared == Prepared(state={})
    assert session.target.ledger.used_access is None


def test_public_data_may_be_missing(plugins):
    assert len(public_split(toys.open_bare("holdout", **toys.SMALL))) == 96
    assert public_split(toys.open_bare("public", **toys.SMALL)) is None
