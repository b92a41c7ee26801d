"""Sliding model inversion: a waveform longer than the network's window, inverted window by window, with overlap.

Pizzi, Boenisch, Sahin, Böttinger: "Introducing Model Inversion Attacks on Automatic Speaker Recognition", 2023
(arXiv:2301.03206).

Threat model: white box; no data, except with ``start=public-clip`` or ``public-mean``. The target tells speakers by
chunks of a recording; the adversary wants a recording that it takes for a speaker at every place.

1. Begin with noise as long as a clip.
2. For the windows from the first to the last, ``stride`` apart: ``inner_steps`` steps of Adam on the cross-entropy of
   this window alone, clipped to [-1, 1]. What two windows share carries the solution of the one into the next.
3. Go over the waveform again, ``passes`` times in all.
4. Give the waveforms back as 16-bit samples, in the order of the target's mean confidence over all their windows, one
   every 10 ms. The history holds the share of these windows that it takes for the class (``shifted-accuracy``).

Fidelity notes (paper / here). We had the abstract and descriptions by others, not the paper's tables; the authors'
code is not public
- The idea (overlapping chunks, one after the other, the overlap carried over): as published.
- Window: the network's chunk (SincNet, 200 ms) / the shortest input of any network, or ``window_s``.
- Steps, step size, strides, passes and kinds of start: ours, as are all numbers of the preset ``paper``, which is
  SincNet's published chunk with the densest stride.
- Second output, d-vectors of the inverted audio, and speech synthesis from them: left out.
- SincNet on TIMIT / TIMIT is licensed; any data set.

Windows depend on each other, so they cannot be worked on at once: only cases and restarts are. The steps that follow
each other are passes x windows x inner_steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from mi_attack_sliding_mi.windows import HOP, Afresh, cut, offsets, schedule, shifted, window_of
from mi_audio.adapter import RATE
from mi_audio.waveform_search import (
    PublicSpeech,
    Start,
    Views,
    canonical_length,
    needs_public,
    requantised,
    roughness,
    starts,
)
from micore.contracts import Case, Config, Prepared, Reconstruction, Split
from micore.errors import BudgetExceeded, ConfigError, DataError
from micore.kit.case_rows import make_rows, reconstructions, tiled, uniform_draws
from micore.kit.losses import cross_entropy
from micore.kit.projections import clamp_box
from micore.kit.row_optimizers import RowAdam
from micore.kit.search import Rows, RowSearch
from micore.runtime import Runtime
from micore.target import Target

Stride = Literal["window", "half", "quarter", "10ms"]
PARTS: Mapping[str, int] = {"window": 1, "half": 2, "quarter": 4}


class SlidingConfig(Config):
    """Settings of sliding model inversion; where nothing else is said, numbers are ours."""

    stride: Stride = Field("quarter", description="between windows; window: no overlap, as in standard inversion")
    window_s: float | None = Field(
        None, gt=0, description="seconds of a window; none: the network's shortest input (SincNet: its chunk of 0.2)"
    )
    inner_steps: int = Field(40, ge=1, description="steps in each window")
    passes: int = Field(1, ge=1, description="how often all windows are gone over")
    learning_rate: float = Field(0.01, gt=0, description="of Adam, begun anew in each window")
    smoothness: float = Field(0.0, ge=0, description="weight of the mean difference of neighbouring samples")
    noise: float = Field(0.0, ge=0, description="deviation of noise that is added anew before each step")
    start: Start = Field("pink", description="what each waveform begins with")
    restarts: int = Field(5, ge=1, description="waveforms per class")
    public_clips: int = Field(200, ge=1, description="at most so many, for starts of public clips")


class SlidingInversion:
    """The attack sliding MI (see the module's documentation)."""

    Config: ClassVar[type[Config]] = SlidingConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "smoke": {"stride": "half", "inner_steps": 40, "restarts": 2, "start": "laplace", "noise": 0.02},
        "paper": {"stride": "10ms", "window_s": 0.2, "restarts": 10},
    }
    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset({"start", "public_clips"})

    def __init__(self, config: SlidingConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared | None:
        """Keep some public clips when the search begins with them; otherwise there is nothing to prepare.

        Raises: DataError when there are none.
        """
        if not needs_public(self.config.start):
            return None
        speech = PublicSpeech.of(public, self.config.public_clips, runtime.rng("public clips"))
        return Prepared(state=speech.state())

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Slide over the waveforms of all restarts of all cases.

        Raises: ConfigError when a window is longer than a clip.
        """
        config, length = self.config, canonical_length(target.input_spec)
        window, places = self._windows(target, length)
        begun = starts(config.start, cases, config.restarts, length, self._speech(prepared, runtime), runtime)
        numbers = uniform_draws(cases, config.restarts, Views.N_NUMBERS, runtime)
        draw = schedule(places, config.inner_steps, config.passes, numbers, begun.device)
        rows = make_rows(cases, begun, draw)
        views = Views(noise=config.noise, bank=runtime.rng("noise").normal((window,)))

        def losses(waveforms: Tensor, constants: Mapping[str, Tensor], numbers: Tensor) -> Tensor:
            chunks = cut(waveforms, numbers[:, :1], window)
            logits: Tensor = target.module(views(chunks, numbers[:, 1:]))
            return cross_entropy(logits, constants["labels"]) + config.smoothness * roughness(chunks)

        found = RowSearch(
            objective=losses,
            optimizer=Afresh(optimizer=RowAdam(learning_rate=config.learning_rate), every=config.inner_steps),
            steps=len(places) * config.passes * config.inner_steps,
            constraint=lambda waveforms, _: clamp_box(waveforms, -1.0, 1.0),
        ).run(rows, target.ledger, runtime)
        samples = requantised(found.values)
        judged, scored = self._judged(target, samples, rows, window, runtime)
        items = reconstructions(cases, found, samples, judged[:, 0], latents=judged[:, 1], scored=scored)
        for item in items:
            history = {**item.history, "shifted-accuracy": item.latents.tolist()} if item.latents is not None else {}
            yield replace(item, latents=None, history=history)

    def _windows(self, target: Target, length: int) -> tuple[int, list[int]]:
        """Return the length of a window and where the windows begin."""
        config = self.config
        if config.window_s is None:
            window = window_of(target.module.inner, target.input_spec)
        else:
            window = round(config.window_s * RATE)
        if window > length:
            raise ConfigError(
                f"a window of {window / RATE:.3g} s is longer than a clip of {length / RATE:.3g} s",
                hint="-p window_s=0.2, or a target of longer clips",
            )
        stride = HOP if config.stride == "10ms" else max(1, window // PARTS[config.stride])
        return window, offsets(length, window, stride)

    def _speech(self, prepared: Prepared | None, runtime: Runtime) -> PublicSpeech | None:
        if not needs_public(self.config.start):
            return None
        if prepared is None:
            raise DataError("sliding-mi was not prepared")
        return PublicSpeech.of_state(prepared.state, runtime)

    def _judged(
        self, target: Target, samples: Tensor, rows: Rows, window: int, runtime: Runtime
    ) -> tuple[Tensor, bool]:
        """Return the target's mean confidence and accuracy over all windows of each row, (N, 2); was the budget enough.

        One place of all rows at a time: a row's chunks together would take as much memory as a long batch.
        """

        def score(waveforms: Tensor, labels: Tensor) -> Tensor:
            sums = torch.zeros(len(labels), 2, device=labels.device)
            for chunks in shifted(waveforms, window).unbind(1):
                scores = target.module(chunks).float().softmax(dim=1)
                own = scores.gather(1, labels[:, None])[:, 0]
                sums += torch.stack([own, (scores.argmax(dim=1) == labels).float()], dim=1)
            return sums / shifted(waveforms, window).shape[1]

        labels = rows.constants["labels"]
        try:
            found = tiled(score, runtime.tile, samples, labels, ledger=target.ledger, owners=rows.owners)
        except BudgetExceeded:
            return torch.zeros(len(labels), 2, device=labels.device), False
        return found, True
