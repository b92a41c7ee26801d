"""Build every package as a wheel, and check that each works where only what it declares is installed.

``python tools/check_wheels.py [NAME...] [--changed REV]`` prints a table; the exit code is 1 when one fails.

For each plugin there is a fresh virtual environment with its wheel, the wheels of this repository that it
depends on, and links to the third-party packages that they declare, taken from the environment that runs
this program. Nothing is downloaded. There every module of the plugin must be importable, ``mi list-plugins``
must show it and no stranger, and the checks of ``mi check`` must pass for all it offers. Plugins that depend
on no modality get those of this repository for the last step, since the checks need a problem to try them on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib import metadata
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
CORE = "micore"
LARGEST_BYTES = 1_000_000
AT_ONCE = 2
"""Packages in work at a time; each is a process of its own, with one thread where OMP_NUM_THREADS is 1."""
IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
"""
CHECK_ALL = (
    IMPORT_ALL
    + """
import json
from micore.registry import Registry
from micore.testing import Lab, check_plugin
registry = Registry.discover(strict=True)
lab = Lab(registry)
reports = [check_plugin(kind, name, registry=registry, lab=lab) for kind, name in json.loads(sys.argv[2])]
print(json.dumps([[[row.check, row.status, row.reason] for row in report.rows] for report in reports]))
"""
)
"""Import all, then what ``mi check`` does for each plugin, in one process: it takes seconds to import torch."""


class WheelError(Exception):
    """A wheel, or what was installed from it, is not as it should be."""


@dataclass(frozen=True)
class Package:
    """One distribution of this repository."""

    folder: Path

    @cached_property
    def project(self) -> Mapping[str, object]:
        """The project table of its pyproject file."""
        project: Mapping[str, object] = tomllib.loads((self.folder / "pyproject.toml").read_text("utf-8"))["project"]
        return project

    @property
    def name(self) -> str:
        """The distribution's name."""
        return str(self.project["name"])

    @property
    def module(self) -> str:
        """The import package."""
        return self.name.replace("-", "_")


@dataclass
class Outcome:
    """A row of the table."""

    package: str
    kilobytes: int
    checks: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0


def packages() -> dict[str, Package]:
    """Return all packages of this repository by name, the core first."""
    found = [Package(ROOT), *(Package(file.parent) for file in sorted(ROOT.glob("plugins/*/*/pyproject.toml")))]
    return {package.name: package for package in found}


# wheels ---------------------------------------------------------------------------------------------------


def build(package: Package, directory: Path) -> Path:
    """Build a package's wheel into a directory of its own and return it."""
    place = directory / package.name
    run([sys.executable, "-m", "uv", "build", "--quiet", "--wheel", "-o", str(place), str(package.folder)])
    (wheel,) = place.glob("*.whl")
    return wheel


def faults_of(wheel: Path, module: str) -> Iterator[str]:
    """Tell what a wheel holds that it should not, and what it lacks."""
    with zipfile.ZipFile(wheel) as archive:
        for item in archive.infolist():
            path = PurePosixPath(item.filename)
            is_test = path.suffix == ".py" and ("tests" in path.parts or path.name.startswith(("test_", "conftest")))
            if is_test or path.suffix == ".pyc" or any(part.endswith(("_cache", "__pycache__")) for part in path.parts):
                yield f"holds {path}"
            if item.file_size > LARGEST_BYTES:
                yield f"{path} has {item.file_size / 1e6:.1f} MB"
        if f"{module}/py.typed" not in archive.namelist():
            yield "has no py.typed"


def requirements(wheel: Path) -> list[Requirement]:
    """Return what a wheel requires here, without its extras."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().partition("\n\n")[0].splitlines()
    found = [Requirement(line.partition(": ")[2]) for line in lines if line.startswith("Requires-Dist: ")]
    return [requirement for requirement in found if applies(requirement)]


def applies(requirement: Requirement, extras: Iterable[str] = ()) -> bool:
    """Tell whether a requirement's marker holds here."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


# environments ---------------------------------------------------------------------------------------------


def family(name: str, wheels: Mapping[str, Path]) -> dict[str, Path]:
    """Return the wheels of this repository that a package needs, itself first."""
    found: dict[str, Path] = {}
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found[current] = wheels[current]
            waiting += [need.name for need in requirements(wheels[current]) if need.name in wheels]
    return found


def third_party(wheels: Iterable[Path], own: Iterable[str]) -> dict[str, metadata.Distribution]:
    """Return the installed distributions that wheels declare, with what those need in turn.

    Raises: WheelError for one that is not installed, or in a version that the declaration forbids.
    """
    waiting = [need for wheel in wheels for need in requirements(wheel) if need.name not in own]
    found: dict[str, metadata.Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        need = waiting.pop()
        key = (canonicalize_name(need.name), frozenset(need.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            distribution = metadata.distribution(need.name)
        except metadata.PackageNotFoundError:
            raise WheelError(f"declares {need}, which is not installed here") from None
        if not need.specifier.contains(distribution.version, prereleases=True):
            raise WheelError(f"declares {need}, but {distribution.version} is installed here")
        found[key[0]] = distribution
        inner = map(Requirement, distribution.requires or ())
        waiting += [requirement for requirement in inner if applies(requirement, need.extras)]
    return found


def link(distributions: Iterable[metadata.Distribution], directory: Path) -> None:
    """Make a directory that holds these distributions and no others, as links."""
    directory.mkdir()
    for distribution in distributions:
        for top in {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}:
            place = directory / top
            if not place.exists():
                place.symlink_to(Path(str(distribution.locate_file(top))))


def environment(directory: Path, wheels: Mapping[str, Path], own: Iterable[str]) -> Path:
    """Make a virtual environment with these wheels and what they declare; return its Python."""
    run([sys.executable, "-m", "uv", "venv", "--quiet", "--python", sys.executable, str(directory)])
    (site,) = directory.glob("[Ll]ib/**/site-packages")
    link(third_party(wheels.values(), own).values(), directory / "third-party")
    (site / "third_party.pth").write_text(f"{directory / 'third-party'}\n")
    folder = "Scripts" if os.name == "nt" else "bin"
    python = directory / folder / "python"
    install = ["pip", "install", "--quiet", "--no-index", "--no-deps", "--python", str(python)]
    run([sys.executable, "-m", "uv", *install, *map(str, wheels.values())])
    return python


# checks ---------------------------------------------------------------------------------------------------


def check(package: Package, wheels: Mapping[str, Path], modalities: Sequence[str], work: Path) -> Outcome:
    """Install one plugin alone and check it."""
    started = time.monotonic()
    outcome = Outcome(package.name, round(wheels[package.name].stat().st_size / 1000))
    outcome.problems += faults_of(wheels[package.name], package.module)
    try:
        needed = family(package.name, wheels)
        python = environment(work / package.name, needed, wheels)
        offered = listed(python, set(needed) - {CORE}, package.name)
        if not offered or not needed.keys() & set(modalities):
            run([str(python), "-c", IMPORT_ALL, package.module])
        if offered and not needed.keys() & set(modalities):
            needed |= {name: wheel for modality in modalities for name, wheel in family(modality, wheels).items()}
            python = environment(work / f"{package.name}-on-a-modality", needed, wheels)
        checked(python, package.module, offered, outcome)
    except WheelError as error:
        outcome.problems.append(str(error))
    outcome.seconds = time.monotonic() - started
    return outcome


def listed(python: Path, expected: set[str], own: str) -> list[tuple[str, str]]:
    """Return what ``mi list-plugins`` shows of one distribution, and check that it shows no other ones.

    Raises: WheelError.
    """
    document = json.loads(run([str(python), "-m", "micore", "list-plugins", "--json"]).stdout)
    if document["broken"]:
        raise WheelError("broken: " + "; ".join(f"{row['name']}: {row['reason']}" for row in document["broken"]))
    found = {plugin["distribution"] for plugin in document["plugins"]}
    if found != expected:
        raise WheelError(f"mi list-plugins shows {sorted(found)}, not {sorted(expected)}")
    return [(plugin["kind"], plugin["name"]) for plugin in document["plugins"] if plugin["distribution"] == own]


def checked(python: Path, module: str, offered: Sequence[tuple[str, str]], outcome: Outcome) -> None:
    """Check all plugins of a package and add what is said of them to the outcome.

    Raises: WheelError when the checks do not come to their end.
    """
    if not offered:
        return
    done = run([str(python), "-c", CHECK_ALL, module, json.dumps(offered)])
    for (kind, name), rows in zip(offered, json.loads(done.stdout.splitlines()[-1]), strict=True):
        count = {status: sum(row[1] == status for row in rows) for status in ("passed", "failed", "skipped")}
        outcome.checks.append(f"{kind} {name} {count['passed']}/{len(rows) - count['skipped']}")
        outcome.problems += [
            f"{kind} {name}: {check}: {reason}" for check, status, reason in rows if status == "failed"
        ]
        if not count["passed"]:
            outcome.problems.append(f"{kind} {name}: nothing was checked")


def run(command: Sequence[str], accepted: Sequence[int] = (0,)) -> subprocess.CompletedProcess[str]:
    """Run a program away from the repository, with no settings of the user's.

    Raises: WheelError with the last line that it wrote.
    """
    hidden = ("MI_", "PYTHON", "VIRTUAL_ENV")
    settings = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    with tempfile.TemporaryDirectory() as home:
        settings |= {"MI_HOME": home, "HF_HUB_OFFLINE": "1", "MI_STRICT_PLUGINS": "1"}
        done = subprocess.run(command, cwd=home, env=settings, capture_output=True, text=True, check=False)
    if done.returncode not in accepted:
        said = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        what = " ".join(part for part in command[1:] if "\n" not in part)
        raise WheelError(f"python {what} ends with {done.returncode}: {said[-1]}")
    return done


# command line ---------------------------------------------------------------------------------------------


def changed_since(revision: str, known: Mapping[str, Package]) -> list[str]:
    """Return the plugins that changes since a revision may have broken."""
    diff = ["git", "-C", str(ROOT), "diff", "--name-only", revision]
    done = subprocess.run(diff, capture_output=True, text=True, check=True)
    files = [ROOT / line for line in done.stdout.splitlines()]
    if any(file.is_relative_to(ROOT / CORE) or file == ROOT / "pyproject.toml" for file in files):
        return [name for name in known if name != CORE]
    touched = {
        name for name, package in known.items() if name != CORE and any(f.is_relative_to(package.folder) for f in files)
    }
    return [name for name, package in known.items() if name in touched or touched & declared(package)]


def declared(package: Package) -> set[str]:
    """Return the names of what a package depends on, from its pyproject file."""
    dependencies = package.project["dependencies"]
    return {Requirement(str(text)).name for text in dependencies} if isinstance(dependencies, list) else set()


def chosen(arguments: argparse.Namespace, known: Mapping[str, Package]) -> list[Package]:
    """Return the plugins that the command line names, or all."""
    names = list(arguments.names) or [name for name in known if name != CORE]
    if arguments.changed:
        names = changed_since(arguments.changed, known)
    unknown = [name for name in names if name not in known or name == CORE]
    if unknown:
        raise SystemExit(f"no plugin package is called {', '.join(unknown)}; there are: {', '.join(known)}")
    return [known[name] for name in names]


def show(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)  # noqa: T201 - the result of a tool


def main() -> int:
    """Build, check and print; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="a distribution, such as mi-attack-plmi")
    parser.add_argument("--changed", metavar="REV", help="only what changes since this git revision can have broken")
    known = packages()
    plugins = chosen(parser.parse_args(), known)
    modalities = [name for name, package in known.items() if package.folder.parent.name == "modalities"]
    failed = 0
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(AT_ONCE) as pool:
        work = Path(directory)
        wheels = dict(zip(known, pool.map(partial(build, directory=work / "wheels"), known.values()), strict=True))
        core = list(faults_of(wheels[CORE], CORE))
        show("\n".join([f"{CORE}: {'FAILED' if core else 'ok'}, {len(wheels)} wheels built", *core]))
        for outcome in pool.map(partial(check, wheels=wheels, modalities=modalities, work=work), plugins):
            failed += bool(outcome.problems)
            row = f"{outcome.package:<36}{outcome.kilobytes:>6} kB {outcome.seconds:>6.1f} s  "
            show(row + ("FAILED" if outcome.problems else "ok") + "  " + ", ".join(outcome.checks))
            for problem in outcome.problems:
                show(f"    {problem}")
    show(f"{len(plugins) - failed} of {len(plugins)} packages are sound")
    return int(bool(failed or core))


if __name__ == "__main__":
    raise SystemExit(main())
