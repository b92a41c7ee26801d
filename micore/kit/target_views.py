"""What an attack is given in a target's stead, when a wrapper changes some of the answers.

The samples still go through the real target and are counted there. A view that asks about a batch more than once asks
about the whole batch again: `micore.threat.Ledger.owned_by` knows a batch by its rows, and what fills it up stands at
the end of each pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from micore.contracts import Samples
from micore.inputs import InputSpec
from micore.target import CountedModule, Query, Target
from micore.threat import Access, Ledger

__all__ = ["ModuleView", "TargetView"]


class TargetView(Target):
    """A target of which some answers are replaced; the others, and the refusals, are the target's own.

    module: in place of ``target.module``, such as a `ModuleView` of it; scores: of ``target.scores``; labels: of
    ``target.labels``. ledger, access, input_spec: of a view that is a model of the adversary's own, which costs nothing
    and is all its to see; otherwise the target's. What asks the target through a replacement is checked and counted
    there.
    """

    def __init__(
        self, target: Target, *, module: CountedModule | None = None, scores: Query | None = None,
        labels: Query | None = None, ledger: Ledger | None = None, access: Access | None = None,
        input_spec: InputSpec | None = None,
    ) -> None:  # fmt: skip
        # Nothing of the target's insides is taken over: what is not replaced is asked of it, which may refuse.
        self.access = target.access if access is None else access
        self.input_spec = target.input_spec if input_spec is None else input_spec
        self.classes = target.classes
        self.role = target.role
        self.ledger = target.ledger if ledger is None else ledger
        self._target, self._replaced = target, module
        self._ask_scores: Query = target.scores if scores is None else scores
        self._ask_labels: Query = target.labels if labels is None else labels

    def labels(self, samples: Samples) -> Tensor:
        """Return the most likely class of each sample, int64 (N,)."""
        return self._ask_labels(samples)

    def scores(self, samples: Samples) -> Tensor:
        """Return the class probabilities of each sample, (N, classes).

        Raises: AccessDenied where they are the target's and not granted; BudgetExceeded.
        """
        return self._ask_scores(samples)

    @property
    def services(self) -> Mapping[str, Access]:
        """What the target offers besides answering."""
        return self._target.services

    def ask(self, service: str, samples: Samples, **options: Any) -> Any:
        """Return the target's own results of a service; its refusals are the target's."""
        return self._target.ask(service, samples, **options)

    @property
    def module(self) -> CountedModule:
        """The replaced network, or the target's.

        Raises: AccessDenied where it is the target's and not granted.
        """
        return self._target.module if self._replaced is None else self._replaced


class ModuleView(CountedModule):
    """A target's module with another way forward; ``inner`` is still the bare network, for its layers and hooks.

    counted: the target's ``module``. forward: canonical samples (N, ...) to logits (N, K); it has to ask ``counted``,
    as nothing else here counts.
    """

    def __init__(self, counted: CountedModule, forward: Callable[[Samples], Tensor]) -> None:
        super().__init__(counted.inner, counted._adapter, counted._ledger)
        self._way = forward

    def forward(self, samples: Samples) -> Tensor:
        """Return the logits of canonical samples, (N, classes)."""
        return self._way(samples)
