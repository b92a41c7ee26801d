"""Learning distributions: the optimiser, a posterior that is known, the terms that are kept, classes side by side."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from mi_attack_vmi.families import FullGaussian, Members, MultiScaleFlow
from mi_attack_vmi.learning import HeavyBall, Learned, Learner, draw_layers
from mi_attack_vmi.spaces import LatentSpace
from micore.contracts import Case
from micore.kit.row_optimizers import RowAdam
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Ledger, Spending

CPU = Runtime(device=torch.device("cpu"), seed=1, tile=64)
CASES = [Case(id=f"class-{label}", goal="class", label=label) for label in range(3)]
WEIGHTS = torch.tensor([[2.0, 0.0], [-1.0, 1.5], [0.0, -2.0]], dtype=torch.float64)


class Counted(nn.Module):
    """A linear classifier of points that charges a ledger as a target does."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()

    def forward(self, points: Tensor) -> Tensor:
        self.ledger.charge(queries=len(points))
        return points @ WEIGHTS.to(points.dtype).T


def target() -> Target:
    module = Counted()
    return cast(Target, SimpleNamespace(module=module, ledger=module.ledger))


def learner(**changes: Any) -> Learner:
    settings: dict[str, Any] = {
        "members": Members(FullGaussian(2)), "space": LatentSpace(generator=nn.Identity(), latent_dim=2, layers=1),
        "optimizer": RowAdam(learning_rate=0.02), "steps": 200, "samples": 32, "kl_weight": 1.0,
    }  # fmt: skip
    return Learner(**{**settings, **changes})


def learned(learner: Learner, cases: list[Case]) -> list[Learned]:
    return [learner.run(target(), group, places) for group, places in learner.groups(cases, CPU)]


def evidence(label: int) -> float:
    """Return log of the integral of p(label | z) N(z; 0, I) over a fine grid: the bound's best value."""
    line = torch.linspace(-7, 7, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    log_joint = (grid @ WEIGHTS.T).log_softmax(dim=1)[:, label] - grid.square().sum(dim=1) / 2
    cell = (line[1] - line[0]).log() * 2
    return float(log_joint.logsumexp(dim=0) + cell - torch.log(torch.tensor(2 * torch.pi)))


def test_momentum_is_that_of_torch() -> None:
    start = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    reference = start.clone().requires_grad_(True)
    sgd = torch.optim.SGD([reference], lr=0.1, momentum=0.9)
    own, values = HeavyBall(learning_rate=0.1), start.clone()
    state = own.start(values)
    for step in range(1, 7):
        reference.grad = 3 * reference.detach() ** 3
        sgd.step()
        values, state = own.step(values, 3 * values**3, state, torch.tensor([float(step)]))
    torch.testing.assert_close(values, reference.detach())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_distribution_becomes_the_posterior_of_the_class(case: Case) -> None:
    """With weight 1 the loss bounds -log of the evidence, and touches it only at the posterior."""
    own = learner(members=Members(MultiScaleFlow(2, steps=2, hidden=8, coupling="affine")), steps=500)
    (group,) = learned(own, [case])
    latents, ratios = draw_layers(own.members, group.found.values, CPU.rng("test").normal((1, 20_000, 2)))
    losses = -(latents[0, :, 0].double() @ WEIGHTS.T).log_softmax(dim=1)[:, case.label]
    bound = ratios.double().mean() + losses.mean()
    assert -evidence(CASES.index(case)) - 0.01 < bound < -evidence(CASES.index(case)) + 0.04


def test_less_weight_on_the_prior_moves_farther_from_it() -> None:
    (near,), (far,) = (learned(learner(kl_weight=weight), CASES[:1]) for weight in (1.0, 0.1))
    assert far.kl[0, -1] > 2 * near.kl[0, -1]
    assert far.cross_entropy[0, -1] < near.cross_entropy[0, -1]


def test_the_terms_add_up_to_the_loss_at_every_look() -> None:
    (group,) = learned(learner(steps=60, kl_weight=0.3), CASES[:2])
    history = group.history(1)
    assert {name: len(values) for name, values in history.items()} == {"loss": 3, "cross_entropy": 3, "kl": 3}
    assert history["kl"][0] == pytest.approx(0, abs=1e-6)
    assert history["kl"][-1] > 0.1
    terms = zip(history["cross_entropy"], history["kl"], strict=True)
    assert history["loss"] == pytest.approx([entropy + 0.3 * kl for entropy, kl in terms], abs=1e-6)


def test_a_class_is_learned_alike_in_any_company() -> None:
    own = learner(steps=30)
    together = {0: (0, 0), 1: (0, 1), 2: (1, 0)}  # two places: 64 rows of a tile, 32 draws
    groups = learned(own, CASES)
    for label, (group, row) in together.items():
        (alone,) = learned(own, [CASES[label]])
        assert torch.equal(alone.found.values[0], groups[group].found.values[row])


def test_each_draw_of_each_step_is_charged_to_its_class() -> None:
    own, known = learner(steps=7), target()
    for group, places in own.groups(CASES, CPU):
        own.run(known, group, places)
    assert known.ledger.cases == {case.id: Spending(queries=7 * 32) for case in CASES}
    assert known.ledger.shared == Spending()


def test_layers_share_their_noise_and_have_their_own_distributions() -> None:
    members = Members(FullGaussian(2))
    parameters = members.start().repeat(1, 3, 1)
    parameters[0, 1, :2] = torch.tensor([5.0, -5.0])  # the mean of the second layer
    noise = CPU.rng("noise").normal((1, 4, 2))
    latents, ratios = draw_layers(members, parameters, noise)
    assert latents.shape == (1, 4, 3, 2)
    assert torch.equal(latents[0, :, 0], noise[0])
    torch.testing.assert_close(latents[0, :, 1], noise[0] + torch.tensor([5.0, -5.0]))
    assert torch.equal(ratios[0, :, 0], torch.zeros(4))
    torch.testing.assert_close(ratios[0, :, 1], (latents[0, :, 1].square() - noise[0].square()).sum(dim=1) / 2)
