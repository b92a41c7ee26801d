"""Choosing tokens, against probabilities worked out by hand."""

from __future__ import annotations

import pytest
import torch

from mi_text.sampling import Sampling, choose
from micore.errors import ConfigError

LOGITS = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()


def frequencies(sampling, step=0, n=20_000):
    uniform = torch.rand(n, generator=torch.Generator().manual_seed(0))
    chosen = choose(LOGITS.expand(n, -1).clone(), sampling, step, uniform)
    return torch.bincount(chosen, minlength=4).double() / n


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(), [0.5, 0.3, 0.15, 0.05]),
        (Sampling(top_k=2), [0.625, 0.375, 0, 0]),
        (Sampling(top_p=0.6), [0.625, 0.375, 0, 0]),
        (Sampling(top_p=0.5), [1, 0, 0, 0]),
        (Sampling(temperature=0.5), [0.25 / 0.365, 0.09 / 0.365, 0.0225 / 0.365, 0.0025 / 0.365]),
        (Sampling(temperature=0), [1, 0, 0, 0]),
    ],
)
def test_tokens_come_as_often_as_they_should(sampling, expected):
    torch.testing.assert_close(frequencies(sampling), torch.tensor(expected).double(), atol=0.015, rtol=0)


def test_a_row_is_chosen_by_its_own_number_alone():
    rows = torch.randn(5, 30, generator=torch.Generator().manual_seed(1))
    uniform = torch.rand(5, generator=torch.Generator().manual_seed(2))
    together = choose(rows.clone(), Sampling(top_k=10), 0, uniform)
    alone = torch.cat([choose(rows[i : i + 1].clone(), Sampling(top_k=10), 0, uniform[i : i + 1]) for i in range(5)])
    assert torch.equal(together, alone)


def test_the_temperature_falls_linearly_over_the_first_tokens():
    sampling = Sampling(hot=10.0, hot_tokens=20)
    assert sampling.temperature_at(0) == 10
    assert sampling.temperature_at(10) == 5.5
    assert sampling.temperature_at(20) == sampling.temperature_at(99) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0}, "top_p"),
    ],
)
def test_settings_without_sense_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        Sampling(**values)
