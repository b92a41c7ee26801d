"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import ANY, DefenseSpec


@hookimpl
def mi_defenses() -> Iterable[DefenseSpec]:
    """Describe the defense."""
    return [
        DefenseSpec(
            name="query-monitor",
            target="mi_defense_query_monitor.defense:QueryMonitor",
            summary="Watch windows of queries for the marks of a search; changes no answer",
            paper="after PRADA (Juuti et al., EuroS&P 2019) and Blacklight (Li et al., USENIX Security 2022)",
            modality=ANY,
            stages=("monitoring",),
        )
    ]
