"""Checking one plugin: the same checks for the command line, for pytest and for plugin authors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from micore.configs import make_config
from micore.errors import PluginError
from micore.registry import Entry, Registry
from micore.testing.attack_bench import AttackBench
from micore.testing.bench import Bench
from micore.testing.checks_attack import ATTACK_CHECKS
from micore.testing.checks_command import COMMAND_CHECKS, CommandBench
from micore.testing.checks_dataset import DATASET_CHECKS, DatasetBench
from micore.testing.checks_defense import DEFENSE_CHECKS, DefenseBench
from micore.testing.checks_evaluator import EVALUATOR_CHECKS, EvaluatorBench
from micore.testing.checks_modality import MODALITY_CHECKS, ModalityBench
from micore.testing.checks_model import MODEL_CHECKS, ModelBench
from micore.testing.checks_source import SOURCE_CHECKS, SourceBench
from micore.testing.checks_tracker import TRACKER_CHECKS, TrackerBench
from micore.testing.lab import Lab
from micore.testing.report import Check, CheckReport, CheckRow, check_name, run_check, run_checks

CHECKS: Mapping[str, tuple[type[Bench], tuple[Check, ...]]] = {
    "modality": (ModalityBench, MODALITY_CHECKS),
    "dataset": (DatasetBench, DATASET_CHECKS),
    "model": (ModelBench, MODEL_CHECKS),
    "attack": (AttackBench, ATTACK_CHECKS),
    "defense": (DefenseBench, DEFENSE_CHECKS),
    "evaluator": (EvaluatorBench, EVALUATOR_CHECKS),
    "source": (SourceBench, SOURCE_CHECKS),
    "tracker": (TrackerBench, TRACKER_CHECKS),
    "command": (CommandBench, COMMAND_CHECKS),
}
"""For each kind, what its checks work with, and the checks in the order in which they run."""


def open_bench(
    entry: Entry, registry: Registry, lab: Lab | None = None, options: Mapping[str, Any] | None = None
) -> Bench:
    """Return what the checks of this plugin work with."""
    kind, _ = CHECKS[entry.spec.kind]
    return kind(registry, entry, lab or Lab(registry), options)


def check_plugin(
    kind: str,
    name: str,
    *,
    registry: Registry | None = None,
    lab: Lab | None = None,
    options: Mapping[str, Any] | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> CheckReport:
    """Check that a plugin keeps its contract.

    lab: shares trained toy targets with the checks of other plugins. options: config values of the
    plugin; for a data set its options, with its ``location``; for a source likewise, with the ``data`` that the target
    is meant for. expected_failures: a reason for each
    check whose failure is known; such a row is skipped, or fails when the check passes after all.

    Raises: UnknownNameError, NameClashError; PluginError when it cannot be loaded; ConfigError.
    """
    registry = registry or Registry.discover()
    entry = registry.find(kind, name)
    implementation = registry.load(entry)
    if options and hasattr(implementation, "Config"):
        make_config(implementation.Config, options, f"{kind} {name!r}")
    rows = run_checks(CHECKS[kind][1], open_bench(entry, registry, lab, options))
    expected = expected_failures or {}
    unknown = expected.keys() - {row.check for row in rows}
    if unknown:
        raise PluginError(f"expected failures of unknown checks: {', '.join(sorted(unknown))}")
    judged = tuple(expect_failure(row, expected.get(row.check)) for row in rows)
    return CheckReport(kind=kind, name=name, rows=judged)


def expect_failure(row: CheckRow, reason: str | None) -> CheckRow:
    """Turn a row whose failure is known into a skipped one, and an unexpected pass into a failure."""
    if reason is None or row.status == "skipped":
        return row
    status, text = ("skipped", f"known: {reason}") if row.status == "failed" else ("failed", f"passes, but: {reason}")
    return CheckRow(check=row.check, status=status, reason=text, seconds=row.seconds, why=row.why)  # type: ignore[arg-type]


def parametrize_checks(
    registry: Registry,
    *,
    kind: str | None = None,
    names: Collection[str] | None = None,
    slow: Collection[tuple[str, str]] = (),
) -> Any:
    """Return a pytest mark that gives a test each ``(kind, name)`` of a registry as ``plugin``.

    The test calls `check_plugin` and asserts ``report.passed``; a registry without such plugins skips it.
    Those in ``slow`` get the mark of this name.
    """
    import pytest

    parameters = []
    for entry in registry.entries(kind):
        plugin = (entry.spec.kind, entry.spec.name)
        if names is None or entry.spec.name in names:
            marks = [pytest.mark.slow] if plugin in slow else []
            parameters.append(pytest.param(plugin, id="-".join(plugin), marks=marks))
    none = pytest.param(None, id="none", marks=pytest.mark.skip(reason="no such plugin is installed"))
    return pytest.mark.parametrize("plugin", parameters or [none])


__all__ = ["CHECKS", "check_name", "check_plugin", "open_bench", "parametrize_checks", "run_check"]
