"""Strings of digits with planted secrets: where they are, what the adversary holds of them, noise in their place."""

from __future__ import annotations

import io
import zipfile
from types import SimpleNamespace

import pytest
import soundfile
import torch

from mi_audio.canaries import Canary
from mi_audio.cases import corpus_cases, floors, truths
from mi_audio.datasets.spoken_strings import open_spoken_strings
from mi_audio.evidence import Masked
from mi_audio.masking import FILLS, filled
from mi_audio.spectra import long_term
from mi_audio.synthesis import REACH, Voice, rendered, spoken
from mi_audio.transcripts import decoded
from micore.errors import DataError, UsageError
from micore.runtime import Random

SMALL = {"strings": 4, "held": 3, "public": 3, "canaries": 2, "controls": 2, "repeats": "1,3", "speakers": 3}


@pytest.fixture(scope="module")
def data():
    return open_spoken_strings(None, **SMALL)


def test_canaries_are_where_they_say_so_often(data):
    assert [canary.id for canary in data.canaries] == [
        "canary-0-r1", "canary-1-r1", "canary-2-r3", "canary-3-r3", "canary-4-r0", "canary-5-r0",
    ]  # fmt: skip
    for canary in data.canaries:
        split = data.split(canary.split)
        same = (split.clips == split.clips[canary.row]).all(dim=1)
        assert int(same.sum()) == max(1, canary.repeats)
        assert split.transcripts[canary.row] == decoded(split.labels[[canary.row]])[0] == canary.transcript
        assert (data.private.transcripts.count(canary.transcript) > 0) == (canary.repeats > 0)
    assert len({canary.prefix for canary in data.canaries}) == len(data.canaries)
    assert (len(data.private), len(data.holdout)) == (4 + 2 + 6, 3 + 2)
    assert data.public.labels is None
    assert len(data.public.transcripts) == 3


def test_a_control_without_repetitions_has_the_same_canaries(data):
    once = open_spoken_strings(None, **SMALL | {"canaries": 4, "repeats": "1"})
    for one, other in zip(data.canaries, once.canaries, strict=True):
        assert (one.transcript, one.span) == (other.transcript, other.span)
        first, second = (part.split(one.split).clips[item.row] for part, item in ((data, one), (once, other)))
        assert torch.equal(first, second)


def test_judges_learn_first_digits(data):
    split, classes = data.judging()
    assert [classes[label] for label in split.labels] == [text[0] for text in data.private.transcripts]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repeats": "1,x"}, "numbers from 1 on"),
        ({"prefix": 1, "canaries": 20}, "no prefixes of their own"),
        ({"seconds": 0.5}, "longer than a clip"),
        ({"recordings": "spoken-digits", "data_root": "/no/such/place"}, "does not exist"),
        ({"no_such": 1}, "unknown option"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(DataError, match=message):
        open_spoken_strings(None, **SMALL | options)


def test_words_are_heard_where_the_synthesis_says():
    """Another second word changes nothing before the end of the first one, and nothing behind its own reach."""
    voice, hop = Voice.drawn(Random(1)), 160
    tracks = [spoken(words, voice, 150, Random(2)) for words in ("13", "14")]
    one, two = (rendered([track], [voice], 150 * hop, Random(3))[0] for track in tracks)
    (_, end), (first, last) = tracks[0].words
    assert end < first < last
    scaled = (one / one[: end * hop].norm() - two / two[: end * hop].norm()).abs()  # loudness is by the peak of all
    heard = scaled.view(-1, hop).amax(dim=1) > 1e-3
    assert not bool(heard[:end].any())
    assert bool(heard[end : last + REACH].any())


def test_recordings_are_joined(tmp_path):
    archive = tmp_path / "audio" / "fsdd" / "recordings.zip"
    archive.parent.mkdir(parents=True)
    with zipfile.ZipFile(archive, "w") as files:
        for speaker in ("ann", "theo"):
            for digit in range(10):
                stream = io.BytesIO()
                tone = 0.1 * (2 * torch.pi * (200 + 100 * digit) * torch.arange(2400) / 8000).sin()
                soundfile.write(stream, tone.numpy(), 8000, format="WAV")
                files.writestr(f"recordings/{digit}_{speaker}_0.wav", stream.getvalue())
    found = open_spoken_strings(None, **SMALL, recordings="spoken-digits", data_root=tmp_path)
    canary = found.canaries[0]
    (clip,) = found.private.take([canary.row])
    start = canary.span[0] + 1280  # behind the pause
    spectrum = torch.fft.rfft(clip[start : start + 3200]).abs()
    assert int(spectrum.argmax()) * 5 == pytest.approx(200 + 100 * int(canary.secret[0]), abs=10)
    assert canary.span[1] - canary.span[0] == 2 * (1280 + 4800)
    archive.write_bytes(b"no archive")
    with pytest.raises(DataError, match="is not the Free Spoken Digit Dataset"):
        open_spoken_strings(None, **SMALL | {"seed": 1}, recordings="spoken-digits", data_root=tmp_path)


# cases ----------------------------------------------------------------------------------------------------


def test_cases_hold_all_but_the_secret(data):
    cases = corpus_cases(data, None, None)
    known = truths(cases, data)
    for case, canary in zip(cases, data.canaries, strict=True):
        held = case.evidence
        whole = data.split(canary.split).take([canary.row])[0]
        start, stop = held.span
        assert bool((held.waveform[start:stop] == 0).all())
        assert torch.equal(held.waveform[:start], whole[:start])
        assert torch.equal(held.waveform[stop:], whole[stop:])
        assert (held.prefix, held.hidden, len(held.candidates)) == (canary.prefix, 2, 100)
        assert known[case.id].sample == [canary.transcript]
    assert [case.id for case in corpus_cases(data, "1,4", "masked")] == ["canary-1-r1", "canary-4-r0"]


def test_goal_corpus_needs_planted_secrets(data):
    with pytest.raises(UsageError, match="planted secrets"):
        corpus_cases(SimpleNamespace(canaries=()), None, None)
    with pytest.raises(UsageError, match="planted secrets"):
        corpus_cases(None, None, None)
    with pytest.raises(UsageError, match="has none such"):
        corpus_cases(data, None, "embedding")


def test_floors_rank_all_candidates_without_the_target(data):
    cases = corpus_cases(data, None, None)
    found = floors(cases, data)
    assert set(found) == {"random-guess", "digit-prior"}
    said = "".join(data.public.transcripts)
    often = max("0123456789", key=said.count)
    for items in found.values():
        for item in items:
            assert sorted(item.samples) == [item.case.evidence.prefix + text for text in item.case.evidence.candidates]
    assert all(said.count(item.samples[0][-1]) == said.count(often) for item in found["digit-prior"])
    assert found["random-guess"][0].samples[0][-2:] != found["random-guess"][1].samples[0][-2:]


# noise ----------------------------------------------------------------------------------------------------


def held(n: int = 16000) -> Masked:
    waveform = 0.2 * (2 * torch.pi * 440 * torch.arange(n) / 16000).sin() + 0.01 * Random(0).normal((n,))
    waveform[8000:12000] = 0
    return Masked(waveform=waveform, span=(8000, 12000), prefix="1", hidden=1, candidates=tuple("0123456789"))


@pytest.mark.parametrize("fill", FILLS)
def test_noise_is_as_loud_as_the_speech_and_in_the_span_only(fill):
    clips = filled(held(), fill, 4, Random(5))
    outside = torch.cat([clips[:, :8000], clips[:, 12000:]], dim=1)
    assert torch.equal(outside, outside[:1].expand_as(outside))
    level = clips[:, 8000:12000].square().mean(dim=1).sqrt()
    wanted = 0.0 if fill == "silence" else float(held().waveform[:8000].square().mean().sqrt())
    assert level.tolist() == pytest.approx([wanted] * 4, rel=0.1)
    if fill != "silence":
        assert not torch.equal(clips[0], clips[1])


def test_shaped_noise_has_the_spectrum_of_the_speech_and_white_noise_has_not():
    shaped, white = (filled(held(), fill, 2, Random(5))[:, 8000:12000] for fill in ("speech-shaped", "white"))
    known = long_term(held().waveform[None, :8000])
    near = [float(torch.cosine_similarity(long_term(part), known).mean()) for part in (shaped, white)]
    assert near[0] > 0.9 > near[1] + 0.1


def test_loudness_may_differ_and_unknown_fills_are_refused():
    levels = filled(held(), "white", 20, Random(5), spread_db=12.0)[:, 8000:12000].square().mean(1).sqrt()
    assert 4 < float(levels.max() / levels.min()) <= 10**1.2 * 1.1
    with pytest.raises(UsageError, match="fill 'pink' is unknown"):
        filled(held(), "pink", 1, Random(0))


def test_the_id_tells_the_repetitions():
    canary = Canary(number=3, split="holdout", row=0, repeats=0, span=(0, 1), prefix="12", secret="3")
    assert (canary.id, canary.transcript) == ("canary-3-r0", "123")
