"""The table of known plugins is complete, in order, and can be made again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from micore import known_plugins
from micore.known_plugins import KNOWN, rewrite

ROOT = Path(__file__).parents[1]

PROGRAM = """
import sys
from pathlib import Path
from micore.known_plugins import collect
for (kind, name), package in collect(Path(sys.argv[1])).items():
    print(kind, name, package)
"""


def collected(directory: Path) -> subprocess.CompletedProcess[str]:
    """Read a directory of plugins in a process of its own, for it changes the path."""
    command = [sys.executable, "-c", PROGRAM, str(directory)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_table_is_complete() -> None:
    result = collected(ROOT / "plugins")
    assert result.returncode == 0, result.stderr
    rows = [f"{kind} {name} {package}" for (kind, name), package in KNOWN.items()]
    assert rows == result.stdout.splitlines(), "run: python -m micore.known_plugins plugins"


def test_table_is_alphabetical() -> None:
    assert list(KNOWN) == sorted(KNOWN)


def write_package(site: Any, directory: Path, name: str, source: str) -> None:
    """Write the sources of a package as they lie in the repository."""
    module = site.install(f"mi-{name}", source)
    folder = directory / "attacks" / name
    (folder / "src").mkdir(parents=True)
    (site.path / f"{module}.py").rename(folder / "src" / f"{module}.py")
    entry = f'[project]\nname = "mi-{name}"\n[project.entry-points.micore]\n{name} = "{module}"\n'
    (folder / "pyproject.toml").write_text(entry)


ATTACKS = """
from micore.hookspecs import hookimpl
from micore.specs import DefenseSpec

@hookimpl
def mi_defenses():
    names = ("zoo", "ant")
    return [DefenseSpec(name=name, target="a:b", summary="A toy", stages=("data",)) for name in names]
"""


def test_rewrite_puts_the_table_between_the_marks(site: Any, tmp_path: Path) -> None:
    write_package(site, tmp_path, "toys", ATTACKS)
    assert collected(tmp_path).stdout == "defense ant mi-toys\ndefense zoo mi-toys\n"
    copy = tmp_path / "copy.py"
    copy.write_text(Path(known_plugins.__file__).read_text())
    rewrite(copy, {("defense", "ant"): "mi-toys", ("defense", "zoo"): "mi-toys"})
    once = copy.read_text()
    rewrite(copy, {("defense", "ant"): "mi-toys", ("defense", "zoo"): "mi-toys"})
    assert copy.read_text() == once
    namespace: dict[str, Any] = {"__name__": "copy"}
    exec(compile(once, "copy", "exec"), namespace)
    assert namespace["KNOWN"] == {("defense", "ant"): "mi-toys", ("defense", "zoo"): "mi-toys"}


@pytest.mark.parametrize("source", ["from micore.hookspecs import hookimpl\n@hookimpl\ndef mi_odd(): ...", "1 / 0"])
def test_broken_package_is_told(site: Any, tmp_path: Path, source: str) -> None:
    write_package(site, tmp_path, "toys", source)
    result = collected(tmp_path)
    assert result.returncode != 0
    assert "mi_odd" in result.stderr or "ZeroDivisionError" in result.stderr
