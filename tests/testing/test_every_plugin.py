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

REGISTRY = Registry.discover()


@pytest.fixture(scope="module")
def shared_lab():
    return Lab(REGISTRY)


@parametrize_checks(REGISTRY, slow=SLOW)
def test_plugin_keeps_its_contract(plugin, shared_lab):
    kind, name = plugin
    report = check_plugin(
        kind, name, registry=REGISTRY, lab=shared_lab, expected_failures=EXPECTED_FAILURES.get(plugin, {})
    )
    assert report.passed, "\n" + report.text()
