"""The ridge against another solver, rotations undone, and the adversary's own encoder."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mi_attack_embedding_transfer.alignment import Alignment, fit_alignment, ridge
from mi_attack_embedding_transfer.own_encoder import OwnEncoder, fit_encoder, restore_encoder
from micore.runtime import Random

PENALTIES = (1e-3, 1e-2, 0.1, 1.0, 10.0)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return Random(seed).normal(shape)


# ridge ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [5, 8, 40])
@pytest.mark.parametrize("penalty", [1e-3, 0.1, 10.0])
def test_ridge_is_least_squares_with_rows_for_the_penalty(n: int, penalty: float) -> None:
    inputs, outputs = drawn(n, 8).double(), drawn(n, 3, seed=1).double()
    augmented = np.concatenate([inputs.numpy(), np.sqrt(penalty) * np.eye(8)])
    expected, *_ = np.linalg.lstsq(augmented, np.concatenate([outputs.numpy(), np.zeros((8, 3))]), rcond=None)
    np.testing.assert_allclose(ridge(inputs, outputs, penalty).numpy(), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("n", [5, 40])
def test_without_penalty_it_is_the_least_squares_solution_of_least_norm(n: int) -> None:
    inputs, outputs = drawn(n, 8).double(), drawn(n, 3, seed=1).double()
    expected, *_ = np.linalg.lstsq(inputs.numpy(), outputs.numpy(), rcond=None)
    np.testing.assert_allclose(ridge(inputs, outputs, 0.0).numpy(), expected, rtol=1e-9, atol=1e-11)


def rotation(size: int) -> Tensor:
    turned: Tensor = torch.linalg.qr(drawn(size, size, seed=7).double())[0]
    return turned


def test_a_rotation_of_the_space_is_undone_exactly_with_enough_pairs() -> None:
    own = functional.normalize(drawn(60, 12), dim=1)
    target = own.double() @ rotation(12)
    fit = fit_alignment(target[:40].float(), own[:40], (0.0,))
    torch.testing.assert_close(fit(target[40:].float()), own[40:], rtol=0, atol=1e-5)
    assert fit.cosine == pytest.approx(1.0, abs=1e-6)


def test_a_rotation_changes_nothing_with_few_pairs_either() -> None:
    """So that turning or shuffling the dimensions of embeddings is no defense."""
    embeddings, own = drawn(30, 12).double(), drawn(30, 4, seed=1)
    turned = embeddings @ rotation(12)
    one, other = fit_alignment(embeddings[:9], own[:9], PENALTIES), fit_alignment(turned[:9], own[:9], PENALTIES)
    assert one.penalty == other.penalty
    torch.testing.assert_close(one(embeddings), other(turned), rtol=0, atol=1e-6)


def test_the_scale_and_the_mean_of_the_space_change_nothing() -> None:
    embeddings, own = drawn(30, 12).double(), drawn(30, 4, seed=1)
    one, other = fit_alignment(embeddings, own, PENALTIES), fit_alignment(50 * embeddings + 3, own, PENALTIES)
    torch.testing.assert_close(one(embeddings), other(50 * embeddings + 3), rtol=0, atol=1e-6)


def test_the_penalty_is_the_best_on_every_fifth_pair() -> None:
    embeddings = drawn(50, 30)
    own = embeddings[:, :6] + 2 * drawn(50, 6, seed=1)
    held = [row % 5 == 4 for row in range(50)]
    learned = [not one for one in held]
    by_hand = {
        penalty: float(
            functional.cosine_similarity(
                fit_alignment(embeddings[learned], own[learned], (penalty,))(embeddings[held]), own[held]
            ).mean()
        )
        for penalty in PENALTIES
    }
    fit = fit_alignment(embeddings, own, PENALTIES)
    assert fit.penalty == max(by_hand, key=lambda penalty: by_hand[penalty])
    assert fit.cosine == pytest.approx(by_hand[fit.penalty], abs=1e-6)
    assert fit.penalty > min(PENALTIES), "a case in which the choice matters"


def test_a_single_pair_gives_its_own_text_whatever_is_asked() -> None:
    embeddings, own = drawn(1, 8), functional.normalize(drawn(1, 3, seed=1), dim=1)
    fit = fit_alignment(embeddings, own, PENALTIES)
    assert fit.penalty == max(PENALTIES)
    torch.testing.assert_close(fit(drawn(4, 8, seed=2)), own.expand(4, -1), rtol=0, atol=1e-6)


def test_an_alignment_is_plain_data() -> None:
    fit = fit_alignment(drawn(30, 12), drawn(30, 4, seed=1), PENALTIES)
    again = Alignment.from_dict(fit.to_dict())
    assert torch.equal(fit(drawn(3, 12)), again(drawn(3, 12)))
    assert (again.penalty, again.cosine) == (fit.penalty, fit.cosine)


# the own encoder ------------------------------------------------------------------------------------------

TEXTS = ["the cat sees a dog", "a dog sees the cat", "rain in may", "the the the cat"]


def encoder(pair_weight: float = 0.5, seed: int = 1, buckets: int = 4096) -> OwnEncoder:
    return restore_encoder(fit_encoder(TEXTS, 32, buckets, pair_weight, seed))


def test_embeddings_have_unit_length_but_for_a_text_without_words() -> None:
    found = encoder()([*TEXTS, "", "  "])
    torch.testing.assert_close(found.norm(dim=1), torch.tensor([1.0, 1, 1, 1, 0, 0]))


def test_a_text_is_embedded_alike_among_others() -> None:
    own = encoder()
    among = own(TEXTS)
    assert all(torch.equal(own([text])[0], among[row]) for row, text in enumerate(TEXTS))


def test_order_shows_in_pairs_of_words_alone() -> None:
    without, within = encoder(0.0)(TEXTS), encoder(0.5)(TEXTS)
    torch.testing.assert_close(without[0], without[1], rtol=0, atol=1e-6)
    assert functional.cosine_similarity(within[0], within[1], dim=0) < 0.95


def test_rare_words_weigh_more() -> None:
    """By hand: inverse document frequency log((1 + N) / (1 + n)) + 1, and 1 + log of the count."""
    own = encoder(0.0)
    (cat,), (rain,) = ([place for place, _ in _places(text)] for text in ("cat", "rain"))
    assert float(own.rarity[cat]) == pytest.approx(np.log(5 / 4) + 1)
    assert float(own.rarity[rain]) == pytest.approx(np.log(5 / 2) + 1)
    (the,) = (place for place, _ in _places("the"))
    raw = own.rarity[the] * (1 + np.log(3)) * own.directions[the] + own.rarity[cat] * own.directions[cat]
    torch.testing.assert_close(own(["the the the cat"])[0], functional.normalize(raw, dim=0), rtol=1e-5, atol=1e-6)


def _places(text: str) -> list[tuple[int, float]]:
    return [(zlib.crc32(text.encode()) % 4096, 1.0)]


def test_the_seed_alone_decides_the_directions() -> None:
    assert torch.equal(encoder(seed=1)(TEXTS), encoder(seed=1)(TEXTS))
    assert not torch.equal(encoder(seed=1)(TEXTS), encoder(seed=2)(TEXTS))
