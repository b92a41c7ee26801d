"""Views of a target: what is replaced is, the rest and the refusals are the target's, and the ledger stays true."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from micore.errors import AccessDenied, BudgetExceeded
from micore.inputs import InputSpec
from micore.kit.case_rows import tiled
from micore.kit.features import features_and_logits
from micore.kit.target_views import ModuleView, TargetView
from micore.runtime import Runtime
from micore.target import CountedModule, Target
from micore.threat import Access, Budget, Ledger, Spending


def make(access: Access = Access.WHITE_BOX, budget: int | None = None) -> Target:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 3))
    return Target(
        network, access=access, adapter=lambda samples: 2 * samples - 1, input_spec=InputSpec(shape=(1, 4, 4)),
        classes=["x", "y", "z"], ledger=Ledger(budget=Budget(queries=budget)),
        runtime=Runtime(device=torch.device("cpu")),
    )  # fmt: skip


def samples(n: int = 5) -> Tensor:
    return torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def twice(target: Target) -> ModuleView:
    """The mean of two answers to the same batch, which is asked in two passes."""
    counted = target.module
    return ModuleView(counted, lambda batch: counted(batch.repeat(2, 1, 1, 1)).view(2, len(batch), -1).mean(dim=0))


def test_a_view_without_replacements_is_the_target() -> None:
    target = make()
    view = TargetView(target)
    assert isinstance(view, Target)
    assert (view.access, view.input_spec, view.classes) == (target.access, target.input_spec, target.classes)
    assert view.n_classes == 3
    assert view.module is target.module
    assert view.ledger is target.ledger
    torch.testing.assert_close(view.scores(samples()), target.scores(samples()))
    assert torch.equal(view.labels(samples()), target.labels(samples()))
    assert target.ledger.total == Spending(queries=20)


def test_what_is_replaced_is_asked_and_the_rest_is_the_targets() -> None:
    target = make()
    view = TargetView(
        target, module=twice(target), scores=lambda batch: torch.zeros(len(batch), 3),
        labels=lambda batch: torch.full((len(batch),), 2),
    )  # fmt: skip
    assert view.scores(samples()).sum() == 0
    assert view.labels(samples()).tolist() == [2] * 5
    assert target.ledger.total == Spending()
    torch.testing.assert_close(view.module(samples()), target.module(samples()))
    torch.testing.assert_close(TargetView(target, module=twice(target)).scores(samples()), target.scores(samples()))


@pytest.mark.parametrize(("access", "refused"), [(Access.LABEL, ["scores", "module"]), (Access.SCORES, ["module"])])
def test_a_view_opens_nothing(access: Access, refused: list[str]) -> None:
    target = make(access)
    view = TargetView(target, labels=lambda batch: target.labels(batch))
    assert len(view.labels(samples())) == 5
    for name in refused:
        with pytest.raises(AccessDenied):
            _ = view.module if name == "module" else view.scores(samples())
    assert target.ledger.used_access == Access.LABEL
    assert target.ledger.total == Spending(queries=5)


def test_a_replacement_that_asks_for_more_is_refused_by_the_target() -> None:
    target = make(Access.LABEL)
    view = TargetView(target, scores=lambda batch: target.scores(batch), access=Access.WHITE_BOX)
    with pytest.raises(AccessDenied):
        view.scores(samples())


def test_a_model_of_ones_own_is_free_and_open() -> None:
    target, free = make(Access.LABEL), Ledger()
    own = CountedModule(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), lambda batch: batch[..., :2, :2], free)
    spec = InputSpec(shape=(1, 2, 2))
    view = TargetView(target, module=own, ledger=free, access=Access.WHITE_BOX, input_spec=spec)
    view.module(samples()).sum().backward()
    assert (view.access, view.input_spec, view.ledger) == (Access.WHITE_BOX, spec, free)
    assert free.total.queries == 5
    assert target.ledger.total == Spending()
    assert target.ledger.used_access is None


def test_a_module_view_shows_the_bare_network_and_its_features() -> None:
    target = make()
    view = twice(target)
    assert view.inner is target.module.inner
    assert isinstance(view, CountedModule)
    assert list(view.state_dict()) == list(target.module.state_dict())
    features, logits = features_and_logits(view, samples())
    assert features.shape == (10, 5)  # what the network itself saw: both passes
    assert logits.shape == (5, 3)


@pytest.mark.parametrize("n", [1, 3, 4, 6])
def test_repeated_batches_charge_rows_and_no_padding(n: int) -> None:
    """Two passes over tiles of four: each row costs two queries, what fills a tile up costs none."""
    target = make()
    view, owners = twice(target), [f"case-{row // 2}" for row in range(n)]
    answers = tiled(view, 4, samples(n), ledger=target.ledger, owners=owners)
    torch.testing.assert_close(answers, make().module(samples(n)))
    assert target.ledger.total == Spending(queries=2 * n)
    assert {name: spent.queries for name, spent in target.ledger.cases.items()} == {
        name: 2 * owners.count(name) for name in owners
    }


def test_gradients_are_counted_and_budgets_kept() -> None:
    target, inputs = make(budget=12), samples().requires_grad_()
    twice(target)(inputs).sum().backward()
    assert target.ledger.total == Spending(queries=10, gradients=10)
    with pytest.raises(BudgetExceeded):
        twice(target)(inputs)
    assert target.ledger.total.queries == 10
