"""Fixtures for tests of plugins; opt in with ``pytest_plugins = "micore.testing.plugin"`` in conftest.py.

Besides the fixtures, every test is guarded: one that leaves the environment changed fails. Leaks of the
global random generators are the checks' own matter, see `micore.testing.check_plugin`; a test asks for
that guard by the fixture ``mi_guard_streams``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from micore.registry import Registry
    from micore.testing.lab import Lab

PYTESTS_OWN = {"PYTEST_CURRENT_TEST"}


@dataclass(frozen=True, slots=True)
class CliResult:
    """What a command did: its exit code and both streams."""

    code: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        """Parse stdout as the one JSON document that it must be."""
        import json

        return json.loads(self.stdout)


@pytest.fixture
def mi_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep caches and data of this test in a directory of its own."""
    home = tmp_path / "mi-home"
    monkeypatch.setenv("MI_HOME", str(home))
    return home


@pytest.fixture
def mi_cli(mi_home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., CliResult]:
    """Run ``mi`` in this process: ``mi_cli("show", "NAME")``; asserts the exit code, ``code=None`` any.

    The environment is bare: no ``MI_`` variables but ``MI_HOME``, no colors, 100 columns.
    """
    for name in [name for name in os.environ if name.startswith("MI_") and name != "MI_HOME"]:
        monkeypatch.delenv(name)
    for name, value in (("NO_COLOR", "1"), ("COLUMNS", "100"), ("TERM", "dumb")):
        monkeypatch.setenv(name, value)

    def run(*arguments: object, code: int | None = 0, input: str | None = None) -> CliResult:
        from click.testing import CliRunner

        from micore.cli import main

        done = CliRunner().invoke(main, [str(argument) for argument in arguments], input=input, prog_name="mi")
        if code is not None and done.exit_code != code:
            pytest.fail(f"mi {' '.join(map(str, arguments))}: exit code {done.exit_code}, not {code}\n{done.output}")
        return CliResult(done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture
def mi_registry() -> Callable[..., Registry]:
    """Make a registry: ``mi_registry()`` of what is installed, ``mi_registry(name=module)`` of these."""

    def make(**plugins: object) -> Registry:
        from micore.registry import Registry

        return Registry.from_plugins(plugins) if plugins else Registry.discover()

    return make


@pytest.fixture(scope="session")
def mi_lab() -> Lab:
    """Toy targets of the installed modalities, trained once per session."""
    from micore.registry import Registry
    from micore.testing.lab import Lab

    return Lab(Registry.discover())


@pytest.fixture
def mi_guard_streams() -> Iterator[None]:
    """Fail a test that moves a global random generator."""
    from micore.testing.counting import differences, global_streams

    before = global_streams()
    yield
    changed = differences(before, global_streams())
    if changed:
        pytest.fail(f"the test moved the global generator of {', '.join(changed)}")


@pytest.fixture(autouse=True)
def mi_guard_environment(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves the environment changed."""
    request.getfixturevalue("monkeypatch")  # set up before, so undone after, this guard
    before = _environment()
    yield
    request.getfixturevalue("monkeypatch").undo()
    changed = environment_changes(before, _environment())
    if changed:
        pytest.fail(f"the test changed the environment: {', '.join(changed)}")


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in PYTESTS_OWN}


def environment_changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Name the variables that differ."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
