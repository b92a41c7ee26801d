"""A trained toy target, a home of each test's own, and short ways to make runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from micore import runs
from micore.artifacts import Bundle
from micore.registry import Registry
from micore.runs import Run
from tests import toys


@pytest.fixture(scope="session")
def plugins() -> Registry:
    """The toy plugins."""
    return toys.registry()


@pytest.fixture(scope="session")
def bundle(plugins: Registry) -> Bundle:
    """A trained toy target."""
    return toys.toy_bundle(plugins)


@pytest.fixture(scope="session")
def shared_target(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the toy target; not to be changed."""
    path = tmp_path_factory.mktemp("targets") / "toy-target.safetensors"
    bundle.save(path)
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of this test's own, so that nothing is cached."""
    path = tmp_path / "home"
    monkeypatch.setenv("MI_HOME", str(path))
    return path


@pytest.fixture
def launch(plugins: Registry, shared_target: Path, tmp_path: Path, home: Path) -> Callable[..., Run]:
    """Attack the toy target: ``launch("name", attack="scripted", **changes of the request)``."""

    def start(name: str = "run", *, registry: Registry | None = None, **changes: object) -> Run:
        request = toys.toy_request(changes.pop("model", shared_target), **changes)
        return runs.attack(registry or plugins, request, tmp_path / name)

    return start
