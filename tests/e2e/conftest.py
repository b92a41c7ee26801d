"""Models and a run that the tests share, and the command line with a home of each test's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

from tests.e2e.commands import CommandLine, call, complaint, trained


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of this test's own, so that nothing is cached."""
    path = tmp_path / "home"
    monkeypatch.setenv("MI_HOME", str(path))
    return path


@pytest.fixture
def shell(home: Path) -> Iterator[CommandLine]:
    """Start ``mi`` in processes of their own, with this test's home."""
    shell = CommandLine(home)
    yield shell
    shell.end()


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the models that tests share lie."""
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="session")
def target(bundles: Path) -> Path:
    """A target that ``mi train`` trained on digits 0-4; not to be changed."""
    return trained(bundles / "target.safetensors", "--model", "small-cnn", "-p", "epochs=2")


@pytest.fixture(scope="session")
def defended(bundles: Path) -> Path:
    """The same target with a defense."""
    options = ("--model", "small-cnn", "-p", "epochs=2", "--defense", "neg-label-smoothing")
    return trained(bundles / "defended.safetensors", *options)


@pytest.fixture(scope="session")
def judge(bundles: Path) -> Path:
    """A quickly trained evaluator model, so that no test trains its own."""
    options = ("--model", "small-resnet", "-p", "epochs=3", "-p", "augment=strong", "--seed", "9")
    return trained(bundles / "judge.safetensors", *options)


@pytest.fixture
def mi(home: Path) -> Callable[..., Result]:
    """Call ``mi`` in this process, with this test's home."""
    return lambda *arguments: call(home, *arguments)


@pytest.fixture(scope="session")
def attack_arguments(target: Path, judge: Path) -> tuple[str, ...]:
    """The smallest whole attack."""
    return ("attack", "--plugin", "plmi", "--model", str(target), "--preset", "smoke", "--device", "cpu",
            "--evaluator-model", str(judge))  # fmt: skip


@pytest.fixture(scope="session")
def plain(attack_arguments: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `attack_arguments`, uninterrupted, case by case; not to be changed."""
    place = tmp_path_factory.mktemp("plain")
    result = call(place / "home", *attack_arguments, "-o", place / "run")
    assert result.exit_code == 0, result.output
    return place / "run"


@pytest.fixture
def refused(mi, tmp_path):
    """Call ``mi``, check that it refuses cleanly, and return its error and hint."""

    def call(code: int, *arguments: object) -> tuple[str, str]:
        before = {path for path in tmp_path.rglob("*") if "home" not in path.relative_to(tmp_path).parts}
        result = mi(*arguments)
        return complaint(result.exit_code, code, result.stdout, result.stderr, tmp_path, before)

    return call
