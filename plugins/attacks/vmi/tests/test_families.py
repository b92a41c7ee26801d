"""The families of distributions against densities, determinants and divergences that were worked out otherwise."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, kl_divergence

from mi_attack_vmi.families import FullGaussian, Members, MultiScaleFlow, level_sizes

FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "gaussian": lambda: FullGaussian(7),
    "additive": lambda: MultiScaleFlow(7, steps=3, hidden=5),
    "affine": lambda: MultiScaleFlow(7, steps=3, hidden=5, coupling="affine"),
    "levels": lambda: MultiScaleFlow(8, levels=3, steps=2, hidden=5),
}
EVERY_FAMILY = pytest.mark.parametrize("name", FAMILIES)


def family(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return FAMILIES[name]()


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moved(name: str, rows: int) -> tuple[Members, Tensor, Tensor]:
    """Return members in float64, parameters away from the start, and noise for 5 draws of each."""
    network = family(name).double()
    members = Members(network)
    start = members.start()
    return members, start + 0.3 * numbers(rows, len(start)), numbers(rows, 5, 8 if name == "levels" else 7, seed=1)


@EVERY_FAMILY
def test_every_member_starts_at_the_prior(name: str) -> None:
    members, _, noise = moved(name, 2)
    latents, ratios = members.draw(members.start().expand(2, -1), noise)
    torch.testing.assert_close(ratios, torch.zeros_like(ratios), rtol=0, atol=1e-12)
    torch.testing.assert_close(latents.sort(dim=2).values, noise.sort(dim=2).values)  # at most permuted


@EVERY_FAMILY
def test_the_density_is_that_of_the_change_of_variables(name: str) -> None:
    members, parameters, noise = moved(name, 2)
    latents, ratios = members.draw(parameters, noise)

    def log_normal(point: Tensor) -> Tensor:
        return MultivariateNormal(torch.zeros_like(point), torch.eye(len(point), dtype=point.dtype)).log_prob(point)

    for row in range(2):
        for index in range(5):
            single = noise[row, index]
            jacobian = torch.autograd.functional.jacobian(
                lambda eps, row=row: members.draw(parameters[row : row + 1], eps[None, None])[0][0, 0], single
            )
            expected = log_normal(single) - jacobian.det().abs().log() - log_normal(latents[row, index])
            torch.testing.assert_close(ratios[row, index], expected)


def test_the_gaussian_is_a_multivariate_normal_with_its_divergence() -> None:
    members, parameters, _ = moved("gaussian", 1)
    mean, log_scales, lower = parameters[0].split([7, 7, 49])
    expected = MultivariateNormal(mean, scale_tril=lower.view(7, 7).tril(-1) + log_scales.exp().diag())
    prior = MultivariateNormal(torch.zeros(7, dtype=mean.dtype), torch.eye(7, dtype=mean.dtype))
    latents, ratios = members.draw(parameters, numbers(1, 40_000, 7, seed=5))
    torch.testing.assert_close(ratios, expected.log_prob(latents) - prior.log_prob(latents))
    torch.testing.assert_close(ratios.mean(), kl_divergence(expected, prior), rtol=0.02, atol=0)
    torch.testing.assert_close(latents[0].T.cov(), expected.covariance_matrix, rtol=0.1, atol=0.1)


@EVERY_FAMILY
def test_a_member_does_not_depend_on_the_others(name: str) -> None:
    members, parameters, noise = moved(name, 3)
    alone = members.draw(parameters[[1, 1, 1]], noise[[1, 1, 1]])
    together = members.draw(parameters, noise)
    assert all(torch.equal(one[0], all_[1]) for one, all_ in zip(alone, together, strict=True))


@EVERY_FAMILY
def test_gradients_reach_all_parts(name: str) -> None:
    members, parameters, noise = moved(name, 1)
    parameters.requires_grad_(True)
    latents, ratios = members.draw(parameters, noise)
    (gradient,) = torch.autograd.grad((latents**3).sum() + ratios.sum(), parameters)
    unused = 7 * 8 // 2 if name == "gaussian" else 0  # the upper half of the matrix
    assert (gradient == 0).sum() == unused


@given(latent_dim=st.integers(2, 600), levels=st.integers(1, 6))
def test_each_level_has_half_of_the_next(latent_dim: int, levels: int) -> None:
    sizes = level_sizes(latent_dim, levels)
    assert len(sizes) == levels
    assert sizes[-1] == latent_dim
    assert all(small == -(-large // 2) for small, large in itertools.pairwise(sizes))


def test_the_published_flow_has_128_256_and_512_dimensions() -> None:
    assert level_sizes(512, 3) == [128, 256, 512]
