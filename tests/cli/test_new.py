"""``mi new`` writes packages that work as they are."""

from __future__ import annotations

import importlib
import re
import runpy
import sys
import tomllib
from collections.abc import Callable, Sequence
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import Result
from packaging.requirements import Requirement
from torch import Tensor, nn

from micore.cli.new import TEMPLATES, create
from micore.contracts import Case, Reconstruction, Reference, Subject
from micore.errors import BudgetExceeded, DataError, StorageError, UsageError
from micore.inputs import InputSpec
from micore.registry import Registry
from micore.runs import Run
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Access, Budget, Ledger

Mi = Callable[..., Result]
KINDS = ("attack", "defense", "evaluator")
"""With a config, and checked on the toy problem of the core."""

OTHERS = [(kind, modality) for kind in ("model", "dataset") for modality in TEMPLATES[kind]]
"""Checked on the toy problem of their modality."""

EVERY = [(kind, modality) for kind in TEMPLATES for modality in TEMPLATES[kind]]
ABOUT_ANOTHER = (
    "the attack ", "the preparation ", "not a monitor", "no classifier (roles: gnn)",
)  # fmt: skip
"""Why a check may be left out: it is about something that the plugin does not do."""

TRUTHS = [(kind, modality) for kind in ("attack", "evaluator") for modality in ("text", "graph", "tabular")]

FILES = {"image": ("dataset.py", "samples.py"), "audio": ("dataset.py", "samples.py")}
CASES = [Case(id=f"class-{label}", goal="class", label=label) for label in range(3)]


@pytest.fixture
def made(mi: Mi, site: Any, tmp_path: Path) -> Callable[..., Any]:
    """Make a package, install it as pip would, and load what it offers."""

    def make(kind: str, name: str = "my-own", modality: str = "image", toy: str | None = None) -> Any:
        result = mi("new", kind, name, "--directory", str(tmp_path), "--modality", modality)
        assert result.exit_code == 0, result.stderr
        place = tmp_path / name
        assert result.stdout == f"{place}\n"
        assert result.stderr == f"next: pip install -e {place} && mi check {name}\n"
        project = tomllib.loads((place / "pyproject.toml").read_text())["project"]
        ((entry_point, module),) = project["entry-points"]["micore"].items()
        if toy:
            plugin = place / "src" / module.replace(".", "/")
            described = plugin.with_suffix(".py")
            described.write_text(described.read_text().replace('modality="image"', f'modality="{toy}"'))
        for file in (place / "src").iterdir():
            file.rename(site.path / file.name)
        entry = f"[micore]\n{entry_point} = {module}\n"
        site.install(project["name"], "", requires=project["dependencies"], entry_points=entry)
        (site.path / f"{project['name'].replace('-', '_')}.py").unlink()
        importlib.invalidate_caches()
        registry = Registry.discover()
        assert not [record for record in registry.failed if record.distribution == project["name"]]
        return registry.load(registry.find(kind, name))

    return make


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["my-own", "3d", "a"])
def test_package_is_found_under_its_names(made: Callable[..., Any], kind: str, name: str) -> None:
    implementation = made(kind, name)
    module = f"mi_{kind}_{name}".replace("-", "_")
    assert implementation.__module__ == f"{module}.{kind}"
    assert all(field.description for field in implementation.Config.model_fields.values())
    implementation(implementation.Config())


@pytest.mark.parametrize("kind", KINDS)
def test_files(tmp_path: Path, kind: str) -> None:
    place = create(kind, "my-own", tmp_path)
    package = f"mi_{kind}_my_own"
    assert sorted(str(file.relative_to(place)) for file in place.rglob("*") if file.is_file()) == [
        "README.md", "pyproject.toml", f"src/{package}/__init__.py", f"src/{package}/{kind}.py",
        f"src/{package}/plugin.py", f"src/{package}/py.typed", "tests/test_conformance.py",
    ]  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["my-own"]
    assert not [path for path in place.rglob("*") if path.is_file() and "$" in path.read_text()]
    assert "torch" not in (place / "src" / package / "plugin.py").read_text().replace("keep torch out", "")


@pytest.mark.parametrize("name", ["My-Attack", "my_attack", "../up", "a/b", "-x", "", "two--hyphens"])
def test_bad_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a plugin's name"):
        create("attack", name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_existing_directory_is_left_alone(mi: Mi, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    result = mi("new", "attack", "mine", "--directory", str(tmp_path))
    assert result.exit_code == 2
    assert "already exists" in result.stderr
    assert list((tmp_path / "mine").iterdir()) == []


def test_modality_without_a_template(mi: Mi, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="mi new model has no template for video") as caught:
        create("model", "mine", tmp_path, "video")
    assert "it has: image, audio, text, graph, tabular" in str(caught.value.hint)
    assert mi("new", "source", "mine").exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        create("attack", "mine", tmp_path / "file")


@pytest.mark.parametrize(("kind", "modality"), OTHERS)
def test_files_of_data_and_models(tmp_path: Path, kind: str, modality: str) -> None:
    place = create(kind, "my-own", tmp_path, modality)
    package = place / "src" / f"mi_{kind}_my_own"
    own = FILES.get(modality, ("dataset.py",)) if kind == "dataset" else ("model.py",)
    assert {path.name for path in package.iterdir()} == {"__init__.py", "plugin.py", "py.typed", *own}
    assert not [path for path in place.rglob("*") if path.is_file() and "$" in path.read_text()]
    project = tomllib.loads((place / "pyproject.toml").read_text())["project"]
    imported = {name.partition(".")[0] for path in package.glob("*.py") for name in _imports(path)}
    assert {Requirement(text).name.replace("-", "_") for text in project["dependencies"]} == imported - {package.name}


@pytest.mark.parametrize(("kind", "modality"), TRUTHS)
def test_dependencies_of_attacks_and_judges(tmp_path: Path, kind: str, modality: str) -> None:
    place = create(kind, "my-own", tmp_path, modality)
    package = place / "src" / f"mi_{kind}_my_own"
    project = tomllib.loads((place / "pyproject.toml").read_text())["project"]
    imported = {name.partition(".")[0] for path in package.glob("*.py") for name in _imports(path)} - {package.name}
    declared = {Requirement(text).name.replace("-", "_") for text in project["dependencies"]}
    assert declared - {"torch"} == imported - {"torch"}
    assert not [path for path in place.rglob("*") if path.is_file() and "$" in path.read_text()]


def _imports(path: Path) -> set[str]:
    """Return the modules that a file imports, without the standard library."""
    found = re.findall(r"^(?:from|import) ([\w.]+)(?: import .*)?$", path.read_text(), flags=re.MULTILINE)
    return {name for name in found if name.partition(".")[0] not in sys.stdlib_module_names}


# --- the code that is written ---------------------------------------------------------------------


def target(runtime: Runtime, budget: Budget | None = None) -> Target:
    """Make a white-box target of three classes, each liking another part of a picture."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 3, bias=False))
    with torch.no_grad():
        module[1].weight.copy_(torch.eye(3).repeat_interleave(4, dim=1))
    return Target(
        module,
        access=Access.WHITE_BOX,
        adapter=lambda samples: samples,
        input_spec=InputSpec(shape=(3, 2, 2)),
        classes=("a", "b", "c"),
        ledger=Ledger(budget=budget or Budget()),
        runtime=runtime,
    )


def attacked(attack: Any, victim: Target, cases: Sequence[Case], runtime: Runtime) -> dict[str, Reconstruction]:
    """Run an attack and return what it found by case."""
    assert attack.prepare(victim, None, runtime) is None
    return {found.case.id: found for found in attack.run(victim, cases, None, runtime)}


def test_attack_recovers_what_the_target_likes(made: Callable[..., Any]) -> None:
    kind = made("attack")
    runtime = Runtime(device=torch.device("cpu"), seed=7, tile=8)
    victim = target(runtime)
    found = attacked(kind(kind.Config(steps=60, restarts=2)), victim, CASES, runtime)
    for label, reconstruction in enumerate(found.values()):
        samples = reconstruction.samples
        assert samples.shape == (2, 3, 2, 2)
        others = [channel for channel in range(3) if channel != label]
        assert samples[:, label].mean() - samples[:, others].mean() > 0.7
        assert (samples >= 0).all()
        assert (samples <= 1).all()
        assert 0 >= reconstruction.scores[0] >= reconstruction.scores[1] > -0.5
        assert reconstruction.complete
        assert not samples.requires_grad
    spent = victim.ledger.to_dict()
    assert spent["cases"] == {case.id: {"queries": 120, "gradients": 120} for case in CASES}
    assert spent["shared"] == {"queries": 0, "gradients": 0}


def test_attack_on_a_case_depends_on_no_other(made: Callable[..., Any]) -> None:
    kind = made("attack")
    runtime = Runtime(device=torch.device("cpu"), seed=7, tile=4)
    attack = kind(kind.Config(**kind.PRESETS["smoke"]))
    together = attacked(attack, target(runtime), CASES, runtime)
    alone = attacked(attack, target(runtime), CASES[1:2], runtime)
    torch.manual_seed(1)
    again = attacked(attack, target(runtime), CASES[::-1], runtime)
    assert torch.equal(together["class-1"].samples, alone["class-1"].samples)
    assert torch.equal(together["class-1"].samples, again["class-1"].samples)


def test_attack_gives_the_best_so_far_when_the_budget_is_spent(made: Callable[..., Any]) -> None:
    kind = made("attack")
    runtime = Runtime(device=torch.device("cpu"), seed=7, tile=4)
    victim = target(runtime, Budget(queries=4 * 20 + 3))
    found: list[Reconstruction] = []
    with pytest.raises(BudgetExceeded):
        found.extend(kind(kind.Config(steps=20, restarts=2)).run(victim, CASES, None, runtime))
    assert [reconstruction.complete for reconstruction in found] == [True, True, False]
    assert len(found[2].history["log_confidence"]) == 1


def test_defense_rounds_and_keeps_distributions(made: Callable[..., Any]) -> None:
    kind = made("defense")
    defense = kind(kind.Config(digits=1))
    scores = torch.tensor([[0.61, 0.37, 0.02], [0.34, 0.33, 0.33]])
    assert torch.allclose(defense.adapt_output(scores, None), torch.tensor([[0.6, 0.4, 0.0], [1 / 3] * 3]))
    flat = torch.full((1, 100), 0.01)
    assert torch.equal(defense.adapt_output(flat, None), flat)


class Private:
    """Private data: two samples of class 0, one of class 1."""

    labels = torch.tensor([0, 0, 1])
    samples = torch.tensor([[0.0], [1.0], [0.5]])

    def take(self, indices: Tensor) -> Tensor:
        return self.samples[indices]


def test_evaluator_measures_the_nearest_private_sample(made: Callable[..., Any]) -> None:
    kind = made("evaluator")
    runtime = Runtime(device=torch.device("cpu"))
    dataset: Any = SimpleNamespace(split=lambda name: Private())
    modality: Any = None
    reference = Reference(modality=modality, dataset=dataset, target=None)

    def subject(*values: float) -> Subject:
        items = [
            Reconstruction(case=case, samples=torch.tensor([[value], [9.0]]), scores=torch.zeros(2))
            for case, value in zip(CASES, values, strict=False)
        ]
        return Subject(name="attack", reconstructions=items)

    evaluator = kind(kind.Config())
    two, one = evaluator.evaluate([subject(0.75, 0.5), subject(1.0), subject()], reference, runtime)
    assert two.per_case == {"class-0": 0.25, "class-1": 0.0}
    assert (two.value, two.n, two.direction, two.subject) == (0.125, 2, "down", "attack")
    assert two.interval.low <= two.value <= two.interval.high
    assert (one.value, one.interval) == (0.0, None)
    with pytest.raises(DataError, match="class-2"):
        evaluator.evaluate([subject(0.0, 0.0, 0.0)], reference, runtime)


TOYS = """
from micore.hookspecs import hookimpl
from micore.specs import DatasetSpec, ModalitySpec, ModelSpec

HOME, TEXT = "micore.testing.toys", "A planted problem"

@hookimpl
def mi_modalities():
    return [ModalitySpec(name="toy", target=f"{HOME}:ToyModality", summary=TEXT)]

@hookimpl
def mi_datasets():
    return [DatasetSpec(name="toy", target=f"{HOME}:open_toy", summary=TEXT, modality="toy", licence="CC0")]

@hookimpl
def mi_models():
    return [ModelSpec(name="toy", target=f"{HOME}:build_toy", summary=TEXT, modality="toy"),
            ModelSpec(name="other-toy", target=f"{HOME}:build_other_toy", summary=TEXT, modality="toy")]
"""


@pytest.mark.parametrize("kind", KINDS)
def test_package_passes_conformance(made: Callable[..., Any], site: Any, kind: str) -> None:
    from micore.testing import check_plugin

    site.install("mi-toys", TOYS)
    made(kind, toy="toy")
    report = check_plugin(kind, "my-own")
    assert report.passed, report.text()
    assert "skipped plugin-imports" not in report.text()
    assert "is not installed" not in report.text()


@pytest.mark.parametrize(("kind", "modality"), EVERY)
def test_every_package_passes_its_own_tests(
    made: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, modality: str
) -> None:
    """The tests that come with a package are run as pytest would; they check what it offers."""
    from micore import testing

    reports = []
    check = testing.check_plugin
    monkeypatch.setattr(testing, "check_plugin", lambda *names, **given: keep(reports, check(*names, **given)))
    made(kind, modality=modality or "image")
    tests = runpy.run_path(str(tmp_path / "my-own" / "tests" / "test_conformance.py"))
    test = tests["test_conformance"]
    given = {"tmp_path": tmp_path, "monkeypatch": monkeypatch}
    own = {name: given[name] for name in signature(test).parameters if name in given}
    for names, cases in [mark.args for mark in getattr(test, "pytestmark", [])] or [((), [()])]:
        for case in cases:
            test(**dict(zip(names, case, strict=True)), **own)
    assert reports
    skipped = [(row.check, row.reason) for report in reports for row in report.rows if row.status == "skipped"]
    assert [why for why in skipped if not str(why[1]).startswith(ABOUT_ANOTHER)] == []


def keep(reports: list[Any], report: Any) -> Any:
    """Note a report."""
    reports.append(report)
    return report


def test_a_graph_network_is_trained_and_attacked(made: Callable[..., Any], mi: Mi, tmp_path: Path) -> None:
    """A model whose checks are few, as graph networks answer about graphs, is tried in the whole."""
    made("model", "my-net", modality="graph")
    made("attack", "my-thief", modality="graph")
    made("evaluator", "my-judge", modality="graph")
    target, run = str(tmp_path / "target.safetensors"), tmp_path / "run"
    trained = mi("train", "--data", "blocks", "--model", "my-net", "-o", target, "-p", "epochs=60", "--device", "cpu")
    assert trained.exit_code == 0, trained.stderr
    judges = ("-e", "my-judge", "-e", "edges")
    attacked = mi("attack", "--plugin", "my-thief", "--model", target, "-o", str(run), *judges, "--device", "cpu")
    assert attacked.exit_code == 0, attacked.stderr
    found = {(item.name, item.subject): item.value for item in Run.open(run).measurements()}
    assert found["auc", "attack"] > 0.7
    assert found["my-judge", "attack"] == pytest.approx(found["precision-at-edges", "attack"])


def test_a_tracker_does_nothing_unless_asked(made: Callable[..., Any], tmp_path: Path) -> None:
    from micore.testing import check_plugin

    made("tracker")
    report = check_plugin("tracker", "my-own")
    assert report.passed, report.text()
    assert not list(tmp_path.rglob("*.jsonl"))


ROWS = [("modality", "rows"), ("dataset", "rows-patterns"), ("model", "rows-perceptron"), ("model", "rows-linear")]


def test_modality_and_what_is_built_on_it(made: Callable[..., Any], mi: Mi, tmp_path: Path) -> None:
    """A new modality is short of nothing: it is checked, trained on, attacked and judged."""
    from micore.testing import Lab, check_plugin

    implementation = made("modality", "rows")
    assert implementation.__module__ == "mi_rows.modality"
    made("attack", "climb", modality="image", toy="rows")
    registry = Registry.discover()
    lab = Lab(registry)
    for kind, name in [*ROWS, ("attack", "climb")]:
        report = check_plugin(kind, name, registry=registry, lab=lab)
        assert report.passed, report.text()
        assert [row.check for row in report.rows if row.status == "skipped" and kind != "attack"] == []
    target, run = str(tmp_path / "target.safetensors"), str(tmp_path / "run")
    trained = mi("train", "--data", "rows-patterns", "--model", "rows-perceptron", "-o", target, "-p", "epochs=8")
    assert trained.exit_code == 0, trained.stderr
    attacked = mi("attack", "--plugin", "climb", "--model", target, "--preset", "smoke", "-o", run)
    assert attacked.exit_code == 0, attacked.stderr
    assert "accuracy" in attacked.output
