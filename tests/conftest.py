"""Fixtures that several test files use: fake installed plugins, and the command line."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

DATA_PLACES = ("MI_DATA_ROOT", "MI_FACE_DESCRIPTOR")  # what tests marked `data` need

ATTACK = """
from micore.hookspecs import hookimpl
from micore.specs import AttackSpec
from micore.threat import Access

@hookimpl
def mi_attacks():
    return [AttackSpec(name="{name}", target="{module}:Thing", summary="A toy", modality="image",
                       goal="class", access=Access.SCORES)]
"""


@dataclass
class FakeSite:
    """A directory on the path with the plugins that a test installs."""

    path: Path

    def install(
        self,
        distribution: str,
        source: str,
        *,
        entry_point: str | None = None,
        requires: Sequence[str] = ("micore",),
        entry_points: str | None = None,
    ) -> str:
        """Write a package of one module and its metadata; return the module's name."""
        module = distribution.replace("-", "_")
        (self.path / f"{module}.py").write_text(source.replace("{module}", module))
        info = self.path / f"{module}-1.0.dist-info"
        info.mkdir()
        needs = "".join(f"Requires-Dist: {text}\n" for text in requires)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n{needs}\n")
        name = entry_point or distribution.removeprefix("mi-")
        (info / "entry_points.txt").write_text(entry_points or f"[micore]\n{name} = {module}\n")
        importlib.invalidate_caches()
        return module

    def install_attack(self, distribution: str, name: str) -> str:
        """Install a sound plugin with one attack."""
        source = ATTACK.replace("{name}", name)
        return self.install(distribution, source, requires=["micore>=0.0.1,<99"])

    def run(self, code: str) -> subprocess.CompletedProcess[str]:
        """Run Python code in a new process that sees these plugins."""
        path = os.pathsep.join([str(self.path), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "100"}
        return subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSite]:
    """An empty site directory; what was imported from it is forgotten afterwards."""
    path = tmp_path / "site"
    path.mkdir()
    monkeypatch.syspath_prepend(str(path))
    yield FakeSite(path)
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(path)):
            del sys.modules[name]


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One MI_HOME for all tests, so that what is cached is made once and never in the tester's home."""
    return tmp_path_factory.mktemp("mi-home")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, shared_home: Path) -> None:
    """Keep the tester's settings out of the tests."""
    for name in [name for name in os.environ if name.startswith("MI_") and name not in DATA_PLACES]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MI_HOME", str(shared_home))


@pytest.fixture
def mi() -> Callable[..., Result]:
    """Call ``mi`` with arguments in this process."""
    from micore.cli import main

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(main, arguments, prog_name="mi")

    return call
