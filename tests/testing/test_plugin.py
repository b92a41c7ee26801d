"""The pytest plugin: its fixtures, its guards, and ``mi check`` through them."""

from __future__ import annotations

import pytest
from broken.models import fails_anyhow
from toy_plugins import plugin, spec

from micore.registry import Registry

pytest_plugins = ("micore.testing.plugin", "pytester")

INNER = "pytest_plugins = 'micore.testing.plugin'"


def test_registries(mi_registry):
    registry = mi_registry(toys=plugin(spec("model"), spec("modality")))
    assert [entry.spec.kind for entry in registry.entries()] == ["modality", "model"]
    assert isinstance(mi_registry(), Registry)


def test_cli_has_a_home_of_its_own(mi_cli, mi_home, monkeypatch):
    done = mi_cli("--version")
    assert done.stdout.startswith("micore ")
    assert done.stderr == ""
    assert mi_cli("no-such-command", code=2).stdout == ""


def test_guards(pytester):
    pytester.makeconftest(INNER)
    pytester.makepyfile(
        """
        import os, random

        def test_clean(monkeypatch, mi_guard_streams):
            monkeypatch.setenv("MI_X", "1")

        def test_leaks_environment():
            os.environ["MI_LEAK"] = "1"

        def test_leaks_stream(mi_guard_streams):
            random.random()
        """
    )
    try:
        result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    finally:
        import os

        os.environ.pop("MI_LEAK", None)
    result.assert_outcomes(passed=3, errors=2)
    result.stdout.fnmatch_lines(["*changed the environment: MI_LEAK*", "*global generator of random*"])


@pytest.fixture
def toys(monkeypatch):
    """Let the command line find the toys, with a broken model."""
    registry = Registry.from_plugins(
        {
            "toys": plugin(spec("modality"), spec("dataset"), spec("defense")),
            "others": plugin(spec("model", fails_anyhow, name="odd")),
        }
    )
    monkeypatch.setattr(Registry, "discover", classmethod(lambda cls, **_: registry))


@pytest.mark.usefixtures("toys")
class TestCheckCommand:
    def test_sound_plugin(self, mi_cli):
        done = mi_cli("check", "toy", "--kind", "dataset")
        assert "passed   splits-are-not-empty" in done.stdout
        assert "dataset toy: " in done.stderr

    def test_unsound_plugin(self, mi_cli):
        done = mi_cli("check", "odd", code=13)
        assert "failed   bad-sizes-are-refused" in done.stdout
        assert "model 'odd' fails 1 check: bad-sizes-are-refused" in done.stderr

    def test_json(self, mi_cli):
        document = mi_cli("check", "odd", "--json", code=13).json()
        assert (document["schema"], document["passed"]) == ("micore.check/1", False)

    def test_unknown_and_ambiguous_names(self, mi_cli):
        assert mi_cli("check", "nobody", code=4).stdout == ""
        assert "--kind" in mi_cli("check", "toy", code=2).stderr

    def test_options(self, mi_cli):
        assert "unknown option" not in mi_cli("check", "toy", "--kind", "defense", "-p", "temperature=3").stderr
        assert mi_cli("check", "toy", "--kind", "defense", "-p", "temprature=3", code=3).stdout == ""
