"""An attack that is granted labels, and tries everything that the Python API offers to see more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from micore import runs
from micore.contracts import Case, NoConfig, Prepared, Reconstruction
from micore.errors import AccessDenied
from micore.hookspecs import hookimpl
from micore.runtime import Runtime
from micore.specs import AttackSpec
from micore.target import CountedModule, Target
from micore.threat import Access
from tests import toys


def public_parts(thing: object) -> Iterator[tuple[str, object]]:
    """Yield what hangs on an object under a name without an underscore."""
    for name in dir(thing):
        if not name.startswith("_"):
            try:
                yield name, getattr(thing, name)
            except AccessDenied:
                continue


def tells_more(thing: object) -> bool:
    """Tell whether an object is, or gives, more than labels."""
    if isinstance(thing, (nn.Module, nn.Parameter)):
        return True
    return isinstance(thing, Tensor) and (thing.requires_grad or thing.is_floating_point())


class Adversary:
    """Looks for scores, gradients, features and weights, and notes what it found."""

    Config = NoConfig
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {"default": {}, "smoke": {}, "paper": {}}
    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset()
    found: ClassVar[list[str]] = []
    denied: ClassVar[list[str]] = []

    def __init__(self, config: NoConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: object, runtime: Runtime) -> Prepared | None:
        """Try already here."""
        self.try_all(target, torch.zeros(1, 1, 4, 4), "prepare")
        return None

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Try again, and give back anything."""
        samples = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(1))
        self.try_all(target, samples, "run")
        for case in cases:
            yield Reconstruction(case=case, samples=samples[:1], scores=torch.zeros(1))

    def try_all(self, target: Target, samples: Tensor, when: str) -> None:
        """Ask, pretend, look and differentiate."""
        self.attempt(f"{when}: scores", lambda: target.scores(samples))
        self.attempt(f"{when}: module", lambda: target.module)
        granted, target.access = target.access, Access.WHITE_BOX
        self.attempt(f"{when}: scores after a claim", lambda: target.scores(samples))
        self.attempt(f"{when}: module after a claim", lambda: target.module)
        target.access = granted
        asked = samples.clone().requires_grad_(True)
        labels = target.labels(asked)
        if labels.is_floating_point() or labels.requires_grad or labels.shape != (len(samples),):
            self.found.append(f"{when}: labels that tell more")
        for name, part in [*public_parts(target), *public_parts(target.ledger)]:
            if tells_more(part) or any(tells_more(inner) for _, inner in public_parts(part)):
                self.found.append(f"{when}: {name}")

    def attempt(self, what: str, ask: Callable[[], object]) -> None:
        """Note whether something was given."""
        try:
            ask()
        except AccessDenied:
            self.denied.append(what)
        else:
            self.found.append(what)


class Plugin:
    """Offers the adversary."""

    @hookimpl
    def mi_attacks(self) -> list[AttackSpec]:
        """Describe it."""
        return [
            AttackSpec(name="adversary", target="tests.test_adversary:Adversary", summary="Tries", modality="toy",
                       goal="class", access=Access.LABEL)
        ]  # fmt: skip


@pytest.fixture
def tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., runs.Run]:
    """Run the adversary on a target."""
    monkeypatch.setenv("MI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(Adversary, "found", [])
    monkeypatch.setattr(Adversary, "denied", [])

    def start(model: str, **changes: Any) -> runs.Run:
        data = toys.DataRequest.parse("grids", toys.SMALL)
        request = toys.toy_request(model, attack="adversary", data=data, **changes)
        return runs.attack(toys.registry(hostile=Plugin()), request, tmp_path / "run")

    return start


@pytest.mark.parametrize(
    ("model", "options"), [("mem:1", {}), ("oracle:1", {}), ("oracle:1", {"answers": "label"})], ids=str
)
def test_labels_are_all_that_it_gets(tried, model, options):
    run = tried(model, model_options=options)
    assert Adversary.found == []
    assert len(Adversary.denied) == 8
    assert run.manifest["access"] == {"granted": "label", "used": "label"}


def test_the_test_would_notice(tried):
    """With more access the same adversary finds more: it is not blind."""
    tried("mem:1", access=Access.WHITE_BOX)
    assert {"run: scores", "run: module"} <= set(Adversary.found)


def test_what_tells_more():
    module = nn.Linear(2, 2)
    assert tells_more(module)
    assert tells_more(module.weight)
    assert tells_more(torch.rand(2))
    assert not tells_more(torch.tensor([1, 2]))
    assert issubclass(CountedModule, nn.Module)
