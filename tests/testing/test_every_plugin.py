"""Every installed plugin keeps its contract: ``mi check`` for all of them."""

from __future__ import annotations

import pytest

from micore.registry import Registry
from micore.testing.check import check_plugin, parametrize_checks
from micore.testing.lab import Lab

EXPECTED_FAILURES: dict[tuple[str, str], dict[str, str]] = {}
"""By kind and name: known failures, check -> reason. One that passes after all is an error."""

SLOW: set[tuple[str, str]] = set()
"""Plugins whose checks take more than a minute."""

TRACKED = {
    "MI_MLFLOW": "file://{place}/mlflow",
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "MI_TENSORBOARD_DIR": "{place}/tensorboard",
}
"""What asks the trackers of this repository for something, so that there is something to check."""

REGISTRY = Registry.discover()


@pytest.fixture(scope="module")
def shared_lab():
    return Lab(REGISTRY)


@pytest.fixture
def tracked(tmp_path, monkeypatch):
    """Set up the trackers, which do nothing unless they are asked."""
    for name, value in TRACKED.items():
        monkeypatch.setenv(name, value.format(place=tmp_path))


@pytest.mark.usefixtures("tracked")
@parametrize_checks(REGISTRY, slow=SLOW)
def test_plugin_keeps_its_contract(plugin, shared_lab):
    kind, name = plugin
    report = check_plugin(
        kind, name, registry=REGISTRY, lab=shared_lab, expected_failures=EXPECTED_FAILURES.get(plugin, {})
    )
    assert report.passed, "\n" + report.text()
