"""Learning one distribution per class by gradients through its samples, several classes in one pass.

Source: Wang et al. (NeurIPS 2021), equation 6: minimise E_q[-log p(class | G(z))] + weight x KL(q || N(0, I)).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mi_attack_vmi.families import Members
from mi_attack_vmi.spaces import LatentSpace
from micore.contracts import Case
from micore.kit.case_rows import make_rows, normal_draws, tiled
from micore.kit.losses import cross_entropy
from micore.kit.row_optimizers import RowOptimizer, State
from micore.kit.search import LOOK_EVERY, Found, RowSearch
from micore.runtime import Progress, Runtime
from micore.target import Target

__all__ = ["HeavyBall", "Learned", "Learner", "draw_layers"]


@dataclass(frozen=True, kw_only=True)
class HeavyBall:
    """Gradient descent with momentum as `torch.optim.SGD` has it: v' = m v + g; value -= a v'."""

    learning_rate: float
    momentum: float = 0.9

    def start(self, values: Tensor) -> State:
        """Return a velocity of zero."""
        return (torch.zeros_like(values),)

    def step(self, values: Tensor, gradients: Tensor, state: State, steps: Tensor) -> tuple[Tensor, State]:
        """Take one step."""
        velocity = self.momentum * state[0] + gradients
        return values - self.learning_rate * velocity, (velocity,)


def draw_layers(members: Members, parameters: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Draw with parameters (B, layers, P) and noise (B, n, d), which all layers of a class share.

    Returns latents (B, n, layers, d) and log q(z) - log N(z; 0, I) of each layer, (B, n, layers).
    """
    size, layers = parameters.shape[:2]
    shared = noise[:, None].expand(-1, layers, -1, -1).flatten(0, 1)
    latents, ratios = members.draw(parameters.flatten(0, 1), shared)
    return latents.unflatten(0, (size, layers)).transpose(1, 2), ratios.unflatten(0, (size, layers)).transpose(1, 2)


@dataclass(frozen=True, kw_only=True)
class Learned:
    """The distributions of some cases.

    found: their parameters (C, layers, P) as `micore.kit.search` gives them back; cross_entropy, kl: (C, looks), at
    every 25th step from the first on, on the CPU; kl is in nats, the mean over layers.
    """

    found: Found
    cross_entropy: Tensor
    kl: Tensor

    def history(self, row: int) -> dict[str, list[float]]:
        """Return how one case's distribution moved away from the prior and towards its class."""
        looks = int(self.found.history[row].isfinite().sum())
        return {
            "loss": self.found.history[row, :looks].tolist(),
            "cross_entropy": self.cross_entropy[row, :looks].tolist(),
            "kl": self.kl[row, :looks].tolist(),
        }


@dataclass(frozen=True, kw_only=True)
class Learner:
    """How the distributions are learned: ``steps`` of an optimiser on the mean loss over ``samples`` draws."""

    members: Members
    space: LatentSpace
    optimizer: RowOptimizer
    steps: int
    samples: int
    kl_weight: float

    def groups(self, cases: Sequence[Case], runtime: Runtime) -> Iterator[tuple[Sequence[Case], Runtime]]:
        """Yield the cases that are learned in one pass, always with the same number of places, and their runtime."""
        places = max(1, runtime.tile // self.samples)
        with runtime.progress.track("learning the distributions", len(cases) * self.steps) as report:
            for start in range(0, len(cases), places):
                part = _PartOfProgress(report, start * self.steps)
                yield cases[start : start + places], replace(runtime, tile=places, progress=part)

    def run(self, target: Target, cases: Sequence[Case], runtime: Runtime) -> Learned:
        """Learn the distributions of one group."""
        start = self.members.start().expand(len(cases), 1, self.space.layers, -1)
        draw = normal_draws(cases, 1, self.samples * self.space.latent_dim, runtime)
        objective = _Objective(self, target)
        search = RowSearch(objective=objective, optimizer=self.optimizer, steps=self.steps)
        found = search.run(make_rows(cases, start, draw), target.ledger, runtime)
        entropies, divergences = objective.trace(len(cases))
        return Learned(found=found, cross_entropy=entropies, kl=divergences)

    def draw(self, found: Found, noise: Tensor, runtime: Runtime) -> Tensor:
        """Draw from learned distributions with noise (C, n, d): latents (C, n, layers, d)."""
        return tiled(lambda values, eps: draw_layers(self.members, values, eps)[0], runtime.tile, found.values, noise)


class _Objective:
    """The loss of one group, which keeps its two terms: as all cases begin together, a call is a step of all."""

    def __init__(self, learner: Learner, target: Target) -> None:
        self._learner, self._module = learner, target.module
        self._calls = 0
        self._looks: list[Tensor] = []

    def __call__(self, values: Tensor, constants: Mapping[str, Tensor], numbers: Tensor) -> Tensor:
        """Return the loss (B,) of distributions (B, layers, P), for noise (B, samples x d)."""
        learner = self._learner
        noise = numbers.view(len(values), learner.samples, learner.space.latent_dim)
        latents, ratios = draw_layers(learner.members, values, noise)
        logits = self._module(learner.space.render(latents.flatten(0, 1)))
        labels = constants["labels"].repeat_interleave(learner.samples)
        entropy = cross_entropy(logits, labels).view(len(values), -1).mean(dim=1)
        divergence = ratios.mean(dim=(1, 2))
        self._keep(entropy, divergence)
        return entropy + learner.kl_weight * divergence

    def _keep(self, entropy: Tensor, divergence: Tensor) -> None:
        if self._calls % LOOK_EVERY == 0:
            self._looks.append(torch.stack([entropy.detach(), divergence.detach()]))
        self._calls += 1

    def trace(self, n_cases: int) -> tuple[Tensor, Tensor]:
        """Return cross-entropy and divergence (C, looks) on the CPU."""
        if not self._looks:
            return torch.empty(n_cases, 0), torch.empty(n_cases, 0)
        entropies, divergences = torch.stack(self._looks, dim=-1)[:, :n_cases].cpu()
        return entropies, divergences


class _PartOfProgress(Progress):
    """Reports one group's steps as part of those of all groups."""

    def __init__(self, report: Callable[[int], None], before: int) -> None:
        self._report, self._before = report, before

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        """Give a function that takes the number of the group's steps done so far."""
        yield lambda done: self._report(self._before + done)
