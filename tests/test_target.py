"""The target refuses what the run does not grant, counts what passes, and stays as it was."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from micore.contracts import Defense
from micore.errors import AccessDenied, BudgetExceeded
from micore.inputs import InputSpec
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Access, Budget, Ledger, Spending

SPEC = InputSpec(shape=(1, 4, 4))


class Halve(Defense):
    """Halves the scores, and sees the samples."""

    def __init__(self) -> None:
        self.seen = 0

    def adapt_output(self, scores: Tensor, inputs: Tensor) -> Tensor:
        self.seen += len(inputs)
        return scores / 2


class Reverse(Defense):
    """Turns the order of the classes."""

    def __init__(self) -> None:
        pass

    def adapt_output(self, scores: Tensor, inputs: Tensor) -> Tensor:
        return scores.flip(1)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 3)).train()


def make(access: Access = Access.WHITE_BOX, module: nn.Module | None = None, **changes) -> Target:
    given = {
        "adapter": lambda samples: 2 * samples - 1, "input_spec": SPEC, "classes": ["x", "y", "z"],
        "ledger": Ledger(), "runtime": Runtime(device=torch.device("cpu")),
    }  # fmt: skip
    return Target(module or network(), access=access, **{**given, **changes})


def samples(n: int = 5) -> Tensor:
    return torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def _global_stream():
    with torch.random.fork_rng(devices=[]):
        yield


def test_answers_agree_with_the_network():
    module = network()
    target = make(module=module)
    expected = module(2 * samples() - 1).softmax(dim=1)
    assert torch.allclose(target.scores(samples()), expected)
    assert torch.equal(target.labels(samples()), expected.argmax(dim=1))
    assert torch.allclose(target.module(samples()).softmax(dim=1), expected)
    assert target.n_classes == 3
    assert target.classes == ("x", "y", "z")


def test_the_network_is_frozen_and_in_eval_mode():
    module = network()
    make(module=module)
    assert not any(layer.training for layer in module.modules())
    assert not any(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize("access", list(Access))
def test_more_than_the_run_grants_is_refused(access):
    target = make(access)
    asks = {
        Access.LABEL: lambda: target.labels(samples()),
        Access.SCORES: lambda: target.scores(samples()),
        Access.WHITE_BOX: lambda: target.module,
    }
    for needed, ask in asks.items():
        if needed <= access:
            assert ask() is not None
        else:
            with pytest.raises(AccessDenied, match=f"grants {access.label} access") as caught:
                ask()
            assert needed.label in caught.value.hint
    assert target.ledger.used_access is access


def test_a_refused_question_is_neither_counted_nor_noted():
    target = make(Access.LABEL)
    with pytest.raises(AccessDenied):
        target.scores(samples())
    assert target.ledger.total == Spending()
    assert target.ledger.used_access is None


def test_raising_the_access_afterwards_gives_nothing():
    target = make(Access.LABEL)
    target.access = Access.WHITE_BOX
    with pytest.raises(AccessDenied, match="gives no scores access"):
        target.scores(samples())
    with pytest.raises(AccessDenied, match="gives no white-box access"):
        _ = target.module


def walk(thing: object, depth: int, seen: set[int]):
    """Yield everything that the attributes of a thing lead to: all names of dir() and vars()."""
    if id(thing) in seen or depth < 0:
        return
    seen.add(id(thing))
    yield thing
    if isinstance(thing, str | bytes | int | float | type(None) | Tensor):
        return
    items = list(thing.values()) if isinstance(thing, dict) else []
    items += list(thing) if isinstance(thing, list | tuple | set | frozenset) else []
    for name in {*dir(thing), *getattr(thing, "__dict__", {})}:
        if name in ("__globals__", "__builtins__", "__closure__", "__subclasses__", "__mro__", "__base__"):
            continue  # the interpreter itself, and closures, are out of reach of the threat model
        try:
            items.append(getattr(thing, name))
        except Exception:
            continue
    for item in items:
        yield from walk(item, depth - 1, seen)


def test_an_adversary_that_walks_a_label_only_target_finds_no_network_and_no_scores():
    target = make(Access.LABEL)
    found = list(walk(target, 3, set()))
    assert len(found) > 100
    assert not [thing for thing in found if isinstance(thing, nn.Module)]
    answers = []
    for thing in found:
        if callable(thing) and not isinstance(thing, type) and getattr(thing, "__module__", None) == Target.__module__:
            try:
                answers.append(thing(samples()))
            except Exception:
                continue
    tensors = [answer for answer in answers if isinstance(answer, Tensor)]
    assert tensors, "labels themselves must be among what was called"
    assert all(answer.dtype == torch.int64 and answer.shape == (5,) for answer in tensors)


def test_the_walk_would_find_a_network_in_a_white_box_target():
    found = list(walk(make(Access.WHITE_BOX), 3, set()))
    assert [thing for thing in found if isinstance(thing, nn.Module)]


def test_queries_and_gradients_are_counted_per_sample():
    target = make()
    target.labels(samples(2))
    target.scores(samples(3))
    assert target.ledger.total == Spending(5, 0)
    inputs = samples(4).requires_grad_()
    logits = target.module(inputs)
    assert target.ledger.total == Spending(9, 0)
    logits.sum().backward(retain_graph=True)
    logits.square().sum().backward()
    assert target.ledger.total == Spending(9, 8)
    target.module(samples(1))
    assert target.ledger.total == Spending(10, 8)


def test_gradients_of_features_and_of_parameters_are_counted_too():
    target = make()
    caught = []
    target.module.inner[1].register_forward_hook(lambda _, __, output: caught.append(output))
    target.module(samples(3).requires_grad_())
    caught[-1].sum().backward()
    assert target.ledger.total == Spending(3, 3)
    target.module.inner[3].weight.requires_grad_(True)
    target.module(samples(2)).sum().backward()
    assert target.ledger.total == Spending(5, 5)


def test_scores_carry_no_gradient():
    target = make(Access.SCORES)
    assert not target.scores(samples().requires_grad_()).requires_grad


def test_what_does_not_fit_in_the_budget_is_not_sent():
    defense = Halve()
    target = make(Access.SCORES, ledger=Ledger(budget=Budget(queries=6)), output_defenses=[defense])
    target.scores(samples(4))
    with pytest.raises(BudgetExceeded, match="4 of 6 are spent"):
        target.scores(samples(3))
    assert defense.seen == 4
    target.scores(samples(2))


def test_output_defenses_stand_between_network_and_adversary_in_order():
    plain = make(Access.SCORES).scores(samples())
    halved = make(Access.SCORES, output_defenses=[Halve(), Reverse()]).scores(samples())
    assert torch.allclose(halved, plain.flip(1) / 2)
    labels = make(Access.LABEL, output_defenses=[Reverse()]).labels(samples())
    assert torch.equal(labels, 2 - plain.argmax(dim=1))


def test_a_white_box_adversary_meets_no_defense_of_answers():
    halve = Halve()
    target = make(Access.WHITE_BOX, output_defenses=[halve])
    assert torch.equal(target.scores(samples()), make(Access.SCORES).scores(samples()))
    assert halve.seen == 0
