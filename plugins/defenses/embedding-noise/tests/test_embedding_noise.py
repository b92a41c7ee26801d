"""The noise against its distribution, what averaging makes of it, and who is found behind noisy embeddings."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional

from mi_defense_embedding_noise.defense import EmbeddingNoise
from mi_text.modality import TextModality
from mi_text.toy import toys
from micore.configs import make_config
from micore.errors import ConfigError, ModelError
from micore.testing.counting import differences, global_streams


def noisy(seed: int = 7, **options: Any) -> EmbeddingNoise:
    made = EmbeddingNoise(make_config(EmbeddingNoise.Config, options, "embedding-noise"))
    made.load_state({"key": torch.tensor([seed])})
    return made


def units(n: int, d: int = 384, seed: int = 0) -> Tensor:
    return functional.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def texts(n: int) -> list[str]:
    return [f"text number {row}" for row in range(n)]


@pytest.mark.parametrize("length", [1.0, 20.0])
@pytest.mark.parametrize("sigma", [0.01, 0.3])
def test_noise_is_normal_in_lengths_of_the_embedding(sigma: float, length: float) -> None:
    raw = length * units(40)
    drawn = (noisy(sigma=sigma, renormalise=False).adapt_output(raw, texts(40)) - raw) / (sigma * length)
    assert stats.kstest(drawn.flatten().numpy(), "norm").pvalue > 0.001


@pytest.mark.parametrize("sigma", [0.005, 0.02, 0.1])
def test_the_cosine_is_what_the_dimensions_say(sigma: float) -> None:
    raw = units(200)
    found = noisy(sigma=sigma).adapt_output(raw, texts(200))
    cosine = float(functional.cosine_similarity(raw, found).mean())
    assert cosine == pytest.approx(1 / math.sqrt(1 + 384 * sigma**2), abs=0.01)


def test_the_length_stays_unless_it_may_not() -> None:
    raw = units(5) * torch.tensor([0.5, 1, 1, 3, 0])[:, None]
    found = noisy(sigma=0.2).adapt_output(raw, texts(5))
    torch.testing.assert_close(found.norm(dim=1), raw.norm(dim=1))
    assert torch.equal(found[4], raw[4])  # nothing to add noise to
    bare = noisy(sigma=0.2, renormalise=False).adapt_output(raw, texts(5))
    torch.testing.assert_close(found[:4], functional.normalize(bare[:4], dim=1) * raw[:4].norm(dim=1, keepdim=True))


def test_asking_again_in_other_company_or_spelling_gives_the_same_noise() -> None:
    raw, defense = units(3), noisy(sigma=0.1)
    first = defense.adapt_output(raw, ["call ann", "b", "c"])
    jittered = raw + 1e-7  # as padding in another batch makes it
    for spelling in ("call ann", "Call  Ann ", "CALL ANN"):
        again = defense.adapt_output(jittered[:1], [spelling])
        torch.testing.assert_close(again, first[:1], atol=1e-5, rtol=0)
    assert not torch.allclose(defense.adapt_output(raw[:1], ["call anna"]), first[:1], atol=1e-3)


def test_fresh_noise_is_averaged_away_and_keyed_noise_is_not() -> None:
    raw, repeats = units(1), 400
    asked = ["the same"] * repeats
    errors = [
        float((noisy(sigma=0.1, keyed=keyed).adapt_output(raw.expand(repeats, -1), asked).mean(0) - raw[0]).norm())
        for keyed in (True, False)
    ]
    assert errors[0] > 1
    # renormalising shortens the mean, so the direction is compared
    fresh = noisy(sigma=0.1, keyed=False).adapt_output(raw.expand(repeats, -1), asked).mean(0, keepdim=True)
    assert float(functional.cosine_similarity(fresh, raw)) > 0.98
    keyed = noisy(sigma=0.1).adapt_output(raw.expand(repeats, -1), asked).mean(0, keepdim=True)
    assert float(functional.cosine_similarity(keyed, raw)) < 0.6


def test_the_text_behind_an_embedding_is_found_until_the_noise_is_large() -> None:
    """An adversary with the encoder and the right text among 500: what she finds by cosine."""
    toy = next(toy for toy in toys() if toy.role == "encoder")
    public = toy.dataset.split("public").take(range(500))
    module = toy.build(1, toy.dataset.input)
    with torch.no_grad():
        raw = module(TextModality().adapter(toy.dataset.input)(public))
    shares = []
    for sigma in (0.01, 0.5, 2.0):
        given = noisy(sigma=sigma).adapt_output(raw, public)
        shares.append(float((given @ raw.T).argmax(dim=1).eq(torch.arange(500)).double().mean()))
    assert shares[0] > 0.99
    assert shares[0] > shares[1] > shares[2]
    assert shares[2] < 0.1


def test_the_key_is_needed_and_decides() -> None:
    made = EmbeddingNoise(make_config(EmbeddingNoise.Config, {}, "embedding-noise"))
    with pytest.raises(ModelError, match="no key yet"):
        made.adapt_output(units(1), ["a"])
    with pytest.raises(ModelError, match="noise key"):
        made.load_state({})
    first, second = (noisy(seed).adapt_output(units(1), ["a"]) for seed in (1, 2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("asked", [["a", "b"], torch.rand(2, 3, 16, 16), torch.rand(2, 5)])
def test_samples_of_any_kind_are_taken_and_no_generator_is_drawn_from(asked: Any) -> None:
    before = global_streams()
    raw = units(2)
    kept = raw.clone()
    assert noisy().adapt_output(raw, asked).shape == raw.shape
    assert torch.equal(raw, kept)
    assert not differences(before, global_streams())


@pytest.mark.parametrize("options", [{"sigma": 0}, {"sigma": -1}, {"keyed": "maybe"}])
def test_bad_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        noisy(**options)
