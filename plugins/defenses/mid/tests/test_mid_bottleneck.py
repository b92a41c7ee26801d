"""The bottleneck, its divergence and fixed noise, and what training with them does."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional

from mi_defense_mid.bottleneck import Bottleneck, divergence, fixed_noise, moments, sign_code
from mi_defense_mid.defense import (
    MutualInformationConfig,
    MutualInformationRegularisation,
    beta_at,
    bottleneck_of,
)
from mi_image.modality import ImageModality
from mi_image.toy import image_toy
from micore.configs import make_config
from micore.defending import fit_defenses
from micore.errors import ConfigError, ModelError
from micore.kit.features import features_and_logits, last_linear
from micore.kit.training import TrainingBatch
from micore.runtime import Runtime
from micore.testing.lab import holdout_accuracy, restored, train_toy

CPU = Runtime(device=torch.device("cpu"))


def defense(**options: object) -> MutualInformationRegularisation:
    return MutualInformationRegularisation(make_config(MutualInformationConfig, options, "mid"))


@pytest.fixture(autouse=True)
def seeded() -> object:
    with CPU.seeded("test"):
        yield


def network() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 3))


def features(module: nn.Module, inputs: Tensor) -> Tensor:
    found: Tensor = nn.Sequential(*list(module.children())[:-1])(inputs)
    return found


def batch(module: nn.Module, epoch: int = 9) -> TrainingBatch:
    return TrainingBatch(module, torch.randn(6, 12), torch.tensor([0, 1, 2, 0, 1, 2]), epoch, 10)


# divergence -----------------------------------------------------------------------------------------------


def test_the_divergence_is_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    mu, sigma = rng.normal(size=(5, 7)), rng.uniform(1e-3, 3, size=(5, 7))
    expected = (np.log(1 / sigma) + (sigma**2 + mu**2 - 1) / 2).sum(axis=1)
    assert divergence(torch.tensor(mu), torch.tensor(sigma)).numpy() == pytest.approx(expected, rel=1e-10)


def test_the_divergence_is_the_integral_of_its_definition() -> None:
    mu, sigma = 0.7, 0.3
    grid = np.linspace(mu - 12 * sigma, mu + 12 * sigma, 20001)
    density = stats.norm.pdf(grid, mu, sigma)
    ratio = stats.norm.logpdf(grid, mu, sigma) - stats.norm.logpdf(grid)
    expected = np.trapezoid(density * ratio, grid)
    assert float(divergence(torch.tensor([mu]), torch.tensor([sigma]))) == pytest.approx(expected, rel=1e-5)


def test_a_standard_normal_has_no_divergence_and_a_gradient_of_the_mean_is_mu_over_b() -> None:
    assert float(divergence(torch.zeros(1, 8), torch.ones(1, 8))) == 0.0
    mu = torch.randn(4, 8, requires_grad=True)
    divergence(mu, torch.ones(4, 8)).mean().backward()
    assert mu.grad is not None
    assert torch.allclose(mu.grad, mu.detach() / 4)


def test_training_starts_almost_without_noise() -> None:
    assert float(moments(torch.zeros(1, 2))[1]) == pytest.approx(0.006715, abs=1e-6)
    _, sigma = moments(Bottleneck(256, 128, 10).statistics(torch.rand(64, 256)))
    assert float(sigma.detach().mean()) == pytest.approx(0.0067, rel=0.15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_closed_sigmas_stay_finite(dtype: torch.dtype) -> None:
    statistics = torch.full((2, 6), -300.0, dtype=dtype)
    mu, sigma = moments(statistics)
    assert sigma.dtype == torch.float32
    assert float(sigma.min()) == pytest.approx(1e-6)
    assert bool(torch.isfinite(divergence(mu, sigma)).all())


# structure ------------------------------------------------------------------------------------------------


def test_the_last_linear_layer_becomes_bottleneck_and_head() -> None:
    module = defense().adapt_model(network())
    bottleneck = bottleneck_of(module)
    assert (bottleneck.statistics.in_features, bottleneck.statistics.out_features) == (9, 8)  # k = 9 // 2
    assert last_linear(module) is bottleneck.head
    assert (bottleneck.head.in_features, bottleneck.head.out_features) == (4, 3)
    assert bottleneck_of(defense(width=2).adapt_model(network())).head.in_features == 2
    assert bottleneck_of(defense().adapt_model(nn.Linear(1, 2))).head.in_features == 1


def test_a_network_without_the_layers_is_refused() -> None:
    with pytest.raises(ModelError, match="no linear"):
        defense().adapt_model(nn.Conv2d(1, 2, 3))
    module = network()
    with pytest.raises(ModelError, match="no bottleneck"):
        defense().training_loss(module, batch(module), lambda: torch.zeros(()))


@pytest.mark.parametrize("option", [{"beta": -0.1}, {"beta": float("nan")}, {"width": 0}, {"answer": "draw"}])
def test_bad_settings_are_refused(option: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(option))):
        defense(**option)


def test_training_draws_noise_from_the_seed_and_answers_draw_none() -> None:
    module, inputs = defense().adapt_model(network()), torch.randn(6, 12)
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(module.train()(inputs))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    module.eval()
    before = torch.get_rng_state()
    first = module(inputs)
    assert torch.equal(first, module(inputs))
    assert torch.equal(torch.get_rng_state(), before)
    bottleneck = bottleneck_of(module)
    mu, _ = moments(bottleneck.statistics(features(module, inputs)))
    assert torch.equal(first, bottleneck.head(mu))


# noise that the sample decides ----------------------------------------------------------------------------


def noisy() -> Bottleneck:
    made = Bottleneck(16, 8, 5, "sample").eval()
    nn.init.constant_(made.statistics.bias, 6.0)  # sigma is about 1
    return made


@torch.no_grad()
def test_a_sample_has_one_answer_however_it_is_asked() -> None:
    made, features = noisy(), torch.randn(40, 16).relu()
    before = torch.get_rng_state()
    together = made(features)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(together, made(features))
    assert torch.allclose(together.flip(0), made(features.flip(0)), atol=1e-5)
    alone = torch.cat([made(row[None]) for row in features])
    assert torch.allclose(together, alone, atol=1e-5)


@torch.no_grad()
def test_averaging_repeated_queries_does_not_take_the_noise_away() -> None:
    made, features = noisy(), torch.randn(20, 16).relu()
    mean = made.head(moments(made.statistics(features))[0])
    repeated = torch.stack([made(features) for _ in range(50)]).mean(dim=0)
    assert torch.allclose(repeated, made(features), atol=1e-5)
    assert float((repeated - mean).abs().mean()) > 0.1


@torch.no_grad()
def test_other_samples_and_other_keys_have_other_noise() -> None:
    made, features = noisy(), torch.randn(64, 16).relu()
    codes = sign_code(features - features.mean(dim=1, keepdim=True), made.directions)
    assert len(codes.unique()) > 60
    other = made.key.bitwise_xor(1)
    assert not torch.allclose(fixed_noise(codes, 8, made.key), fixed_noise(codes, 8, other), atol=0.5)
    nearby = features + 1e-7 * torch.randn_like(features)
    assert torch.equal(sign_code(nearby, made.directions), sign_code(features, made.directions))


@torch.no_grad()
def test_the_noise_is_a_part_of_the_weights() -> None:
    made, again, features = noisy(), Bottleneck(16, 8, 5, "sample").eval(), torch.randn(9, 16)
    assert not torch.equal(made(features), again(features))
    again.load_state_dict(made.state_dict())
    assert torch.equal(made(features), again(features))


def test_the_noise_is_standard_normal_and_uncorrelated() -> None:
    noise = fixed_noise(torch.arange(4000), 8, torch.tensor(12345)).double().numpy()
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(noise.T) - np.eye(8)).max() < 0.06
    assert abs(np.corrcoef(noise[:-1, 0], noise[1:, 0])[0, 1]) < 0.06


def hashed(number: int) -> int:
    number ^= number >> 16
    number = number * 0x7FEB352D % 2**32
    number ^= number >> 15
    number = number * 0x846CA68B % 2**32
    return number ^ number >> 16


@settings(max_examples=50, deadline=None)
@given(code=st.integers(0, 2**32 - 1), key=st.integers(0, 2**32 - 1))
def test_the_noise_is_that_of_exact_integers(code: int, key: int) -> None:
    row = hashed(hashed(code ^ key) ^ key)
    numbers = [hashed(row ^ hashed(counter + 1)) for counter in range(6)]
    radius = np.sqrt(np.maximum(0, -2 * np.log((np.array(numbers[:3]) + 0.5) / 2**32)))
    expected = radius * np.cos(2 * np.pi * np.array(numbers[3:]) / 2**32)
    found = fixed_noise(torch.tensor([code]), 3, torch.tensor(key))[0]
    assert found.numpy() == pytest.approx(expected, abs=2e-3)


# loss -----------------------------------------------------------------------------------------------------


def task(data: TrainingBatch) -> Tensor:
    return functional.cross_entropy(data.logits, data.labels)


def expected_loss(module: nn.Module, data: TrainingBatch, beta: float) -> Tensor:
    rate = divergence(*moments(bottleneck_of(module).statistics(features(module, data.inputs))))
    return task(data) + beta * rate.mean()


@pytest.mark.parametrize("asked_before", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_the_loss_is_the_papers(asked_before: bool, training: bool) -> None:
    guard = defense(beta=0.3)
    module = guard.adapt_model(network()).train(training)
    for _ in range(2):  # nothing of the first step is left in the second
        data = batch(module)
        if asked_before:
            _ = data.logits
        loss = guard.training_loss(module, data, partial(task, data))
        assert torch.allclose(loss, expected_loss(module, data, 0.3))
        loss.backward()
        assert bottleneck_of(module).take_divergence() is None


def test_passes_without_gradients_leave_nothing_behind() -> None:
    module = defense().adapt_model(network()).train()
    module(torch.randn(2, 12))
    with torch.no_grad():
        module(torch.randn(2, 12))
    assert bottleneck_of(module).take_divergence() is None


def test_beta_rises_over_the_first_tenth() -> None:
    config = MutualInformationConfig(beta=0.2)
    assert [beta_at(config, epoch, 40) for epoch in range(6)] == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.2, 0.2])
    assert [beta_at(config, epoch, 5) for epoch in range(5)] == [0.2] * 5
    assert beta_at(MutualInformationConfig(beta=0.2, warm_up=0), 0, 40) == 0.2


def test_mixed_and_half_precision_train() -> None:
    guard = defense(answer="sample")
    module = guard.adapt_model(network()).train()
    with torch.autocast("cpu", torch.bfloat16):
        data = batch(module)
        loss = guard.training_loss(module, data, partial(task, data))
    loss.backward()
    assert loss.dtype == torch.float32
    assert bool(torch.isfinite(loss))
    assert module.to(torch.bfloat16).eval()(torch.randn(2, 12, dtype=torch.bfloat16)).dtype == torch.bfloat16


# on a trained target --------------------------------------------------------------------------------------

TOY, IMAGES = image_toy(), ImageModality()


@cache
def trained(beta: float) -> tuple[nn.Module, MutualInformationRegularisation]:
    guard = defense(beta=beta)
    module = restored(TOY, train_toy(TOY, IMAGES, "classifier", [guard]), defenses=[guard]).eval()
    fit_defenses(
        [guard], module, adapter=IMAGES.adapter(TOY.dataset.input), reference=TOY.dataset.split("private"),
        fresh=False, dataset=TOY.dataset, runtime=CPU,
    )  # fmt: skip
    return module, guard


def test_less_passes_the_bottleneck_and_the_task_is_learned() -> None:
    open_, squeezed = trained(0.0), trained(0.1)
    rates = [guard.facts()["divergence_nats"] for _, guard in (open_, squeezed)]
    assert rates[1] < 0.5 * rates[0]
    assert holdout_accuracy(TOY, IMAGES, squeezed[0], CPU) >= 0.9
    assert squeezed[1].facts()["measured_on"] == "training samples"


@torch.no_grad()
def test_the_card_tells_the_mean_divergence() -> None:
    module, guard = trained(0.1)
    split = TOY.dataset.split("private")
    inputs = IMAGES.adapter(TOY.dataset.input)(split.take(range(len(split))))
    caught: list[Tensor] = []
    handle = bottleneck_of(module).statistics.register_forward_hook(lambda _, __, output: caught.append(output))
    features_and_logits(module, inputs)
    handle.remove()
    mu, raw = caught[0].double().chunk(2, dim=1)
    sigma = functional.softplus(raw - 5)
    expected = (-sigma.log() + (sigma**2 + mu**2 - 1) / 2).sum(dim=1).mean()
    assert guard.facts()["divergence_nats"] == pytest.approx(float(expected), rel=1e-4)
