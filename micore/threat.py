"""The threat model in numbers: what the adversary may do and what it has spent."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from micore.errors import BudgetExceeded, UsageError


class Access(IntEnum):
    """What the adversary sees of the target, from least to most."""

    LABEL = 1
    SCORES = 2
    WHITE_BOX = 3

    @property
    def label(self) -> str:
        """The name on the command line, such as ``white-box``."""
        return self.name.lower().replace("_", "-")

    @classmethod
    def parse(cls, text: str) -> Access:
        """Read a command-line name.

        Raises: UsageError for an unknown one.
        """
        by_label = {access.label: access for access in cls}
        if text not in by_label:
            raise UsageError(f"unknown access {text!r}", hint="one of " + ", ".join(by_label))
        return by_label[text]


@dataclass(slots=True)
class Spending:
    """Samples sent through the target: forward (``queries``) and backward (``gradients``)."""

    queries: int = 0
    gradients: int = 0

    def add(self, other: Spending) -> None:
        """Add another spending to this one."""
        self.queries += other.queries
        self.gradients += other.gradients

    def to_dict(self) -> dict[str, int]:
        """Return the JSON form."""
        return {"queries": self.queries, "gradients": self.gradients}

    @classmethod
    def from_dict(cls, data: Mapping[str, int]) -> Spending:
        """Read the JSON form."""
        return cls(queries=int(data["queries"]), gradients=int(data["gradients"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits of a run; None is no limit. Queries count samples, not batches."""

    queries: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("queries", self.queries), ("seconds", self.seconds)):
            if value is not None and value <= 0:
                raise UsageError(f"the budget of {name} must be positive, not {value}")

    def share(self, ranks: int, spent: int) -> Budget:
        """Return one rank's equal part of what is left of the queries."""
        if self.queries is None or ranks == 1:
            return self
        return Budget(queries=max(1, spent + (self.queries - spent) // ranks), seconds=self.seconds)


def _add(counts: dict[str, int], more: Mapping[str, int]) -> None:
    for name, count in more.items():
        counts[name] = counts.get(name, 0) + count


@dataclass(slots=True)
class Ledger:
    """Counts every sample that the adversary sends through the target, and stops at the budget.

    Inside ``with ledger.owned_by(case_ids)`` a batch is charged to these cases in equal shares
    (a batch has the same number of rows for every case); everything else, and what does not divide,
    is ``shared``: the cost of preparing the attack.
    """

    budget: Budget = field(default_factory=Budget)
    shared: Spending = field(default_factory=Spending)
    cases: dict[str, Spending] = field(default_factory=dict)
    used_access: Access | None = None
    shared_access: dict[str, int] = field(default_factory=dict)
    """Of the shared queries how many needed which access, by its label, where whoever charged them said so."""
    case_access: dict[str, dict[str, int]] = field(default_factory=dict)
    """The same of each case's queries."""
    _owners: Sequence[str] = ()
    _padding: int = 0
    _rows: int | None = None
    _total: Spending = field(default_factory=Spending)
    _started: float = field(default_factory=time.monotonic)

    @property
    def total(self) -> Spending:
        """What has been spent altogether."""
        return Spending(self._total.queries, self._total.gradients)

    @property
    def by_access(self) -> dict[str, int]:
        """Of all queries how many needed which access, by its label, where whoever charged them said so."""
        found: dict[str, int] = {}
        for part in (self.shared_access, *self.case_access.values()):
            _add(found, part)
        return found

    @contextmanager
    def owned_by(self, owners: Sequence[str], padding: int = 0, rows: int | None = None) -> Iterator[None]:
        """Charge what is spent inside to these cases.

        Every batch has the same number of rows for each entry of ``owners`` (a case may stand more
        than once); ``padding`` of its rows only fill it up to a fixed size and are not counted. With
        ``rows`` a batch is one or more passes (views) over so many rows, each with this padding.
        """
        before = self._owners, self._padding, self._rows
        self._owners, self._padding, self._rows = tuple(owners), padding, rows
        try:
            yield
        finally:
            self._owners, self._padding, self._rows = before

    def is_real(self, samples: int) -> list[bool]:
        """Tell which rows of a batch are asked for, and do not only fill it up: padding ends each of its passes."""
        rows = samples if self._rows is None else self._rows
        return [index % rows < rows - min(rows, self._padding) for index in range(samples)]

    def note_access(self, access: Access) -> None:
        """Record the highest access that was really used."""
        self.used_access = access if self.used_access is None else max(self.used_access, access)

    def note_by_access(self, earlier: Mapping[str, int], case_id: str | None = None) -> None:
        """Add what queries that are charged already needed, by the label of the access; of a case, or shared."""
        if earlier:
            _add(self.shared_access if case_id is None else self.case_access.setdefault(case_id, {}), earlier)

    def charge(self, *, queries: int = 0, gradients: int = 0, access: Access | None = None) -> None:
        """Count a batch of samples, before it is sent. access: what the queries need.

        Raises: BudgetExceeded if it does not fit in the budget; then nothing is counted.
        """
        spent = Spending(queries - self._padding_of(queries), gradients - self._padding_of(gradients))
        self._check(spent.queries)
        self._total.add(spent)
        n_owners = len(self._owners) or 1
        each = Spending(spent.queries // n_owners, spent.gradients // n_owners) if self._owners else Spending()
        left = Spending(spent.queries - each.queries * n_owners, spent.gradients - each.gradients * n_owners)
        for case_id in self._owners:
            self.cases.setdefault(case_id, Spending()).add(each)
            if access is not None and each.queries:
                self.note_by_access({access.label: each.queries}, case_id)
        self.shared.add(left)
        if access is not None and left.queries:
            self.note_by_access({access.label: left.queries})

    def _padding_of(self, samples: int) -> int:
        """Return how many samples of a batch only fill it up."""
        passes = 1 if self._rows is None else samples // self._rows
        return min(samples, self._padding * passes)

    def _check(self, queries: int) -> None:
        limit, seconds = self.budget.queries, self.budget.seconds
        if queries and limit is not None and self._total.queries + queries > limit:
            raise BudgetExceeded(
                f"{queries} more queries would exceed the budget: {self._total.queries} of {limit} are spent",
                hint="raise --budget-queries, then `mi resume` continues",
            )
        if seconds is not None and time.monotonic() - self._started > seconds:
            raise BudgetExceeded(
                f"the time budget of {seconds:g} s is spent",
                hint="raise --budget-seconds, then `mi resume` continues",
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "shared": self.shared.to_dict(),
            "cases": {case_id: spending.to_dict() for case_id, spending in self.cases.items()},
            "total": self.total.to_dict(),
            "used_access": self.used_access.label if self.used_access is not None else None,
            "by_access": self.by_access,
        }

    def restore(self, data: Mapping[str, Any]) -> None:
        """Take over what an earlier part of the same run spent."""
        spendings = [(self.shared, data["shared"])]
        spendings += [(self.cases.setdefault(name, Spending()), spent) for name, spent in data["cases"].items()]
        for own, earlier in spendings:
            own.add(Spending.from_dict(earlier))
            self._total.add(Spending.from_dict(earlier))
        self.note_by_access(data.get("by_access", {}))
        if data.get("used_access"):
            self.note_access(Access.parse(data["used_access"]))
