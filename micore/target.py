"""The target as the adversary sees it: it refuses what the access does not grant, and counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from micore.answers import HasServices, Service, answer_of
from micore.contracts import Defense, Samples
from micore.defense import guarded
from micore.errors import AccessDenied, TargetError, UsageError
from micore.external import Respond
from micore.inputs import InputSpec
from micore.runtime import Runtime
from micore.threat import Access, Ledger

CLASSIFIER = "classifier"
"""The role of targets whose scores are probabilities of classes."""

_OTHER_TARGET = "attack a target that does, or use an attack that does not need it"

Query = Callable[[Samples], Tensor]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerForm:
    """What an interface shows of the scores; the labels stay as they are.

    top_k: only the largest so many, the others are 0; decimals: rounded to so many. None: all of it.
    """

    top_k: int | None = None
    decimals: int | None = None

    def __post_init__(self) -> None:
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"--top-k must be at least 1, not {self.top_k}")
        if self.decimals is not None and self.decimals < 0:
            raise UsageError(f"--round must be at least 0, not {self.decimals}")

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left out."""
        return self.top_k is None and self.decimals is None

    def apply(self, scores: Tensor) -> Tensor:
        """Return what is shown of scores (N, K)."""
        if self.top_k is not None and self.top_k < scores.shape[1]:
            shown = scores.topk(self.top_k, dim=1)
            scores = torch.zeros_like(scores).scatter(1, shown.indices, shown.values)
        return scores if self.decimals is None else scores.round(decimals=self.decimals)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"top_k": self.top_k, "decimals": self.decimals}


class Target:
    """A model behind its threat model.

    Samples go in as the modality's canonical ones; the target converts them to the model's input.
    ``labels`` needs access LABEL, ``scores`` SCORES, ``module`` WHITE_BOX; asking for more than was
    granted raises AccessDenied. Every sample that passes is counted in ``ledger`` before it is sent.

    What the adversary may not see lives in closures, not in attributes: a label-only target holds
    no reference to its network that the Python API offers.

    model: a network in memory, or a function that only answers (see `micore.external.Respond`). form: what its
    interface shows of the scores. role: what it is; a classifier's scores are probabilities of its classes. services:
    what its interface does besides, by name, with the least access that each needs; a network in memory says its own.
    watched: whether defenses that monitor see the queries. answering: the conversion that its interface makes, where
    that knows more than ``adapter``, which white-box access uses (see `micore.contracts.HasDeployment`).
    """

    def __init__(
        self,
        model: nn.Module | Respond,
        *,
        access: Access,
        adapter: Callable[[Samples], Tensor],
        input_spec: InputSpec,
        classes: Sequence[str],
        ledger: Ledger,
        runtime: Runtime,
        output_defenses: Sequence[Defense] = (),
        form: AnswerForm | None = None,
        role: str = CLASSIFIER,
        services: Mapping[str, tuple[Access, Service]] | None = None,
        watched: bool = True,
        answering: Callable[[Samples], Tensor] | None = None,
    ) -> None:
        self.access = access
        self.input_spec = input_spec
        self.classes = tuple(classes)
        self.ledger = ledger
        self.role = role
        own = answering or adapter
        if isinstance(model, nn.Module):
            _freeze(model)
            runtime.place(model)
            own = _placed(own, runtime)
            respond, counted = _in_memory(model), CountedModule(model, _placed(adapter, runtime), ledger)
            services = _own_services(model)
        else:
            width = len(self.classes) if role == CLASSIFIER else None
            respond, counted = _elsewhere(model, width, ledger), None
        # who holds the network computes its scores, whatever its interface would answer
        guards = () if access >= Access.WHITE_BOX else output_defenses
        answers = partial(_answering, respond, own, ledger, guards, watched=watched)
        self._services = {
            name: (least, _serving(name, service, own, ledger, guards, least) if access >= least else None)
            for name, (least, service) in (services or {}).items()
        }
        self._labels = _labelling(answers(Access.LABEL))
        self._scores = _showing(answers(Access.SCORES), form or AnswerForm()) if access >= Access.SCORES else None
        self._module = counted if access >= Access.WHITE_BOX else None

    @property
    def n_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    def labels(self, samples: Samples) -> Tensor:
        """Return the most likely class of each sample, int64 (N,)."""
        return self._granted(Access.LABEL, self._labels)(samples)

    def scores(self, samples: Samples) -> Tensor:
        """Return the class probabilities of each sample, (N, classes), after output defenses.

        With white-box access they are left out. A target that is no classifier answers with what its role says:
        embeddings, or the distribution of the next token, (N, K).

        Raises: AccessDenied for a label-only adversary; BudgetExceeded.
        """
        return self._granted(Access.SCORES, self._scores)(samples)

    @property
    def module(self) -> CountedModule:
        """The network itself, for logits, gradients, features and parameters.

        Raises: AccessDenied unless the run grants white-box access.
        """
        return self._granted(Access.WHITE_BOX, self._module)

    @property
    def services(self) -> Mapping[str, Access]:
        """What the target's interface does besides answering, with the least access that each needs."""
        return {name: least for name, (least, _) in self._services.items()}

    def ask(self, service: str, samples: Samples, **options: Any) -> Any:
        """Return one result of a service for each sample, such as a completion; each counts as a query.

        Raises: AccessDenied where the run does not grant it; UsageError when the target has no such service;
        BudgetExceeded.
        """
        if service not in self._services:
            offered = ", ".join(self._services) or "none"
            raise UsageError(f"the target does not offer {service!r}; it offers: {offered}", hint=_OTHER_TARGET)
        least, serve = self._services[service]
        return self._granted(least, serve)(samples, **options)

    def _granted(self, access: Access, part: T | None) -> T:
        """Return what an access opens; raise AccessDenied, and note nothing, where it is not granted."""
        if self.access < access:
            raise AccessDenied(
                f"the run grants {self.access.label} access; this needs {access.label}",
                hint=f"--access {access.label}, if the adversary really has it",
            )
        if part is None:
            raise AccessDenied(
                f"this target gives no {access.label} access: there is nothing behind it",
                hint="attack it with the access that the run was granted",
            )
        self.ledger.note_access(access)
        return part


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
        self._ledger.charge(queries=len(samples), access=Access.WHITE_BOX)
        inputs = self._adapter(samples)
        # counted at the input: a loss on features alone passes no logits
        if isinstance(inputs, Tensor) and inputs.requires_grad:
            inputs = inputs.view_as(inputs)  # of this call only; the samples may be used again
            inputs.register_hook(self._count_backward)
        logits: Tensor = self.inner(inputs)
        if logits.requires_grad and not getattr(inputs, "requires_grad", False):
            logits.register_hook(self._count_backward)
        return logits

    def _count_backward(self, gradient: Tensor) -> None:
        self._ledger.charge(gradients=len(gradient))


def _placed(adapter: Callable[[Samples], Tensor], runtime: Runtime) -> Callable[[Samples], Tensor]:
    """Return the adapter with its inputs on the runtime's device: samples that are no tensors have no device."""
    return lambda samples: adapter(samples).to(runtime.device)


def _answering(
    respond: Respond, adapter: Callable[[Samples], Tensor], ledger: Ledger, defenses: Sequence[Defense],
    access: Access, *, watched: bool,
) -> Query:  # fmt: skip
    """Close over the model: query in, defended scores (N, K), or labels (N,), out. access: what the adversary sees."""

    @torch.no_grad()
    def answer(samples: Samples) -> Tensor:
        ledger.charge(queries=len(samples), access=access)
        scores = guarded(respond(adapter(samples)), samples, defenses)
        if watched:
            _show_watchers(defenses, scores, samples, ledger)
        return scores

    return answer


def _own_services(module: nn.Module) -> dict[str, tuple[Access, Service]]:
    """Return what a network in memory offers besides answering."""
    if not isinstance(module, HasServices):
        return {}
    return {name: (least, partial(_serve, module, name)) for name, least in module.services.items()}


def _serve(module: HasServices, name: str, inputs: Samples, **options: Any) -> Any:
    return module.serve(name, inputs, **options)


def _serving(
    name: str, service: Service, adapter: Callable[[Samples], Tensor], ledger: Ledger, defenses: Sequence[Defense],
    access: Access,
) -> Service:  # fmt: skip
    """Close over a service: samples in, what the defenses leave of its results out."""

    @torch.no_grad()
    def serve(samples: Samples, **options: Any) -> Any:
        ledger.charge(queries=len(samples), access=access)
        results = service(adapter(samples), **options)
        for defense in defenses:
            results = defense.adapt_service(name, results, samples)
        return results

    return serve


def _show_watchers(defenses: Sequence[Defense], scores: Tensor, samples: Samples, ledger: Ledger) -> None:
    """Show those that watch what was asked and answered, without the rows that only fill a batch up."""
    watchers = [defense for defense in defenses if type(defense).observe is not Defense.observe]
    if watchers:
        real = [row for row, asked in enumerate(ledger.is_real(len(scores))) if asked]
        for defense in watchers:
            asked_for = samples[real] if isinstance(samples, Tensor) else [samples[row] for row in real]
            defense.observe(scores[real], asked_for)


def _in_memory(module: nn.Module) -> Respond:
    return lambda inputs: answer_of(module, inputs)


def _elsewhere(respond: Respond, width: int | None, ledger: Ledger) -> Respond:
    """Send only the rows that are asked for, each of which may cost money, and check what comes back.

    width: how many classes the answers are probabilities of; None: they are vectors of any width.
    """

    def answer(inputs: Samples) -> Tensor:
        real = torch.tensor(ledger.is_real(len(inputs)))
        if isinstance(inputs, Tensor):
            answers = respond(inputs[real.to(inputs.device)]).to(inputs.device)
        else:
            answers = respond([item for item, asked in zip(inputs, real.tolist(), strict=True) if asked])
        n = int(real.sum())
        if width is None:
            _check_vectors(answers, n)
        else:
            _check_answers(answers, n, width)
        places = (real.cumsum(0) - 1).clamp(min=0)
        return answers[places.to(answers.device)]

    return answer


def _check_vectors(answers: Tensor, n: int) -> None:
    """Raise TargetError for answers that are not one finite vector for each sample."""
    if answers.ndim != 2 or len(answers) != n:
        raise TargetError(f"the target answered {n} samples with a tensor of shape {tuple(answers.shape)}")
    if not bool(torch.isfinite(answers).all()):
        raise TargetError("the target answered with values that are no finite numbers")


def _check_answers(answers: Tensor, n: int, n_classes: int) -> None:
    """Raise TargetError for answers that are neither scores of all classes nor labels."""
    if answers.shape == (n,) and not answers.is_floating_point():
        usable = bool(((answers >= 0) & (answers < n_classes)).all())
    else:
        if answers.shape != (n, n_classes):
            raise TargetError(
                f"the target answered {n} samples with a tensor of shape {tuple(answers.shape)}; "
                f"the data set has {n_classes} classes",
                hint="give the data set that the target is meant for",
            )
        usable = bool((torch.isfinite(answers) & (answers >= 0) & (answers <= 1.001)).all())
    if not usable:
        raise TargetError("the target answered with values that are no probabilities or labels of its classes")


def _showing(answers: Query, form: AnswerForm) -> Query:
    """Close over the answers: what the interface shows of them."""
    return lambda samples: form.apply(answers(samples))


def _labelling(answers: Query) -> Query:
    """Close over the answers: a label-only target holds nothing that gives more."""

    def labels(samples: Samples) -> Tensor:
        found = answers(samples)
        return found if found.ndim == 1 else found.argmax(dim=1)

    return labels


def _freeze(module: nn.Module) -> None:
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
