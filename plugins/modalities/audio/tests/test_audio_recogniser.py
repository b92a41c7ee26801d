"""Recognisers of speech: likelihoods and decoding against independent oracles, transcripts as labels."""

from __future__ import annotations

from collections import defaultdict
from itertools import groupby, product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from mi_audio.builders import mel_cnn, recogniser
from mi_audio.ctc import POSSIBLE, beam_search, greedy, log_likelihoods
from mi_audio.recogniser import Recogniser
from mi_audio.transcripts import MOST, coded, decoded, letters
from micore.answers import HasAnswer, HasQuality, HasServices, HasTask
from micore.errors import DataError, ModelError, UsageError
from micore.inputs import InputSpec
from micore.runtime import Random
from micore.threat import Access

SAID = ["123", "", "99", "012345", "7"]
SPEC = InputSpec(shape=(4000,), options={"sampling_rate": 8000, "labels": "transcripts"})


def frames(n: int, length: int, k: int = 11) -> torch.Tensor:
    return Random(length + k).normal((n, length, k)).double()


# transcripts ----------------------------------------------------------------------------------------------


@given(st.lists(st.text("0123456789", max_size=MOST), min_size=1, max_size=5))
def test_transcripts_come_back_from_their_numbers(said):
    assert decoded(coded(said)) == said


def test_letters_stand_in_order_with_nothing_behind():
    assert letters(coded(["709"]))[0].tolist() == [8, 1, 10] + [0] * (MOST - 3)


@pytest.mark.parametrize("said", ["1" * (MOST + 1), "one"])
def test_what_is_no_row_of_digits_has_no_number(said):
    with pytest.raises(DataError, match="a transcript must be up to 18 digits"):
        coded([said])


# likelihoods and decoding ---------------------------------------------------------------------------------


def by_torch(logits: torch.Tensor, said: list[str]) -> torch.Tensor:
    targets = torch.cat([letters(coded([text]))[0, : len(text)] for text in said])
    sizes = torch.tensor([len(text) for text in said])
    full = torch.full((len(said),), logits.shape[1])
    return functional.ctc_loss(logits.log_softmax(2).transpose(0, 1), targets, full, sizes, reduction="none")


def test_likelihoods_and_their_gradients_are_those_of_torch():
    logits = frames(len(SAID), 12).requires_grad_()
    own, other = log_likelihoods(logits.log_softmax(2), letters(coded(SAID))), by_torch(logits, SAID)
    torch.testing.assert_close(-own, other)
    (one,), (two,) = (torch.autograd.grad(value.sum(), logits, retain_graph=True) for value in (-own, other))
    torch.testing.assert_close(one, two)


def test_a_transcript_that_needs_more_frames_than_there_are_cannot_be():
    found = log_likelihoods(frames(2, 3).log_softmax(2), letters(coded(["11", "111"])))
    assert bool(found[0] > POSSIBLE)
    assert bool(found[1] < POSSIBLE)


def test_all_transcripts_together_are_certain():
    said = ["".join(text) for size in range(5) for text in product("01", repeat=size)]
    posteriors = frames(1, 4, 3).log_softmax(2).expand(len(said), -1, -1)
    assert log_likelihoods(posteriors, letters(coded(said))).logsumexp(0).exp() == pytest.approx(1.0)


def test_a_wide_beam_finds_the_likeliest_and_one_way_is_the_greedy_one():
    posteriors = frames(6, 5, 4).log_softmax(2)
    for row, found in zip(posteriors, beam_search(posteriors, 500), strict=True):
        chances: dict[tuple[int, ...], float] = defaultdict(float)
        for path in product(range(4), repeat=5):
            chances[tuple(k for k, _ in groupby(path) if k)] += float(sum(row[t, k] for t, k in enumerate(path)).exp())
        assert tuple(found) == max(chances, key=lambda text: chances[text])
    for row, found in zip(posteriors, greedy(posteriors), strict=True):
        assert found == [k for k, _ in groupby(row.argmax(1).tolist()) if k]


# the network ----------------------------------------------------------------------------------------------


def network() -> Recogniser:
    torch.manual_seed(0)
    return recogniser(10, SPEC, width=8, hidden=8).eval()


def test_it_says_what_it_is_and_what_access_its_services_need():
    module = network()
    for protocol in (HasAnswer, HasTask, HasQuality, HasServices):
        assert isinstance(module, protocol)
    assert module.services == {"transcribe": Access.LABEL, "log_likelihoods": Access.SCORES}
    answer = module.answer(torch.zeros(2, 4000)).view(2, -1, 11)
    torch.testing.assert_close(answer.sum(2), torch.ones(2, answer.shape[1]))
    assert module(torch.zeros(2, module.min_length)).shape[1:] == (2, 11)
    with pytest.raises(UsageError, match="offers no"):
        module.serve("sing", torch.zeros(1, 4000))


def test_loss_and_likelihoods_agree():
    module, waveforms = network(), 0.1 * Random(0).normal((3, 4000))
    found = module.serve("log_likelihoods", waveforms, transcripts=SAID)
    for column, text in enumerate(SAID):
        torch.testing.assert_close(-found[:, column], module.task_loss(waveforms, coded([text] * 3)))


def test_it_learns_to_write_and_its_error_rate_falls():
    torch.manual_seed(0)
    module = Recogniser(10, width=32, hidden=32, bursts=0)
    tones = (2 * torch.pi * torch.tensor([[500.0], [1500.0]]) * torch.arange(1600) / 8000).sin()
    said = ["01", "10", "00", "11"]
    clips = torch.stack(
        [torch.cat([part for sign in text for part in (tones[int(sign)], torch.zeros(800))]) for text in said]
    )
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        module.task_loss(clips, coded(said)).mean().backward()
        optimizer.step()
    module.eval()
    assert module.serve("transcribe", clips) == module.serve("transcribe", clips, beam=4) == said
    assert module.quality(clips, coded(said[::-1]))["digit_error_rate"].tolist() == [0.5] * 4


def test_bursts_of_noise_drown_stretches_in_training_only():
    module, silent = Recogniser(10, bursts=2), torch.full((50, 40, 200), -9.0)
    changed = module._disturbed(silent) != silent
    widths = changed[:, 0].sum(1)
    assert 100 < int(widths.max()) <= 2 * (module.widest + 1)
    assert torch.equal(changed[:, :1].expand_as(changed), changed)
    waveforms = 0.1 * Random(0).normal((2, 16000))
    assert torch.equal(module.eval()(waveforms), module(waveforms))
    assert not torch.equal(module.train()(waveforms), module(waveforms))


def test_networks_are_told_from_data_that_they_cannot_learn():
    with pytest.raises(ModelError, match="recogniser learns transcripts"):
        recogniser(10, InputSpec(shape=(4000,), options={"sampling_rate": 8000}))
    with pytest.raises(ModelError, match="MelCnn learns classes"):
        mel_cnn(10, SPEC)
    with pytest.raises(ModelError, match="cannot be built"):
        recogniser(10, SPEC, bursts=-1)
    with pytest.raises(ValueError, match="expected"):
        network()(torch.zeros(1, 10))
