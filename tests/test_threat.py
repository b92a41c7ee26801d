"""The ledger adds up, is never overspent, and charges what was sent to whom it was sent for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from micore import threat
from micore.errors import BudgetExceeded, UsageError
from micore.threat import Access, Budget, Ledger, Spending

CASES = ("a", "b", "c")
ORDERS = st.lists(
    st.tuples(
        st.lists(st.sampled_from(CASES), max_size=4),
        st.integers(0, 40),
        st.integers(0, 40),
        st.integers(0, 5),
    ),
    max_size=20,
)


def total_of_parts(ledger: Ledger) -> Spending:
    """Add shared and cases."""
    parts = [ledger.shared, *ledger.cases.values()]
    return Spending(sum(part.queries for part in parts), sum(part.gradients for part in parts))


@given(orders=ORDERS, limit=st.one_of(st.none(), st.integers(1, 200)))
def test_parts_add_up_and_the_budget_holds(orders, limit):
    ledger = Ledger(budget=Budget(queries=limit))
    sent = Spending()
    for owners, queries, gradients, padding in orders:
        real = max(0, queries - padding)
        fits = limit is None or not real or sent.queries + real <= limit
        with ledger.owned_by(owners, padding):
            if fits:
                ledger.charge(queries=queries, gradients=gradients)
                sent.add(Spending(real, max(0, gradients - padding)))
            else:
                with pytest.raises(BudgetExceeded):
                    ledger.charge(queries=queries, gradients=gradients)
    assert ledger.total == total_of_parts(ledger) == sent
    assert limit is None or ledger.total.queries <= limit


@given(orders=ORDERS)
def test_restoring_gives_the_same_ledger(orders):
    ledger = Ledger()
    for owners, queries, gradients, padding in orders:
        with ledger.owned_by(owners, padding):
            ledger.charge(queries=queries, gradients=gradients)
    ledger.note_access(Access.SCORES)
    other = Ledger()
    other.restore(ledger.to_dict())
    assert other.to_dict() == ledger.to_dict()
    other.restore({**ledger.to_dict(), "used_access": None})
    assert other.used_access is Access.SCORES
    assert other.total.queries == 2 * ledger.total.queries


@given(queries=st.integers(1, 1000), spent=st.integers(0, 1200), ranks=st.integers(1, 9))
def test_ranks_together_spend_no_more_than_is_left(queries, spent, ranks):
    share = Budget(queries=queries, seconds=3.0).share(ranks, spent)
    assert share.seconds == 3.0
    each = max(0, share.queries - spent)
    fewer_than_ranks = spent == 0 and queries < ranks  # a budget is never 0: then each may ask once
    assert each * ranks <= (ranks if fewer_than_ranks else max(0, queries - spent))
    assert ranks > 1 or share.queries == queries


def test_a_share_without_a_limit_is_no_limit():
    assert Budget().share(4, 10) == Budget()


def test_owners_get_equal_shares_and_the_rest_is_shared():
    ledger = Ledger()
    with ledger.owned_by(["a", "b", "a"]):
        ledger.charge(queries=7, gradients=3)
    assert ledger.cases == {"a": Spending(4, 2), "b": Spending(2, 1)}
    assert ledger.shared == Spending(1, 0)


def test_padding_is_not_counted():
    ledger = Ledger()
    with ledger.owned_by(["a", "b"], padding=2):
        ledger.charge(queries=6)
        ledger.charge(gradients=1)
    assert ledger.cases == {"a": Spending(2, 0), "b": Spending(2, 0)}
    assert ledger.total == Spending(4, 0)


def test_nested_owners_are_restored_even_after_an_error():
    ledger = Ledger()
    with ledger.owned_by(["a"], padding=1):
        with pytest.raises(ValueError, match="inside"), ledger.owned_by(["b"]):  # noqa: PT012
            ledger.charge(queries=1)
            raise ValueError("inside")
        ledger.charge(queries=3)
    ledger.charge(queries=5)
    assert ledger.cases == {"a": Spending(2, 0), "b": Spending(1, 0)}
    assert ledger.shared == Spending(5, 0)


def test_gradients_are_not_limited_by_the_query_budget():
    ledger = Ledger(budget=Budget(queries=2))
    ledger.charge(queries=2, gradients=50)
    ledger.charge(gradients=50)
    assert ledger.total == Spending(2, 100)


def test_the_time_budget_stops_forward_and_backward(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(threat, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    ledger = Ledger(budget=Budget(seconds=5), _started=100.0)
    ledger.charge(queries=1, gradients=1)
    clock[0] = 105.5
    for spending in ({"queries": 1}, {"gradients": 1}):
        with pytest.raises(BudgetExceeded, match="time budget of 5 s") as caught:
            ledger.charge(**spending)
        assert "--budget-seconds" in caught.value.hint
    assert ledger.total == Spending(1, 1)


@pytest.mark.parametrize("limits", [{"queries": 0}, {"queries": -1}, {"seconds": 0}])
def test_a_budget_is_positive(limits):
    with pytest.raises(UsageError, match="must be positive"):
        Budget(**limits)


def test_the_total_is_a_copy():
    ledger = Ledger()
    ledger.total.add(Spending(9, 9))
    assert ledger.total == Spending()


def test_used_access_is_the_highest():
    ledger = Ledger()
    assert ledger.to_dict()["used_access"] is None
    for access in (Access.LABEL, Access.WHITE_BOX, Access.SCORES):
        ledger.note_access(access)
    assert ledger.used_access is Access.WHITE_BOX
    assert ledger.to_dict()["used_access"] == "white-box"


def test_queries_are_told_apart_by_the_access_that_they_need():
    ledger = Ledger(budget=Budget(queries=20))
    with ledger.owned_by(["a", "b"], padding=2):
        ledger.charge(queries=6, access=Access.SCORES)
    ledger.charge(queries=3, access=Access.WHITE_BOX)
    ledger.charge(gradients=9, access=Access.WHITE_BOX)
    ledger.charge(queries=1)
    with pytest.raises(BudgetExceeded):
        ledger.charge(queries=99, access=Access.LABEL)
    assert ledger.by_access == {"scores": 4, "white-box": 3}
    other = Ledger()
    other.restore({**ledger.to_dict(), "used_access": None})
    assert other.by_access == ledger.by_access
    assert other.total == ledger.total


def test_access_names():
    assert [Access.parse(access.label) for access in Access] == list(Access)
    assert Access.LABEL < Access.SCORES < Access.WHITE_BOX
    with pytest.raises(UsageError, match="unknown access 'root'") as caught:
        Access.parse("root")
    assert "white-box" in caught.value.hint
