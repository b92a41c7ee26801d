"""What networks answer and how they are trained: classifiers by convention, networks of other roles as they say.

A classifier's ``forward`` gives logits (N, classes): it answers with their softmax and learns by cross-entropy. Any
other network says what differs by methods of its own, described by the protocols here; they are looked for one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Tensor, nn
from torch.nn import functional

from micore.inputs import InputSpec
from micore.records import Samples
from micore.threat import Access

if TYPE_CHECKING:
    from micore.runtime import Random

Service = Callable[..., Any]
"""Inputs as the model takes them, and options by name, to one result for each input: a tensor (N, ...) or a list."""


@runtime_checkable
class HasAnswer(Protocol):
    """A network that answers with something else than class probabilities."""

    def answer(self, inputs: Tensor) -> Tensor:
        """Return what its interface gives for inputs (N, ...): an embedding, a distribution of tokens; (N, K)."""


@runtime_checkable
class HasTask(Protocol):
    """A network that learns something else than classes."""

    def task_loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each of the inputs (N, ...), (N,); labels (N,) are 0 where the data have none."""


@runtime_checkable
class HasQuality(Protocol):
    """A network with a task of its own that can say how well it does it, besides its loss."""

    def quality(self, inputs: Tensor, labels: Tensor) -> Mapping[str, Tensor]:
        """Return a value for each of the inputs (N, ...) by name, such as an error rate, (N,)."""


@runtime_checkable
class LearnsAtOnce(Protocol):
    """A network that learns from all data in one go, such as a tree: defenses of steps do not fit it."""

    def learn(self, inputs: Tensor, labels: Tensor, rng: Random) -> None:
        """Learn from all inputs (N, ...) and their labels (N,)."""


@runtime_checkable
class HasServices(Protocol):
    """A network whose interface does more than answer single inputs, such as going on with a text.

    services: by name the least access that each needs; `serve` carries one out.
    """

    services: Mapping[str, Access]

    def serve(self, name: str, inputs: Tensor, **options: Any) -> Any:
        """Return one result for each of the inputs."""


def answer_of(module: nn.Module, inputs: Samples) -> Tensor:
    """Return what an undefended network's interface gives for its inputs, float32 (N, K)."""
    if isinstance(module, HasAnswer):
        return module.answer(inputs).float()
    scores: Tensor = module(inputs).float().softmax(dim=1)
    return scores


def is_classifier(module: nn.Module) -> bool:
    """Tell whether the answers are probabilities of classes."""
    return not isinstance(module, HasAnswer)


def is_trained(module: nn.Module) -> bool:
    """Tell whether a network comes with its weights, so that a training leaves it as it is."""
    return bool(getattr(module, "comes_trained", False))


def task_losses(module: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of each input, (N,): the network's own, or the cross-entropy of its logits."""
    if isinstance(module, HasTask):
        return module.task_loss(inputs, labels)
    return functional.cross_entropy(module(inputs).float(), labels, reduction="none")


def input_of(module: nn.Module, offered: InputSpec) -> InputSpec:
    """Return the input that a network takes: its own, where it comes with one, or else what the data offer."""
    own = getattr(module, "own_input", None)
    return own if isinstance(own, InputSpec) else offered
