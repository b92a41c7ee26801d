"""The mathematics of the agents: against float64 and against one ordinary agent by itself."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mi_attack_rlb_mi.agents import Agents, Batch, SacSettings, squashed
from mi_attack_rlb_mi.environments import Rewarding
from mi_attack_rlb_mi.networks import StackedMlp
from mi_attack_rlb_mi.replay import Replay
from micore.runtime import Random

CPU = torch.device("cpu")


def sequential(network: StackedMlp, member: int) -> nn.Sequential:
    """Build one member of a stack as an ordinary network, in float64."""
    layers: list[nn.Module] = []
    for weight, bias in zip(network.weights, network.biases, strict=True):
        linear = nn.Linear(*weight.shape[1:], dtype=torch.float64)
        linear.weight.data, linear.bias.data = weight[member].T.double().detach(), bias[member, 0].double().detach()
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


# densities ------------------------------------------------------------------------------------------------


def test_actions_have_the_density_that_a_squashed_gaussian_has() -> None:
    rng = Random(0)
    mean, log_std, noise = (rng.normal((50, 7)) for _ in range(3))
    actions, densities = squashed(mean, log_std, noise)
    normal = torch.distributions.Normal(mean.double(), log_std.double().exp())
    raw = mean.double() + log_std.double().exp() * noise.double()
    by_hand = normal.log_prob(raw) - (1 - raw.tanh() ** 2).log()
    inside = raw.abs() < 10
    assert inside.sum() > 300
    torch.testing.assert_close(actions.double(), raw.tanh(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(densities.double()[inside], by_hand[inside], rtol=1e-4, atol=1e-4)


@given(st.floats(-60, 60))
def test_densities_stay_finite_where_tanh_is_one(mean: float) -> None:
    actions, densities = squashed(torch.tensor([mean]), torch.zeros(1), torch.zeros(1))
    assert actions.abs().max() <= 1
    exact = 2 * (math.log(2) - abs(mean) - math.log1p(math.exp(-2 * abs(mean))))
    assert float(densities[0]) == pytest.approx(-math.log(2 * math.pi) / 2 - exact, rel=1e-4)


@pytest.mark.parametrize(("noise", "numbers"), [("dimension", 5), ("scalar", 1)])
def test_log_probabilities_are_sums_or_as_published_means(noise: str, numbers: int) -> None:
    sac = SacSettings(latent_dim=5, hidden=8, noise="scalar" if noise == "scalar" else "dimension")
    agents, rng = Agents([Random(1)], sac), Random(2)
    states, drawn = rng.normal((1, 4, 5)), rng.normal((1, 4, numbers))
    actions, log_probs = agents.policy(states, drawn)
    mean, log_std = agents.actor(states).chunk(2, dim=2)
    expected_actions, densities = squashed(mean, log_std.clamp(-20, 2), drawn)
    torch.testing.assert_close(actions, expected_actions)
    torch.testing.assert_close(log_probs, densities.sum(2) if noise == "dimension" else densities.mean(2))


# one update against an ordinary agent ---------------------------------------------------------------------


def reference_update(agents: Agents, member: int, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
    """Do one update of one agent with ordinary networks, distributions and optimisers, in float64."""
    sac, d = agents.settings, agents.settings.latent_dim
    actor = sequential(agents.actor, member)
    critics = [sequential(agents.critics, 2 * member + which) for which in range(2)]
    slow = [sequential(agents.slow_critics, 2 * member + which) for which in range(2)]
    log_temperature = agents.log_temperature[member].detach().double().requires_grad_(True)

    def policy(states: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = actor(states).chunk(2, dim=1)
        std = log_std.clamp(-20, 2).exp()
        raw = mean + std * eps
        log_probs = torch.distributions.Normal(mean, std).log_prob(raw) - (1 - raw.tanh() ** 2).log()
        return raw.tanh(), log_probs.sum(1)

    def values(networks: list[nn.Sequential], states: Tensor, actions: Tensor) -> Tensor:
        return torch.stack([network(torch.cat([states, actions], 1))[:, 0] for network in networks])

    states, actions, rewards = (part[member].double() for part in (batch.states, batch.actions, batch.rewards))
    wanted = rewards
    if batch.next_states is not None and batch.lasts is not None:
        following, lasts = batch.next_states[member].double(), batch.lasts[member].double()
        with torch.no_grad():
            next_actions, next_log = policy(following, noise[member, :, d:].double())
            soft = values(slow, following, next_actions).amin(0) - log_temperature.exp() * next_log
        wanted = rewards + sac.discount * (1 - lasts) * soft
    rate = sac.learning_rate
    critic_adam = torch.optim.Adam([p for network in critics for p in network.parameters()], rate)
    (values(critics, states, actions) - wanted).square().mean(1).sum().backward()
    critic_adam.step()
    actor_adam, temperature_adam = torch.optim.Adam(actor.parameters(), rate), torch.optim.Adam([log_temperature], rate)
    own, log_probs = policy(states, noise[member, :, :d].double())
    (log_temperature.exp().detach() * log_probs - values(critics, states, own).amin(0)).mean().backward()
    actor_adam.step()
    (-log_temperature * (log_probs.detach() - d)).mean().backward()
    temperature_adam.step()
    return {
        "actor": actor[0].weight.T, "critic": critics[1][2].weight.T, "temperature": log_temperature,
        "slow": slow[0][2].bias + sac.polyak * (critics[0][2].bias - slow[0][2].bias),
    }  # fmt: skip


@pytest.mark.parametrize("bootstrap", [False, True])
def test_an_update_is_that_of_each_agent_by_itself(bootstrap: bool) -> None:
    sac = SacSettings(latent_dim=3, hidden=8, learning_rate=1e-2, bootstrap=bootstrap, polyak=0.1)
    agents, rng = Agents([Random(seed) for seed in range(4)], sac), Random(9)
    states, actions, following = (rng.normal((4, 16, 3)) for _ in range(3))
    rewards, lasts = rng.normal((4, 16)), (rng.uniform((4, 16)) < 0.5).float()
    chained = {"next_states": following, "lasts": lasts} if bootstrap else {}
    batch = Batch(states=states, actions=actions.tanh(), rewards=rewards, **chained)
    noise = rng.normal((4, 16, 6 if bootstrap else 3))
    expected = [reference_update(agents, member, batch, noise) for member in range(4)]
    agents.update(batch, noise)
    for member, wanted in enumerate(expected):
        found = {
            "actor": agents.actor.weights[0][member], "critic": agents.critics.weights[1][2 * member + 1],
            "temperature": agents.log_temperature[member],
        }  # fmt: skip
        if bootstrap:
            found["slow"] = agents.slow_critics.biases[1][2 * member, 0]
        for name, value in found.items():
            torch.testing.assert_close(value.double(), wanted[name], rtol=1e-3, atol=2e-4, msg=lambda m, n=name: n + m)


@pytest.mark.parametrize("others", [1, 4])
def test_an_agent_learns_the_same_beside_others_bit_for_bit(others: int) -> None:
    sac, rng = SacSettings(latent_dim=16, hidden=32), Random(3)
    states, actions, noise = (rng.normal((1 + others, 24, 16)) for _ in range(3))
    rewards = rng.normal((1 + others, 24))
    groups = [Agents([Random(seed) for seed in seeds], sac) for seeds in (range(1), range(1 + others))]
    for agents in groups:
        n = len(agents.log_temperature)
        for _ in range(3):
            agents.update(Batch(states=states[:n], actions=actions[:n], rewards=rewards[:n]), noise[:n])
    alone, beside = groups
    for one, many in zip(alone.actor.parameters, beside.actor.parameters, strict=True):
        assert torch.equal(one, many[:1])
    assert torch.equal(alone.critics.weights[1], beside.critics.weights[1][:2])


def test_agents_find_the_best_action_of_a_bandit() -> None:
    agents, rng = (
        Agents([Random(seed) for seed in range(3)], SacSettings(latent_dim=4, hidden=32, learning_rate=5e-3)),
        Random(0),
    )
    places = torch.tensor([-0.5, 0.0, 0.5])[:, None, None]
    for _ in range(800):
        states, noise = rng.normal((3, 32, 4)), rng.normal((3, 32, 4))
        actions = agents.act(states, rng.normal((3, 32, 4)))
        rewards = -20 * (actions - places).square().sum(2)
        agents.update(Batch(states=states, actions=actions, rewards=rewards), noise)
    intended = agents.intend(rng.normal((3, 32, 4)))
    assert (intended - places).abs().mean() < 0.15


# reward and memory ----------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=6, max_size=6), st.integers(0, 2))
def test_rewards_are_the_published_sum(numbers: list[float], label: int) -> None:
    scores = torch.tensor(numbers, dtype=torch.float64).view(2, 3)
    found = Rewarding()(scores[:1], scores[1:], torch.tensor([label]))
    state, action = numbers[:3], numbers[3:]
    others = max(value for index, value in enumerate(state) if index != label)
    logs = [math.log(max(1e-7, value)) for value in (state[label], action[label], state[label] - others)]
    assert float(found[0]) == pytest.approx(2 * logs[0] + 2 * logs[1] + 8 * logs[2], rel=1e-9, abs=1e-9)


def test_a_wrong_guess_is_punished_and_confidence_pays() -> None:
    scores = torch.tensor([[0.1, 0.9], [0.6, 0.4], [0.9, 0.1], [1.0, 0.0]])
    rewards = Rewarding()(scores, scores, torch.zeros(4, dtype=torch.int64))
    assert rewards.tolist() == sorted(rewards.tolist())
    assert rewards[0] < -100
    assert rewards[3] == 0


def test_the_memory_forgets_the_oldest_and_draws_only_what_it_holds() -> None:
    replay = Replay(2, 6, 1, CPU, chained=True)
    for step in range(5):
        values = torch.full((2, 2, 1), float(step))
        replay.add(values, values + 0.5, values + 0.25, values[..., 0] * 10, last=step % 2 == 1)
        held = replay.draw(torch.arange(0, 1, 1 / 64).expand(2, -1))
        assert set(held.states.unique().tolist()) == set(range(max(0, step - 2), step + 1))
        assert torch.equal(held.actions, held.states + 0.5)
        assert torch.equal(held.rewards, held.states[..., 0] * 10)
        assert held.lasts is not None
        assert torch.equal(held.lasts, held.states[..., 0] % 2)
        assert held.next_states is not None
        assert torch.equal(held.next_states, held.states + 0.25)
    assert replay.filled == 6


def test_a_memory_for_episodes_of_one_step_keeps_no_next_states() -> None:
    replay = Replay(1, 4, 2, CPU, chained=False)
    replay.add(torch.zeros(1, 2, 2), torch.ones(1, 2, 2), torch.ones(1, 2, 2), torch.ones(1, 2), last=True)
    assert replay.draw(torch.rand(1, 8)).next_states is None
