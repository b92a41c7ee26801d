"""The target as the adversary sees it: it refuses what the access does not grant, and counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from micore.contracts import Defense, Samples
from micore.errors import AccessDenied
from micore.inputs import InputSpec
from micore.runtime import Runtime
from micore.threat import Access, Ledger

Query = Callable[[Samples], Tensor]


class Target:
    """A model behind its threat model.

    Samples go in as the modality's canonical ones; the target converts them to the model's input.
    ``labels`` needs access LABEL, ``scores`` SCORES, ``module`` WHITE_BOX; asking for more than was
    granted raises AccessDenied. Every sample that passes is counted in ``ledger`` before it is sent.

    What the adversary may not see lives in closures, not in attributes: a label-only target holds
    no reference to its network that the Python API offers.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        access: Access,
        adapter: Callable[[Samples], Tensor],
        input_spec: InputSpec,
        classes: Sequence[str],
        ledger: Ledger,
        runtime: Runtime,
        output_defenses: Sequence[Defense] = (),
    ) -> None:
        self.access = access
        self.input_spec = input_spec
        self.classes = tuple(classes)
        self.ledger = ledger
        _freeze(module)
        runtime.place(module)
        scores = _answering(module, adapter, ledger, output_defenses)
        self._labels = _labelling(scores)
        self._scores = scores if access >= Access.SCORES else None
        self._module = CountedModule(module, adapter, ledger) if access >= Access.WHITE_BOX else None

    @property
    def n_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    def labels(self, samples: Samples) -> Tensor:
        """Return the most likely class of each sample, int64 (N,)."""
        self._require(Access.LABEL)
        return self._labels(samples)

    def scores(self, samples: Samples) -> Tensor:
        """Return the class probabilities of each sample, (N, classes), after output defenses.

        Raises: AccessDenied for a label-only adversary; BudgetExceeded.
        """
        self._require(Access.SCORES)
        if self._scores is None:
            raise AccessDenied("this target answers with labels only")
        return self._scores(samples)

    @property
    def module(self) -> CountedModule:
        """The network itself, for logits, gradients, features and parameters.

        Raises: AccessDenied unless the run grants white-box access.
        """
        self._require(Access.WHITE_BOX)
        if self._module is None:
            raise AccessDenied("this target has no module in memory", hint="attack it with scores or label access")
        return self._module

    def _require(self, access: Access) -> None:
        if self.access < access:
            raise AccessDenied(
                f"the run grants {self.access.label} access; this needs {access.label}",
                hint=f"--access {access.label}, if the adversary really has it",
            )
        self.ledger.note_access(access)


class CountedModule(nn.Module):
    """The white-box view of a target: takes canonical samples, gives logits, counts both directions.

    ``inner`` is the network itself (for its layers and hooks); call this module, not ``inner``, to
    have samples converted and counted.
    """

    def __init__(self, inner: nn.Module, adapter: Callable[[Samples], Tensor], ledger: Ledger) -> None:
        super().__init__()
        self.inner = inner
        self._adapter = adapter
        self._ledger = ledger

    def forward(self, samples: Samples) -> Tensor:
        """Return the logits of canonical samples, (N, classes), differentiable in them."""
        self._ledger.charge(queries=len(samples))
        inputs = self._adapter(samples)
        if inputs.requires_grad:  # counted at the input: a loss on features alone passes no logits
            inputs = inputs.view_as(inputs)  # of this call only; the samples may be used again
            inputs.register_hook(self._count_backward)
        logits: Tensor = self.inner(inputs)
        if logits.requires_grad and not inputs.requires_grad:
            logits.register_hook(self._count_backward)
        return logits

    def _count_backward(self, gradient: Tensor) -> None:
        self._ledger.charge(gradients=len(gradient))


def _answering(
    module: nn.Module, adapter: Callable[[Samples], Tensor], ledger: Ledger, defenses: Sequence[Defense]
) -> Query:
    """Close over the network: query in, defended probabilities out."""

    @torch.no_grad()
    def answer(samples: Samples) -> Tensor:
        ledger.charge(queries=len(samples))
        scores: Tensor = module(adapter(samples)).float().softmax(dim=1)
        for defense in defenses:
            scores = defense.adapt_output(scores, samples)
        return scores

    return answer


def _labelling(scores: Query) -> Query:
    """Close over the scores: a label-only target holds nothing that gives more."""
    return lambda samples: scores(samples).argmax(dim=1)


def _freeze(module: nn.Module) -> None:
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
