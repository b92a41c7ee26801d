"""Cells against a search for the nearest middle, the fitted range, and what coarse embeddings keep."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from mi_defense_embedding_quantise.defense import EmbeddingQuantisation, quantised
from mi_text.splits import TextSplit
from micore.configs import make_config
from micore.contracts import Fitting
from micore.errors import ConfigError, ModelError
from micore.runtime import Runtime
from micore.utility import neighbour_overlap

CPU = Runtime(device=torch.device("cpu"))


def made(**options: Any) -> EmbeddingQuantisation:
    return EmbeddingQuantisation(make_config(EmbeddingQuantisation.Config, options, "embedding-quantise"))


def units(n: int, d: int = 384) -> Tensor:
    return functional.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(0)), dim=1)


def fitted(embeddings: Tensor, **options: Any) -> EmbeddingQuantisation:
    defense, split = made(**options), TextSplit(tuple(map(str, range(len(embeddings)))))
    defense.fit(Fitting(
        module=torch.nn.Identity(), reference=split, reference_is_fresh=True, public=None, n_classes=1,
        adapter=lambda samples: samples, runtime=CPU,
        answer=lambda samples: embeddings[[int(text) for text in samples]],
    ))  # fmt: skip
    return defense


@pytest.mark.parametrize("bits", [1, 2, 3, 8])
@given(st.lists(st.floats(-3, 3, width=32), min_size=1, max_size=20))
def test_values_become_the_nearest_middle_of_a_cell(bits: int, values: list[float]) -> None:
    limit = 1.5
    edges = np.linspace(-limit, limit, 2**bits + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    found = quantised(torch.tensor(values, dtype=torch.float64), limit, bits).numpy()
    assert np.abs(found[:, None] - middles).min(axis=1).max() < 1e-9
    nearest = np.abs(np.array(values)[:, None] - middles).min(axis=1)
    np.testing.assert_allclose(np.abs(found - values), nearest, atol=1e-9)


def test_one_bit_is_the_sign() -> None:
    raw = units(5)
    found = quantised(raw, 0.2, 1)
    assert torch.equal(found, torch.where(raw < 0, -0.1, 0.1))


def test_no_cell_has_zero_in_its_middle() -> None:
    assert not bool((quantised(torch.linspace(-1, 1, 1001), 1.0, 4) == 0).any())


@pytest.mark.parametrize("covered", [0.5, 0.999, 1.0])
def test_the_range_covers_the_share_of_the_private_values(covered: float) -> None:
    raw = units(300)
    limit = fitted(raw, covered=covered).facts()["range"]
    assert float((raw.abs() <= limit).double().mean()) == pytest.approx(covered, abs=1e-4)


def test_many_private_samples_are_thinned_out() -> None:
    raw = units(5000, 8)
    asked: list[int] = []
    defense = made()
    defense.fit(Fitting(
        module=torch.nn.Identity(), reference=TextSplit(tuple(map(str, range(5000)))), reference_is_fresh=True,
        public=None, n_classes=1, adapter=lambda samples: samples, runtime=CPU,
        answer=lambda samples: (asked.append(len(samples)), raw[[int(text) for text in samples]])[1],
    ))  # fmt: skip
    assert 2000 < sum(asked) <= 4096
    assert max(asked) <= 256


def test_fewer_bits_keep_fewer_neighbours() -> None:
    base = units(40)
    generator = torch.Generator().manual_seed(1)
    raw = functional.normalize(base.repeat(5, 1) + 0.03 * torch.randn(200, 384, generator=generator), dim=1)
    kept = [neighbour_overlap(raw, fitted(raw, bits=bits).adapt_output(raw, [])) for bits in (8, 4, 2, 1)]
    assert kept[0] > 0.97
    assert kept[0] > kept[1] > kept[2] > kept[3] - 0.05
    assert kept[3] < 0.9


def test_a_loaded_range_answers_the_same_and_none_is_refused() -> None:
    raw = units(30)
    one, other = fitted(raw), made()
    other.load_state(one.state())
    assert torch.equal(one.adapt_output(raw, []), other.adapt_output(raw, []))
    with pytest.raises(ModelError, match="no range yet"):
        made().adapt_output(raw, [])
    for state in ({}, {"range": torch.tensor([0.0])}, {"range": torch.tensor(1.0)}):
        with pytest.raises(ModelError, match="holds no range"):
            made().load_state(state)


def test_embeddings_of_zeros_are_refused() -> None:
    with pytest.raises(ModelError, match="nearly all values"):
        fitted(torch.zeros(20, 4))


@pytest.mark.parametrize("options", [{"bits": 0}, {"bits": 17}, {"covered": 0}, {"covered": 1.1}])
def test_bad_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        made(**options)
