"""The package keeps the contract of each plugin that it offers."""

import pytest

from micore.testing import check_plugin

OFFERED = [
    ("attack", "acme-climb"),
    ("defense", "acme-cap"),
    ("evaluator", "acme-memory"),
    ("dataset", "acme-rings"),
]


@pytest.mark.parametrize(("kind", "name"), OFFERED)
def test_conformance(kind: str, name: str) -> None:
    report = check_plugin(kind, name)
    assert report.passed, report.text()
