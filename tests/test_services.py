"""Targets that are no classifiers: what they answer, what else they do, and for whom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from micore.answers import answer_of, input_of, is_classifier, is_trained, task_losses
from micore.defense import Defense
from micore.errors import AccessDenied, BudgetExceeded, TargetError, UsageError
from micore.external import External
from micore.inputs import InputSpec
from micore.kit.target_views import TargetView
from micore.kit.training import PartOf, Trainer, TrainingConfig, set_aside
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Access, Budget, Ledger
from micore.utility import mean_loss, neighbour_overlap

SPEC = InputSpec(shape=(3,))
RUNTIME = Runtime(device=torch.device("cpu"))


class Encoder(nn.Module):
    """Answers with twice its input, and sums on demand; its labels are none."""

    services: ClassVar[Mapping[str, Access]] = {"add": Access.SCORES, "count": Access.LABEL}

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.scale * inputs

    def answer(self, inputs: Tensor) -> Tensor:
        return self(inputs)

    def task_loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        return ((self(inputs) - 5 * inputs) ** 2).mean(dim=1)

    def serve(self, name: str, inputs: Tensor, **options: Any) -> Any:
        return inputs.sum(dim=1) + options.get("more", 0) if name == "add" else [inputs.shape[1]] * len(inputs)


class Halved(Defense):
    """Halves answers and sums."""

    def adapt_output(self, scores: Tensor, inputs: Any) -> Tensor:
        return scores / 2

    def adapt_service(self, service: str, results: Any, inputs: Any) -> Any:
        return results / 2 if service == "add" else results


class Watching(Defense):
    def __init__(self) -> None:
        super().__init__(None)
        self.seen = 0

    def observe(self, scores: Tensor, inputs: Any) -> None:
        self.seen += len(scores)


def target(access=Access.SCORES, defenses=(), budget=None, model=None, **others):
    return Target(
        model or Encoder(), access=access, adapter=lambda samples: samples, input_spec=SPEC, classes=(),
        ledger=Ledger(budget=Budget(queries=budget)), runtime=RUNTIME, output_defenses=defenses, role="encoder",
        **others,
    )  # fmt: skip


SAMPLES = torch.arange(6.0).view(2, 3)


def test_answers_are_the_network_s_own():
    torch.testing.assert_close(target().scores(SAMPLES), 2 * SAMPLES)
    assert not is_classifier(Encoder())
    plain = nn.Linear(3, 2)
    torch.testing.assert_close(answer_of(plain, SAMPLES), plain(SAMPLES).softmax(dim=1))


def test_a_service_gives_one_result_per_sample_and_costs_one_query_each():
    asked = target()
    torch.testing.assert_close(asked.ask("add", SAMPLES, more=1), torch.tensor([4.0, 13.0]))
    assert asked.ledger.total.queries == 2
    assert asked.ledger.used_access == Access.SCORES
    assert asked.services == {"add": Access.SCORES, "count": Access.LABEL}


def test_a_service_needs_its_access():
    asked = target(Access.LABEL)
    assert asked.ask("count", SAMPLES) == [3, 3]
    with pytest.raises(AccessDenied, match="grants label access; this needs scores"):
        asked.ask("add", SAMPLES)
    assert asked.ledger.total.queries == 2


def test_a_service_that_is_not_there_is_named():
    with pytest.raises(UsageError, match="does not offer 'sing'; it offers: add, count"):
        target().ask("sing", SAMPLES)


def test_the_budget_holds_for_services():
    asked = target(budget=3)
    asked.ask("add", SAMPLES)
    with pytest.raises(BudgetExceeded):
        asked.ask("add", SAMPLES)


def test_defenses_stand_before_answers_and_services_but_not_before_a_white_box():
    torch.testing.assert_close(target(defenses=[Halved(None)]).scores(SAMPLES), SAMPLES)
    torch.testing.assert_close(target(defenses=[Halved(None)]).ask("add", SAMPLES), torch.tensor([1.5, 6.0]))
    torch.testing.assert_close(target(Access.WHITE_BOX, [Halved(None)]).ask("add", SAMPLES), torch.tensor([3.0, 12.0]))


def test_who_is_not_watched_leaves_no_trace():
    defense = Watching()
    target(defenses=[defense], watched=False).scores(SAMPLES)
    assert defense.seen == 0
    target(defenses=[defense]).scores(SAMPLES)
    assert defense.seen == 2


def test_a_view_passes_services_on():
    view = TargetView(target(), scores=lambda samples: samples)
    assert view.role == "encoder"
    assert view.services.keys() == {"add", "count"}
    torch.testing.assert_close(view.ask("add", SAMPLES), torch.tensor([3.0, 12.0]))


def test_a_target_elsewhere_answers_with_vectors_and_has_services_of_its_source():
    asked = target(model=lambda inputs: inputs + 1, services={"echo": (Access.SCORES, lambda inputs: list(inputs))})
    torch.testing.assert_close(asked.scores(SAMPLES), SAMPLES + 1)
    assert len(asked.ask("echo", SAMPLES)) == 2


@pytest.mark.parametrize("answer", [torch.zeros(3, 2), torch.zeros(2), torch.full((2, 2), torch.nan)])
def test_answers_that_are_no_vectors_are_refused(answer):
    with pytest.raises(TargetError, match="the target answered"):
        target(model=lambda inputs: answer).scores(SAMPLES)


def test_an_external_target_says_its_services():
    from micore.artifacts import Card, PluginUse

    card = Card(role="encoder", modality="toy", model=PluginUse(name="x"), input=SPEC, classes=(), data={})
    found = External(card=card, fingerprint="f", respond=lambda inputs: inputs, services={"echo": (Access.LABEL, list)})
    assert found.services["echo"][0] == Access.LABEL


# training ------------------------------------------------------------------------------------------------


class Numbers:
    """Forty samples of one class."""

    labels = torch.zeros(40, dtype=torch.int64)

    def __len__(self):
        return 40

    def take(self, indices):
        return torch.randn(40, 3, generator=torch.Generator().manual_seed(0))[torch.as_tensor(indices)]


def trainer(validation=None, **config):
    plan = TrainingConfig.model_validate(
        {"epochs": 12, "learning_rate": 0.2, "batch_size": 8, "augment": "none", **config}
    )
    return Trainer(
        Encoder(), Numbers(), config=plan, adapter=lambda samples: samples, augment=lambda samples, *_: samples,
        runtime=RUNTIME, n_classes=1, validation=validation,
    )  # fmt: skip


def test_a_network_learns_its_own_task():
    made = trainer()
    before = mean_loss(made.module, lambda samples: samples, Numbers(), RUNTIME)
    made.fit()
    assert mean_loss(made.module, lambda samples: samples, Numbers(), RUNTIME) < before / 100
    torch.testing.assert_close(
        task_losses(made.module, SAMPLES, torch.zeros(2)), made.module.task_loss(SAMPLES, torch.zeros(2))
    )


def test_the_epoch_with_the_lowest_loss_is_kept():
    trained, aside = set_aside(Numbers(), 0.2, RUNTIME.rng("aside"))
    assert isinstance(trained, PartOf)
    made = trainer(validation=aside, schedule="constant", epochs=4)
    made.fit()
    assert made.kept_epoch >= 1
    assert made._quality(aside) == pytest.approx(made._best["quality"], rel=1e-5)


def test_networks_that_come_trained_say_so_and_bring_their_input():
    made = Encoder()
    assert not is_trained(made)
    assert input_of(made, SPEC) is SPEC
    made.comes_trained, made.own_input = True, InputSpec(shape=(7,))
    assert is_trained(made)
    assert input_of(made, SPEC).shape == (7,)


def test_neighbours_are_kept_by_a_rotation_and_lost_by_a_shuffle():
    vectors = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    turn, _ = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1)))
    assert neighbour_overlap(vectors, vectors @ turn) == 1
    lost = neighbour_overlap(vectors, vectors[torch.randperm(60, generator=torch.Generator().manual_seed(2))])
    assert lost == pytest.approx(10 / 59, abs=0.06)
