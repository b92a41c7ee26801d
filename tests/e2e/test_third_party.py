"""A package of another publisher, built as a wheel and installed, is used like those of this repository."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result

from micore.errors import IncompatiblePluginError
from tests.e2e.commands import call

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "third-party"
OFFERED = {
    "attack": "acme-climb", "defense": "acme-cap", "evaluator": "acme-memory", "dataset": "acme-rings",
}  # fmt: skip
SUITE = """
name = "acme"
figures = ["acme-memory"]

[[target]]
name = "rings"
data = "acme-rings"
data_options = { n_classes = 3, per_class = 16 }
model = "small-cnn"
training = { epochs = 6 }

[[defense]]
name = "none"

[[defense]]
name = "cap"
uses = ["acme-cap:cap=0.8"]

[[attack]]
plugin = "acme-climb"
preset = "smoke"
evaluators = ["acme-memory"]
"""


def uv(*arguments: object) -> None:
    """Run uv without a network."""
    done = subprocess.run(
        [sys.executable, "-m", "uv", "--offline", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def install(project: Path, site: Path) -> None:
    """Build a project's wheel and install nothing but that."""
    wheels = site.parent / f"wheels-of-{project.name}"
    uv("build", "--quiet", "--wheel", "-o", wheels, project)
    (wheel,) = wheels.glob("*.whl")
    uv("pip", "install", "--quiet", "--no-index", "--no-deps", "--target", site, wheel)


def changed(place: Path, name: str, **changes: tuple[str, str]) -> Path:
    """Copy the example under another name, with text of some files replaced."""
    shutil.copytree(EXAMPLE, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    module = name.replace("-", "_")
    (place / name / "src" / "acme_inversion").rename(place / name / "src" / module)
    for path in (place / name).rglob("*.*"):
        if path.is_file():
            text = path.read_text().replace("acme-inversion", name).replace("acme_inversion", module)
            old, new = changes.get(path.stem, ("", ""))
            assert old in text
            path.write_text(text.replace(old, new) if old else text)
    return place / name


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the example, and with two packages that cannot be used, installed in ``site``."""
    place = tmp_path_factory.mktemp("third-party")
    install(EXAMPLE, place / "site")
    lacking = changed(place, "acme-lacking", plugin=("from micore.hookspecs", "import acme_sdk\nfrom micore.hookspecs"))
    newer = changed(place, "acme-newer", pyproject=("micore>=0.1,<0.2", "micore>=9"))
    for project in (lacking, newer):
        install(project, place / "site")
    return place


@pytest.fixture(autouse=True)
def _installed(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this process and its children see what is installed; forget it afterwards."""
    site = str(place / "site")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [site, os.environ.get("PYTHONPATH")])))
    importlib.invalidate_caches()
    yield
    for name in [name for name in sys.modules if name.startswith("acme_")]:
        del sys.modules[name]


def mi(place: Path, *arguments: object, code: int = 0) -> Result:
    """Call ``mi`` and check how it ends."""
    result = call(place / "home", *arguments)
    assert result.exit_code == code, result.output
    return result


def test_it_is_listed_and_shown(place: Path) -> None:
    document = json.loads(mi(place, "list-plugins", "--json").stdout)
    own = {item["kind"]: item for item in document["plugins"] if item["distribution"] == "acme-inversion"}
    assert {kind: item["name"] for kind, item in own.items()} == OFFERED
    assert {item["version"] for item in own.values()} == {"1.0.0"}
    for name in OFFERED.values():
        assert "acme-inversion 1.0.0" in mi(place, "show", name).stdout
    assert "Weight of differences between neighbouring pixels" in mi(place, "show", "acme-climb").stdout


@pytest.mark.parametrize("name", OFFERED.values())
def test_it_keeps_the_contracts(place: Path, name: str) -> None:
    report = json.loads(mi(place, "check", name, "--json").stdout)
    assert report["passed"]
    imports = next(row for row in report["checks"] if row["check"] == "plugin-imports-without-torch")
    assert imports["status"] == "passed"


def test_it_is_documented(place: Path) -> None:
    """The pages that this project makes of its own plugins are made of it, too."""
    catalogue = mi(place, "list-plugins", "--markdown").stdout
    rows = {line.split("|")[1].strip(): line for line in catalogue.splitlines() if "`acme-inversion`" in line}
    assert rows.keys() == {f"`{name}`" for name in OFFERED.values()}
    own = next(line for line in catalogue.splitlines() if line.startswith("| `mi-face` |"))
    assert rows["`acme-climb`"].count("|") == own.count("|")
    for kind, name in OFFERED.items():
        page = mi(place, "show", name, "--markdown").stdout
        assert page.startswith(f"# {kind.capitalize()} {name}\n")
        assert "| package | acme-inversion 1.0.0 |" in page
    page = mi(place, "show", "acme-climb", "--markdown").stdout
    assert "Gradient ascent on smooth pictures. No paper" in page  # what the module says of the method
    assert "Weight of differences between neighbouring pixels" in page  # what can be set
    assert "| `smoke` |" in page


def test_it_is_run_and_benchmarked(place: Path) -> None:
    """Two rows of a suite train the target on its data, with and without its defense, attack it, and judge that."""
    (place / "suite.toml").write_text(SUITE)
    mi(place, "bench", place / "suite.toml", "-o", place / "bench", "--device", "cpu")
    manifests = [json.loads(path.read_text()) for path in (place / "bench").rglob("run.json")]
    assert len(manifests) == 2
    assert {manifest["attack"]["name"] for manifest in manifests} == {"acme-climb"}
    page = (place / "bench" / "bench.md").read_text()
    assert "| rings | cap | acme-climb | 0 |" in page
    assert "acme-inversion 1.0.0" in page
    target = next((place / "bench" / "targets").glob("rings-none-*.safetensors"))
    options = ("--preset", "smoke", "-e", "acme-memory", "--device", "cpu")
    mi(place, "attack", "--plugin", "acme-climb", "--model", target, *options, "-o", place / "run")
    assert "acme-memory" in (place / "run" / "report.md").read_text()


def test_broken_ones_are_explained_and_stop_nothing(place: Path) -> None:
    document = json.loads(mi(place, "list-plugins", "--broken", "--json").stdout)
    reasons = {row["distribution"]: (row["status"], row["reason"]) for row in document["broken"]}
    assert reasons.keys() >= {"acme-lacking", "acme-newer"}
    assert reasons["acme-lacking"][0] == "broken"
    assert "acme_sdk" in reasons["acme-lacking"][1]
    assert reasons["acme-newer"][0] == "incompatible"
    assert "micore>=9" in reasons["acme-newer"][1]
    assert json.loads(mi(place, "doctor", "--json").stdout)["broken"] == document["broken"]
    assert "acme_sdk" in mi(place, "doctor").stderr
    named = mi(place, "check", "acme-lacking", code=4)
    assert "acme_sdk" in named.stderr


def test_one_of_another_series_is_named_with_what_it_needs(place: Path) -> None:
    """As the page on versions promises: it is not imported, and whoever names it is told why."""
    assert "acme-newer 1.0.0" in mi(place, "doctor").stderr
    for command in ("check", "show"):
        named = mi(place, command, "acme-newer", code=IncompatiblePluginError.exit_code)
        assert "needs micore>=9, this is" in named.stderr
        assert "pip install --upgrade acme-newer micore" in named.stderr
    assert "acme_newer" not in sys.modules
