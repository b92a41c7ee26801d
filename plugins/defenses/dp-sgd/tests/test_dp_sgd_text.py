"""The mechanism on networks of tokens: gradients of `torch.func` against one sample at a time, clipping, accounting."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from opacus.accountants import RDPAccountant
from torch import Tensor, nn
from torch.nn import functional

from mi_defense_dp_sgd.defense import DifferentiallyPrivate
from mi_defense_dp_sgd.functional import needs_functions, sample_gradients
from mi_text.builders import text_cnn
from mi_text.modality import TextModality
from mi_text.toy import toys
from micore.answers import task_losses
from micore.configs import make_config
from micore.contracts import Defense, Fitting
from micore.errors import ConfigError, ModelError
from micore.kit.training import PartOf, Trainer, TrainingBatch, TrainingConfig
from micore.runtime import Runtime
from micore.testing.setting import ToySetting

CPU = Runtime(device=torch.device("cpu"), seed=5)
TOYS = {toy.role: toy for toy in reversed(toys()) if toy.role != "encoder"}
ROLES = ("classifier", "language-model", "masked-language-model")
SGD = TrainingConfig(
    epochs=1, batch_size=8, optimizer="sgd", learning_rate=0.1, momentum=0.0, weight_decay=0.0, augment="none",
    schedule="constant",
)  # fmt: skip


def dp_sgd(**options: Any) -> DifferentiallyPrivate:
    return DifferentiallyPrivate(make_config(DifferentiallyPrivate.Config, options, "dp-sgd"))


def network(toy: ToySetting, build: Any = None, **arguments: Any) -> nn.Module:
    with CPU.seeded("network"):
        made: nn.Module = (build or toy.build)(
            len(toy.dataset.classes), toy.dataset.input, **(arguments or {**toy.model.config})
        )
    return made


def batch(toy: ToySetting, rows: list[int]) -> tuple[Tensor, Tensor]:
    split = toy.dataset.split("private")
    assert split.labels is not None
    return TextModality().adapter(toy.dataset.input)(split.take(rows)), split.labels[rows]


def trainer(toy: ToySetting, *defenses: Defense, n: int = 32, **changes: Any) -> Trainer:
    module = network(toy)
    for defense in defenses:
        module = defense.adapt_model(module)
    modality, split = TextModality(), PartOf(toy.dataset.split("private"), torch.arange(n))
    return Trainer(
        module, split, config=SGD.model_copy(update=changes), adapter=modality.adapter(toy.dataset.input),
        augment=modality.augment, runtime=CPU, defenses=defenses, n_classes=len(toy.dataset.classes),
    )  # fmt: skip


def step(made: Trainer, toy: ToySetting, rows: list[int], size: int | None = None) -> None:
    made.sampler.sizes.append(len(rows) if size is None else size)  # type: ignore[attr-defined]
    made.module.eval()  # neither dropout nor random masks: the oracle draws none
    made.step(TrainingBatch(made.module, *batch(toy, rows), 0, 1))


def one_by_one(module: nn.Module, inputs: Tensor, labels: Tensor) -> list[dict[str, Tensor]]:
    """Return the gradient of each sample's loss, by name: an oracle without hooks and added dimensions."""
    found = []
    for row in range(len(inputs)):
        module.zero_grad()
        task_losses(module, inputs[row : row + 1], labels[row : row + 1])[0].backward()
        found.append({
            name: torch.zeros_like(item) if item.grad is None else item.grad.clone()
            for name, item in module.named_parameters()
        })  # fmt: skip
    return found


def flat(module: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


# gradients ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
def test_gradients_are_those_of_one_sample_at_a_time(role: str) -> None:
    toy = TOYS[role]
    module, (inputs, labels) = network(toy).eval(), batch(toy, [0, 5, 11, 31])
    expected = one_by_one(module, inputs, labels)
    found, losses = sample_gradients(module, inputs, labels)
    assert torch.allclose(losses, task_losses(module, inputs, labels).detach(), atol=1e-5)
    assert found.keys() == dict(module.named_parameters()).keys()
    for name, values in found.items():
        for row, gradients in enumerate(expected):
            torch.testing.assert_close(values[row], gradients[name], atol=1e-5, rtol=1e-4)


def test_a_convolution_over_embeddings_has_them_too() -> None:
    toy = TOYS["classifier"]
    module, (inputs, labels) = network(toy, text_cnn, width=8, filters=4).eval(), batch(toy, [0, 40, 70])
    found, _ = sample_gradients(module, inputs, labels)
    for row, gradients in enumerate(one_by_one(module, inputs, labels)):
        for name, expected in gradients.items():
            torch.testing.assert_close(found[name][row], expected, atol=1e-5, rtol=1e-4)


def test_what_hooks_cannot_see_is_in_the_gradient_of_a_tied_embedding() -> None:
    """A token that no text holds has a gradient all the same, as every next token might have been it."""
    toy = TOYS["language-model"]
    module, (inputs, labels) = network(toy), batch(toy, [0, 1])
    absent = next(token for token in range(5, 400) if token not in inputs.tolist()[0] + inputs.tolist()[1])
    found, _ = sample_gradients(module, inputs, labels)
    assert bool((found["network.tokens.weight"][:, absent].norm(dim=1) > 1e-4).all())


def test_padding_and_company_change_nothing() -> None:
    toy = TOYS["language-model"]
    module, (inputs, labels) = network(toy), batch(toy, [0, 5, 60])
    alone, _ = sample_gradients(module, inputs[:1], labels[:1])
    wide, _ = sample_gradients(module, functional.pad(inputs, (0, 16 - inputs.shape[1])), labels)
    for name, values in alone.items():
        torch.testing.assert_close(wide[name][0], values[0], atol=1e-6, rtol=1e-4)


def test_frozen_parameters_have_no_gradient_and_random_masks_differ() -> None:
    toy = TOYS["masked-language-model"]
    module, (inputs, labels) = network(toy).train(), batch(toy, [0] * 6)
    frozen = "network.positions.weight"
    module.get_parameter(frozen).requires_grad_(False)
    with CPU.seeded("masks"):
        found, losses = sample_gradients(module, inputs, labels)
    assert frozen not in found
    assert len(losses.unique()) > 1  # each has tokens of its own hidden
    with CPU.seeded("masks"):
        assert torch.equal(sample_gradients(module, inputs, labels)[1], losses)


def test_networks_of_tokens_are_told_from_others() -> None:
    assert all(needs_functions(network(toy)) for toy in TOYS.values())
    assert not needs_functions(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(4, 2)))


class Branching(nn.Module):
    """Does something that depends on values, which cannot be done for a dimension of samples."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(400, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.tokens(inputs).sum(dim=1) * (1 if bool((inputs > 5).any()) else 2)


def test_a_network_that_depends_on_values_is_refused_in_one_line() -> None:
    with pytest.raises(ModelError, match="cannot differentiate Branching") as raised:
        sample_gradients(Branching(), torch.ones(2, 3, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
    assert "\n" not in str(raised.value)


# the step -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("rows", [1, 2, 16])
def test_each_text_is_clipped_before_they_are_added(role: str, rows: int) -> None:
    toy, clip, chosen = TOYS[role], 0.05, [0, 9, 18, 27, 30]
    private = trainer(toy, dp_sgd(noise_multiplier=0, clip=clip, rows=rows))
    before = flat(private.module)
    gradients = [
        torch.cat([item.flatten() for item in sample.values()])
        for sample in one_by_one(network(toy).eval(), *batch(toy, chosen))
    ]
    assert all(float(gradient.norm()) > clip for gradient in gradients)
    total = torch.stack([gradient * clip / gradient.norm() for gradient in gradients]).sum(dim=0)
    step(private, toy, chosen)
    assert torch.allclose(flat(private.module), before - 0.1 * total / 8, atol=1e-6)


@pytest.mark.parametrize("clip", [0.01, 0.3, 1e6])
def test_no_text_moves_the_sum_by_more_than_the_clip(clip: float) -> None:
    toy = TOYS["language-model"]
    private = trainer(toy, dp_sgd(noise_multiplier=0, clip=clip))
    for row in (0, 17, 31):
        before = flat(private.module).double()
        step(private, toy, [row])
        moved = float((before - flat(private.module).double()).norm()) * 8 / 0.1
        assert moved <= clip * 1.001 + 1e-4
        assert moved > 0.9 * clip or clip == 1e6


def test_the_noise_is_sigma_times_clip_and_an_empty_batch_is_noise_alone() -> None:
    toy = TOYS["language-model"]
    private = trainer(toy, dp_sgd(noise_multiplier=1.5, clip=0.4))
    before = flat(private.module)
    with CPU.seeded("noise"):
        step(private, toy, [0], size=0)
    noise = (before - flat(private.module)) * 8 / 0.1
    assert len(noise) > 15_000
    assert float(noise.std()) == pytest.approx(0.6, rel=0.03)


def test_a_batch_of_another_size_stops_the_training() -> None:
    toy = TOYS["language-model"]
    for size in (2, 4):
        with pytest.raises(ModelError, match="not one gradient for each"):
            step(trainer(toy, dp_sgd(noise_multiplier=1.0, rows=2)), toy, [0, 1, 2], size=size)


@pytest.mark.parametrize("role", ROLES)
def test_a_training_spends_what_the_accountant_says_and_repeats(role: str) -> None:
    toy, weights = TOYS[role], []
    for _ in range(2):
        defense = dp_sgd(noise_multiplier=1.1, rows=4)
        made = trainer(toy, defense)
        made.fit()
        weights.append(flat(made.module))
    assert torch.equal(*weights)
    oracle = RDPAccountant()
    for _ in range(4):
        oracle.step(noise_multiplier=1.1, sample_rate=0.25)
    assert defense.facts()["epsilon"] == pytest.approx(oracle.get_epsilon(1e-5), rel=1e-9)
    defense.fit(Fitting(
        module=made.module, reference=made.split, reference_is_fresh=False, public=None, n_classes=1,
        adapter=made.adapter, answer=lambda samples: samples, runtime=CPU,
    ))  # fmt: skip
    assert not any(hasattr(item, name) for item in made.module.parameters() for name in ("grad_sample", "summed_grad"))


def test_secrets_are_not_learnt_where_they_are_without_it() -> None:
    """Three texts stand sixteen times each: without noise and clipping they are soon likelier than those held out."""
    toy, leads = TOYS["language-model"], []
    for defenses in ((), (dp_sgd(epsilon=2.0),)):
        made = trainer(toy, *defenses, n=64, epochs=6, optimizer="adam", learning_rate=1e-2)
        made.fit()
        made.module.eval()
        with torch.no_grad():
            known, other = (
                task_losses(made.module, made.adapter(texts), torch.zeros(3, dtype=torch.int64)).mean()
                for texts in (
                    toy.dataset.split("private").take([0, 16, 32]),
                    toy.dataset.split("holdout").take([0, 1, 2]),
                )
            )
        leads.append(float(other - known))
    assert leads[0] > 1
    assert leads[1] < 0.5 * leads[0]


# what is refused ------------------------------------------------------------------------------------------


def test_defenses_that_change_the_loss_are_refused() -> None:
    class Harmless(Defense):
        per_sample_loss = True

        def training_loss(self, module: nn.Module, batch: Any, task_loss: Any) -> Tensor:
            return task_loss()

    for pair in ((dp_sgd(noise_multiplier=1.0), Harmless(None)), (Harmless(None), dp_sgd(noise_multiplier=1.0))):
        with pytest.raises(ConfigError, match="differentiates the loss of this network itself; Harmless"):
            trainer(TOYS["language-model"], *pair)
