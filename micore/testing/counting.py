"""Counting and comparing from outside: what passes through a network, and what was left changed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from micore.answers import HasServices
from micore.threat import Access, Ledger

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(slots=True)
class RecordingLedger(Ledger):
    """A ledger that also remembers the rows which a batch declared as padding."""

    padded: dict[str, int] = field(default_factory=lambda: {"queries": 0, "gradients": 0})
    largest_padding: int = 0

    def charge(self, *, queries: int = 0, gradients: int = 0, access: Access | None = None) -> None:
        """Count a batch."""
        Ledger.charge(self, queries=queries, gradients=gradients, access=access)
        self.padded["queries"] += self._padding_of(queries)
        self.padded["gradients"] += self._padding_of(gradients)
        self.largest_padding = max(self.largest_padding, self._padding)


@dataclass(slots=True)
class Counts:
    """Rows that really passed the first layer of a network, forward and backward."""

    queries: int = 0
    gradients: int = 0


@contextmanager
def counted(module: nn.Module) -> Iterator[Counts]:
    """Count at the first layer with parameters: whoever evaluates the network passes it.

    What a service does for an input, such as writing a text token by token or explaining an answer, is one query.
    """
    counts, serving = Counts(), False

    def forward(_: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        if serving:
            return
        counts.queries += len(output)
        if output.requires_grad:
            output.register_hook(backward)

    def backward(gradient: Tensor) -> None:
        counts.gradients += len(gradient)

    def serve(name: str, inputs: Any, **options: Any) -> Any:
        nonlocal serving
        counts.queries += len(inputs)
        serving = True
        try:
            return type(module).serve(module, name, inputs, **options)  # type: ignore[attr-defined]
        finally:
            serving = False

    if isinstance(module, HasServices):
        vars(module)["serve"] = serve
    first = next(layer for layer in module.modules() if next(layer.parameters(recurse=False), None) is not None)
    handle = first.register_forward_hook(forward)
    try:
        yield counts
    finally:
        handle.remove()
        vars(module).pop("serve", None)


def condition(module: nn.Module) -> dict[str, Any]:
    """Return everything about a network that an attack must leave as it was."""
    state: dict[str, Any] = {f"value of {name}": tensor.clone() for name, tensor in module.state_dict().items()}
    for name, parameter in module.named_parameters():
        state[f"requires_grad of {name}"] = parameter.requires_grad
        state[f"grad of {name}"] = parameter.grad is not None
    for name, layer in module.named_modules():
        state[f"train mode of {name or 'the network'}"] = layer.training
        state[f"hooks of {name or 'the network'}"] = [tuple(getattr(layer, hooks)) for hooks in HOOKS]
        state[f"forward of {name or 'the network'}"] = "forward" in vars(layer)
    return state


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Name what differs between two conditions."""
    return [key for key in before if key not in after or not same(before[key], after[key])]


def same(one: Any, other: Any) -> bool:
    """Compare nested values bit for bit."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one.nan_to_num(), other.nan_to_num())
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other, strict=True))
    return bool(one == other)


def global_streams() -> dict[str, Any]:
    """Return the states of the global random generators."""
    kind, keys, position, *_ = np.random.get_state()
    return {
        "torch": torch.get_rng_state(), "numpy": [str(kind), torch.from_numpy(np.array(keys)), position],
        "random": random.getstate(),
    }  # fmt: skip


@contextmanager
def scrambled(seed: int) -> Iterator[None]:
    """Seed all global generators inside the block, and put them back where they were."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])
