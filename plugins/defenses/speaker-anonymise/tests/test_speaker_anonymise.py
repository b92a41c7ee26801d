"""Rotations and the attack that finds them, replaced voiceprints, and what both leave of verification."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.linalg import orthogonal_procrustes
from torch import Tensor, nn
from torch.nn import functional

from mi_audio.datasets.voices import open_voices
from mi_audio.networks import SpeakerEncoder, XVector
from mi_audio.splits import AudioSplit
from mi_defense_speaker_anonymise.defense import SpeakerAnonymisation
from mi_defense_speaker_anonymise.voiceprints import linked, replaced, rotation, speaker_means
from micore import api
from micore.artifacts import Bundle
from micore.configs import make_config
from micore.contracts import Fitting
from micore.errors import ConfigError, ModelError
from micore.models import restore_network
from micore.registry import Registry
from micore.runtime import Runtime

CPU = Runtime(device=torch.device("cpu"))


def made(**options: Any) -> SpeakerAnonymisation:
    return SpeakerAnonymisation(make_config(SpeakerAnonymisation.Config, options, "speaker-anonymise"))


def units(n: int, d: int = 32, seed: int = 0) -> Tensor:
    return functional.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def clips(n: int, seed: int = 5) -> Tensor:
    return 0.3 * torch.randn(n, 400, generator=torch.Generator().manual_seed(seed)).clamp(-1, 1)


def turning(seed: int = 3, d: int = 32) -> SpeakerAnonymisation:
    defense = made()
    defense.load_state({"key": torch.tensor([seed]), "rotation": rotation(seed, d)})
    return defense


def pooling(pool: Tensor, **options: Any) -> SpeakerAnonymisation:
    defense = made(method="pool", **options)
    defense.load_state({"key": torch.tensor([3]), "pool": pool})
    return defense


# rotations ------------------------------------------------------------------------------------------------


def test_rotations_keep_angles_and_are_uniform() -> None:
    matrix = rotation(1, 64)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(64), atol=1e-5, rtol=0)
    assert torch.equal(matrix, rotation(1, 64))
    assert not torch.allclose(matrix, rotation(2, 64), atol=0.1)
    corners = np.array([float(rotation(key, 3)[0, 0]) for key in range(300)])
    assert stats.kstest(corners, "uniform", args=(-1, 2)).pvalue > 0.001  # in three dimensions, of a uniform one


def test_turned_voiceprints_verify_among_themselves_and_not_against_clear_ones() -> None:
    raw = units(60)
    given = turning().adapt_output(raw, clips(60))
    torch.testing.assert_close(given @ given.T, raw @ raw.T, atol=1e-5, rtol=0)
    own = functional.cosine_similarity(raw, given, dim=1)
    assert float(own.abs().mean()) < 0.3


def speakers_of(n_speakers: int, per_speaker: int, d: int = 32) -> tuple[Tensor, Tensor]:
    """Return voiceprints of speakers, and whose they are."""
    labels = torch.arange(n_speakers).repeat_interleave(per_speaker)
    return functional.normalize(units(n_speakers, d)[labels] + 0.6 * units(len(labels), d, seed=9), dim=1), labels


def named(given: Tensor, known: Tensor, labels: Tensor, known_labels: Tensor) -> float:
    """Return the share of voiceprints whose nearest known one is of their speaker."""
    return float((known_labels[(given @ known.T).argmax(dim=1)] == labels).double().mean())


@pytest.mark.parametrize(("pairs", "expected"), [(0, (0.0, 0.2)), (8, (0.15, 0.95)), (40, (0.99, 1.0))])
def test_known_pairs_undo_the_rotation(pairs: int, expected: tuple[float, float]) -> None:
    """The attack of Champion et al. (2021): align what is known with and without the turn, then link all others."""
    raw, labels = speakers_of(20, 4)
    given = turning().adapt_output(raw, clips(80))
    known, found = units(pairs, seed=77), given
    if pairs:
        turned = turning().adapt_output(known, clips(pairs))
        matrix, _ = orthogonal_procrustes(turned.numpy(), known.numpy())
        found = given @ torch.tensor(matrix)
    other = functional.normalize(raw + 0.05 * units(80, seed=4), dim=1)
    low, high = expected
    assert low <= named(found, other, labels, labels) <= high


# pools ----------------------------------------------------------------------------------------------------


def test_the_mean_is_over_some_of_the_farthest() -> None:
    raw, pool, lots = units(5), units(50, seed=1), torch.rand(5, 10, generator=torch.Generator().manual_seed(2))
    found = replaced(3 * raw, pool, lots, 10, 4)
    for row in range(5):
        order = sorted(range(50), key=lambda k, row=row: float(raw[row] @ pool[k]))[:10]
        drawn = [order[place] for place in lots[row].argsort(descending=True)[:4].tolist()]
        expected = 3 * functional.normalize(torch.stack([pool[k] for k in drawn]).mean(dim=0), dim=0)
        torch.testing.assert_close(found[row], expected)


def test_replaced_voiceprints_link_nobody_and_are_not_undone_by_pairs() -> None:
    raw, labels = speakers_of(40, 6)
    defense = pooling(units(500, seed=1))
    given = defense.adapt_output(raw, clips(240))
    assert linked(raw, labels) > 0.95
    assert named(given, raw, labels, labels) < 0.1
    matrix, _ = orthogonal_procrustes(given[:120].numpy(), raw[:120].numpy())
    aligned = given[120:] @ torch.tensor(matrix)
    told = named(aligned, raw[:120], labels[120:] - 20, labels[:120])  # nobody of the second half is in the first
    assert told < 0.2
    # what the choice tells: the far ones of a voiceprint lie opposite to it
    assert float(functional.cosine_similarity(raw, given, dim=1).mean()) < -0.3


def test_asking_again_and_in_other_company_gives_the_same() -> None:
    raw, asked, defense = units(6), clips(6), pooling(units(60, seed=1))
    first = defense.adapt_output(raw, asked)
    torch.testing.assert_close(defense.adapt_output(raw[2:3], asked[2:3]), first[2:3])
    assert not torch.allclose(defense.adapt_output(raw[2:3], asked[3:4]), first[2:3], atol=1e-3)


@pytest.mark.parametrize(("pool", "numbers"), [(1000, (200, 100)), (400, (200, 100)), (40, (20, 10)), (4, (2, 1))])
def test_small_pools_are_used_in_the_same_shares(pool: int, numbers: tuple[int, int]) -> None:
    assert made(method="pool")._numbers(pool) == numbers


def test_means_and_links_are_those_of_a_loop() -> None:
    raw, labels = speakers_of(4, 3)
    for k in range(4):
        expected = functional.normalize(raw[labels == k].mean(dim=0), dim=0)
        torch.testing.assert_close(speaker_means(raw, labels + 7)[k], expected)
    hits = [int(labels[max((j for j in range(12) if j != i), key=lambda j, i=i: float(raw[i] @ raw[j]))]) == labels[i]
            for i in range(12)]  # fmt: skip
    assert linked(raw, labels) == pytest.approx(sum(map(float, hits)) / 12)


# on a target ----------------------------------------------------------------------------------------------

DATA = open_voices(None, speakers=2, clips=6, held=1, others=6, other_clips=2, seconds=0.5)
VOICES = {"speakers": 5, "clips": 16, "held": 6, "others": 12, "other_clips": 8, "seconds": 0.8}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    place = tmp_path_factory.mktemp("encoder")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MI_HOME", str(place / "home"))
        return api.train(
            data="voices", model="speaker-encoder", data_options=VOICES, output=place / "plain.safetensors",
            device="cpu",
        )  # fmt: skip


@pytest.mark.parametrize(("method", "kept"), [("rotation", True), ("pool", False)])
def test_the_card_tells_what_a_finished_target_loses(plain: Bundle, method: str, kept: bool) -> None:
    bundle = api.defend(plain.source, defenses=[f"speaker-anonymise:method={method}"], device="cpu")
    facts = bundle.card.metrics["defenses"]["speaker-anonymise"]
    assert facts["linked_before"] > 0.5
    assert abs(facts["mean_cosine"]) < 0.5
    if kept:
        assert (facts["neighbour_overlap"], facts["linked"]) == (1.0, facts["linked_before"])
    else:
        assert facts["linked"] < facts["linked_before"]
        assert facts["pool"] == 12
    network, (defense,) = restore_network(Registry.discover(), bundle)
    raw = units(2, 128)
    assert not torch.allclose(defense.adapt_output(raw, clips(2)), raw, atol=0.01)
    assert isinstance(network, SpeakerEncoder)


def fitting(module: nn.Module, public: AudioSplit | None) -> Fitting:
    return Fitting(
        module=module, reference=DATA.private, reference_is_fresh=False, public=public, n_classes=2,
        adapter=lambda samples: samples, answer=lambda samples: module(samples), runtime=CPU,
    )  # fmt: skip


@pytest.mark.parametrize(("labels", "pool"), [(range(6), 6), ([0] * 6, 12)])
def test_speakers_that_are_not_told_apart_make_a_pool_of_clips(labels: Any, pool: int) -> None:
    others = DATA.private
    public = AudioSplit(others.clips, torch.tensor(list(labels)).repeat_interleave(2))
    defense = made(method="pool")
    network = XVector(2, 16000, width=8, hidden=8).eval().requires_grad_(False)
    with torch.random.fork_rng():
        defense.fit(fitting(SpeakerEncoder(network), public))
    assert defense.facts()["pool"] == pool == len(defense.state()["pool"])


def test_targets_and_data_that_do_not_fit_are_refused() -> None:
    network = XVector(2, 16000, width=8, hidden=8).eval().requires_grad_(False)
    for method in ("rotation", "pool"):
        with pytest.raises(ModelError, match="the target answers with classes"):
            made(method=method).fit(fitting(network, None))
    for public, n in ((None, 0), (DATA.private.rows(torch.arange(3)), 3)):
        with pytest.raises(ModelError, match=f"needs 4 public clips or more, and the data have {n}"):
            made(method="pool").fit(fitting(SpeakerEncoder(network), public))
    with pytest.raises(ModelError, match="no key yet"):
        made().adapt_output(units(2), clips(2))
    with pytest.raises(ModelError, match="holds no rotation"):
        made().load_state({})


@pytest.mark.parametrize("options", [{"method": "mine"}, {"chosen": 300}, {"farthest": 1}])
def test_bad_settings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        made(**options)
