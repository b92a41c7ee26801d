"""Targets that are no bundle: endpoints, exported networks, functions of the user's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from micore.answers import Service
from micore.artifacts import Card, PluginUse
from micore.errors import UsageError
from micore.inputs import InputSpec
from micore.threat import Access
from micore.versions import versions

if TYPE_CHECKING:
    from torch import Tensor, nn

    from micore.contracts import Dataset
    from micore.runtime import Runtime

Respond = Callable[[Any], "Tensor"]
"""Inputs as the model takes them, a tensor (N, ...) or a list, to the scores of all classes, (N, K): shares of 1, where
0 may stand for "not told" (a top-k answer). A target that answers with labels only returns int64 (N,), one that is no
classifier vectors (N, d)."""


class HasFace(Protocol):
    """What the core needs to know of any target: a bundle has it, too."""

    @property
    def card(self) -> Card:
        """What the target says about itself."""

    @property
    def fingerprint(self) -> str:
        """Hash that tells it from other targets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRequest:
    """What a source plugin is asked for: its target is called as ``load(request)``.

    uri: as the user gave it, with its scheme; options: of ``--model-option``; dataset: what the run attacks, if it is
    named: it says which classes there are and what the input looks like.
    """

    uri: str
    runtime: Runtime
    options: Mapping[str, Any] = field(default_factory=dict)
    dataset: Dataset | None = None

    @property
    def place(self) -> str:
        """The URI without its scheme."""
        return self.uri.partition(":")[2]

    def require_dataset(self) -> Dataset:
        """Return the data set.

        Raises: UsageError when there is none.
        """
        if self.dataset is None:
            raise UsageError(
                f"the classes and the input of {self.uri} are not known",
                hint="give --data, the data set that the target is meant for",
            )
        return self.dataset

    def card(self, name: str, input_spec: InputSpec | None = None) -> Card:
        """Describe a classifier of the data set's classes; its input is the data set's unless another one is given.

        Raises: UsageError without a data set.
        """
        dataset = self.require_dataset()
        return Card(
            role="classifier", modality=dataset.modality, model=PluginUse(name=name, config=dict(self.options)),
            input=input_spec or dataset.input, classes=dataset.classes, data={}, versions=versions(),
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class External:
    """A target that a source has opened.

    Either ``module``, a network in memory that gives logits, differentiable in its input: all access can be granted; or
    ``respond``, which only answers: ``access`` is then the most that can be granted, SCORES or LABEL, and ``services``
    what its interface does besides, each with the least access that it needs. notes: what a reader of the run must know
    of it.
    """

    card: Card
    fingerprint: str
    module: nn.Module | None = None
    respond: Respond | None = None
    services: Mapping[str, tuple[Access, Service]] = field(default_factory=dict)
    access: Access = Access.SCORES
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.module is None) == (self.respond is None):
            raise ValueError("an external target has either a module or respond")

    @property
    def highest_access(self) -> Access:
        """The most that a run can grant."""
        return self.access if self.module is None else Access.WHITE_BOX
