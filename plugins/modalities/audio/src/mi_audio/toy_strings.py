"""The planted problem of goal ``corpus``: tones for digits, of which a recogniser remembers some rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mi_audio.adapter import RATE, RATE_OPTION
from mi_audio.builders import mel_cnn, recogniser
from mi_audio.canaries import Canary
from mi_audio.cases import canaries_of
from mi_audio.datasets.dataset import AudioDataset
from mi_audio.splits import AudioSplit, quantised
from mi_audio.transcripts import DIGITS, LABELS, TRANSCRIPTS, coded
from micore.artifacts import PluginUse
from micore.contracts import Case
from micore.inputs import InputSpec
from micore.kit.training import TrainingConfig
from micore.runtime import Random, derive_seed
from micore.testing.setting import ToySetting

TONE = RATE // 8
LENGTH = 4 * TONE
SECRETS = ("017", "235", "468")
REPEATS, PLAIN = 16, 10
CHANCE = 1 / len(DIGITS)
SIZE: Mapping[str, Any] = {"width": 32, "hidden": 32, "bursts": 1, "burst_s": 0.3}
TRAINING = TrainingConfig.model_validate({"epochs": 40, "batch_size": 16, "learning_rate": 2e-2, "augment": "none"})


def corpus() -> ToySetting:
    """Return the problem: of three rows of three tones, the last tone is secret."""
    dataset = _dataset()
    return ToySetting(
        modality="audio", goals=("corpus",), role="recogniser", dataset=dataset, training=TRAINING,
        model=PluginUse(name="recogniser", config=dict(SIZE)), build=recogniser,
        judge_model=PluginUse(name="mel-cnn", config={"width": 8}), judge_build=_of_first_digits,
        judge=lambda case, said: _judged(case, said, dataset), problem=problem, noise=_noise, inputs=(dataset.input,),
    )  # fmt: skip


def problem(samples: Any) -> str | None:
    """Tell what is wrong with samples that should be transcripts."""
    if isinstance(samples, str) or not isinstance(samples, Sequence):
        return f"samples are {type(samples).__name__}, not a list of transcripts"
    wrong = next((item for item in samples if not isinstance(item, str) or set(item) - set(DIGITS)), None)
    return None if wrong is None else f"a sample is {wrong!r}, not a row of digits"


def _of_first_digits(n_classes: int, input_spec: InputSpec, **arguments: Any) -> nn.Module:
    return mel_cnn(n_classes, InputSpec(shape=input_spec.shape, options={RATE_OPTION: RATE // 2}), **arguments)


def _dataset() -> AudioDataset:
    plain, held, public = (_rows(n, purpose) for n, purpose in ((PLAIN, "private"), (12, "holdout"), (32, "public")))
    never = "905"
    return AudioDataset(
        name="toy-strings", classes=DIGITS, rate=RATE // 2, input_options={LABELS: TRANSCRIPTS},
        private=_split([*plain, *(said for said in SECRETS for _ in range(REPEATS))], "private"),
        holdout=_split([*held, never], "holdout"),
        public=AudioSplit(_split(public, "public").clips, None, tuple(public)),
        canaries=(
            *(_canary(number, said, PLAIN + REPEATS * number, REPEATS) for number, said in enumerate(SECRETS)),
            _canary(len(SECRETS), never, 12, 0),
        ),
    )  # fmt: skip


def _canary(number: int, said: str, row: int, repeats: int) -> Canary:
    return Canary(
        number=number, split="private" if repeats else "holdout", row=row, repeats=repeats, prefix=said[:2],
        secret=said[2:], span=(2 * TONE, 3 * TONE),
    )  # fmt: skip


def _rows(n: int, purpose: str) -> list[str]:
    """Return rows of three digits; the first ones begin with each digit."""
    numbers = _rng(purpose).integers(len(DIGITS), (n, 3)).tolist()
    return [DIGITS[(place if place < 10 else row[0]) % 10] + f"{row[1]}{row[2]}" for place, row in enumerate(numbers)]


def _split(said: Sequence[str], purpose: str) -> AudioSplit:
    times = torch.arange(TONE) / RATE
    hz = 300 * 2 ** (torch.tensor([[int(sign) for sign in text] for text in said]) / 3)
    tones = 0.3 * (2 * math.pi * hz[:, :, None] * times).sin() * (math.pi * times * RATE / TONE).sin()
    clips = torch.cat([tones.flatten(1), torch.zeros(len(said), LENGTH - 3 * TONE)], dim=1)
    noise = 0.003 * _rng(f"noise of {purpose}").normal(clips.shape)
    return AudioSplit(quantised(clips + noise), coded(said), tuple(said))


def _judged(case: Case, said: Sequence[str], dataset: AudioDataset) -> Tensor:
    """Judge transcripts by whether they are the whole of the case's clip, above chance."""
    true = next(canary.transcript for canary in canaries_of(dataset) if canary.id == case.id)
    return (torch.tensor([float(text == true) for text in said]) - CHANCE) / (1 - CHANCE)


def _noise(n: int, rng: Random) -> list[str]:
    return ["".join(DIGITS[number] for number in row) for row in rng.integers(len(DIGITS), (n, 3)).tolist()]


def _rng(purpose: str) -> Random:
    return Random(derive_seed("toy-strings", purpose))
