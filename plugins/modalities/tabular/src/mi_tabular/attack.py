"""The frame of attacks on a sensitive column: each row is asked about with each of its values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from mi_tabular.cases import ranked
from mi_tabular.evidence import KnownRow, known_of, stacked
from mi_tabular.schema import Schema
from mi_tabular.table import Table
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.kit.case_rows import tiled
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending

Ask = Callable[[Table], Tensor]


class AttributeAttack:
    """Base: asks about the rows of some cases at once, and ranks the values of each by itself.

    A subclass has a ``Config``, ``PRESETS``, `ask` and `ranking`.
    """

    Config: ClassVar[type[Config]]
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]]
    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, config: Any) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared | None:
        """Prepare nothing."""
        return None

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Rank the sensitive values of each case.

        Raises: BudgetExceeded, after the cases before were given back.
        """
        ask = self.ask(target)
        for group in groups(cases, runtime.tile):
            for case, answers in zip(group, asked(ask, group, target, runtime), strict=True):
                yield ranked(case, self.ranking(known_of(case), answers, prepared))

    def ask(self, target: Target) -> Ask:
        """Return what is asked of the target."""
        raise NotImplementedError

    def ranking(self, known: KnownRow, answers: Tensor, prepared: Prepared | None) -> Tensor:
        """Return how likely each value is, (values,), by the answers (values, ...) to the row with each of them."""
        raise NotImplementedError

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count nothing: how many values there are is not known before the data are."""
        return Forecast(preparation=Spending(), per_case=Spending())


def groups(cases: Sequence[Case], tile: int) -> Iterator[Sequence[Case]]:
    """Yield as many cases at once as their candidates fill a tile."""
    if not cases:
        return
    size = max(1, tile // len(known_of(cases[0]).schema.values))
    for start in range(0, len(cases), size):
        yield cases[start : start + size]


def asked(ask: Ask, cases: Sequence[Case], target: Target, runtime: Runtime) -> Tensor:
    """Ask about the row of each case with each sensitive value; return the answers (cases, values, ...), on the CPU."""
    schema = known_of(cases[0]).schema
    n_values = len(schema.values)
    rows = schema.candidates(stacked(cases)).flatten(0, 1)
    owners = [case.id for case in cases for _ in range(n_values)]
    answers = answered(ask, rows, schema, runtime, ledger=target.ledger, owners=owners)
    return answers.unflatten(0, (len(cases), n_values))


def answered(ask: Ask, rows: Tensor, schema: Schema, runtime: Runtime, **charged: Any) -> Tensor:
    """Return the answers to coded rows (N, width), (N, ...), on the CPU; charged: see `micore.kit.case_rows.tiled`."""
    return tiled(lambda batch: ask(Table(batch, schema)), runtime.tile, rows, **charged).cpu()
