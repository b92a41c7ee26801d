"""Audio MI: gradients on a waveform, a log-mel spectrogram, or the equaliser of somebody else's speech.

Not one paper: the algorithm of Fredrikson, Jha, Ristenpart, "Model Inversion Attacks that Exploit Confidence
Information and Basic Countermeasures", CCS 2015 (doi:10.1145/2810103.2813677) on speech, with what keeps its results
near speech. Pizzi et al. (arXiv:2301.03206) call the plain form on waveforms standard MI (preset ``paper``).

Threat model: white box; public speech of other people.

1. Begin (``start``) with noise, with public colour, or with public clips: those out of ``candidates`` that the target
   takes most for the class, or random ones (``choose``). Clips are tried slower and faster (``speeds``): as they were
   they are surely somebody else's.
2. Descend with Adam on the target's cross-entropy (or 1 - confidence) plus penalties, in a domain:
   waveform: the samples, clipped to [-1, 1]; every ``process_every`` steps they pass a low-pass (Process);
   mel: the log-mel spectrogram that the network sees, clamped between silence and full loudness;
   equaliser: 32 log gains for a public clip; what is said, and who says it, stays natural.
   The target may see each step through random changes (``noise``, ``gain``, ``shift``, ``colour``).
3. Make waveforms of the result, with 16 bits. Ask the target again; restarts are given back best first by that answer.

The history holds the confidence in the domain that was optimised (``confidence-optimised``) and that after rendering
(``confidence-rendered``), a value for each sample: a spectrogram that no waveform has can convince the target alone.

Fidelity notes (CCS 2015 / here)
- Plain gradient steps until the cost falls no more / Adam, all steps; the last point is kept, since with random changes
  the lowest cost is a lucky one.
- Process: de-noising of images / a low-pass; penalties, random changes, rendering, restarts, choice of clips: ours.
- Random changes act on waveforms: not in the domain mel.
- Defaults were chosen against targets of other voices (``-D seed=1``) than those that the README measures, but for
  ``speeds``, of which it tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from mi_attack_audio_mi.domains import EqualiserDomain, MelDomain, Searched, WaveformDomain, Weights, front_of, mean_of
from mi_audio.adapter import RATE, AudioAdapter
from mi_audio.features import LogMel
from mi_audio.waveform_search import (
    Processed,
    PublicSpeech,
    Start,
    Views,
    canonical_length,
    low_passed,
    requantised,
    sped,
    starts,
)  # fmt: skip
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import DataError
from micore.kit.case_rows import confidences, make_rows, reconstructions, score_rows, tiled, uniform_draws
from micore.kit.losses import cross_entropy
from micore.kit.row_optimizers import RowAdam, RowOptimizer
from micore.kit.search import Rows, RowSearch
from micore.kit.selection import stable_top_k, top_k_per_class
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending

STEPS: Mapping[str, int] = {"waveform": 300, "mel": 100, "equaliser": 60}
RATES: Mapping[str, float] = {"waveform": 0.005, "mel": 0.1, "equaliser": 0.1}


class AudioConfig(Config):
    """Settings of audio MI; the numbers are ours, tried on targets of other voices."""

    domain: Literal["waveform", "mel", "equaliser"] = Field("equaliser", description="what is searched")
    objective: Literal["cross-entropy", "confidence"] = Field(
        "cross-entropy", description="cost of a sample; confidence: 1 - the target's (CCS 2015)"
    )
    steps: int | None = Field(
        None, ge=0, description="none: waveform 300, mel 100, equaliser 60; 0: the start as it is"
    )
    learning_rate: float | None = Field(None, gt=0, description="of Adam; none: waveform 0.005, others 0.1")
    restarts: int = Field(5, ge=1, description="samples per class")
    # where it begins
    start: Start = Field("public-clip", description="what a sample begins with; the equaliser: always a public clip")
    choose: Literal["best", "random"] = Field("best", description="which public clips: best by the target, or any")
    candidates: int = Field(400, ge=1, description="at most so many public clips are kept, and tried for best")
    speeds: tuple[Annotated[float, Field(ge=0.5, le=2)], ...] = Field(
        (0.8, 0.87, 0.93, 1.07, 1.15, 1.25), min_length=1,
        description="with choose=best, each clip is tried at these speeds: higher and lower voices",
    )  # fmt: skip
    # penalties
    smoothness: float = Field(
        0.1, ge=0, description="weight of neighbours' differences: of samples, total variation of spectrograms, curves"
    )
    size: float = Field(0.02, ge=0, description="weight of the equaliser's squared log gains")
    energy: float = Field(0.0, ge=0, description="weight of loudness above level; not in the domain mel")
    level: float = Field(0.1, gt=0, description="effective value that costs nothing")
    mean_mel: float = Field(
        0.0, ge=0, description="weight of the squared distance to the public mean spectrogram; not of the equaliser"
    )
    # random changes before each step
    noise: float = Field(0.0, ge=0, description="deviation of noise that is added")
    gain: float = Field(0.0, ge=0, lt=1, description="largest relative change of loudness")
    shift: float = Field(0.0, ge=0, le=0.5, description="largest shift in time, as a share of the clip")
    colour: float = Field(0.0, ge=0, description="deviation of eight bands of frequency in decibels")
    # Process, rendering
    low_pass_hz: float | None = Field(None, gt=0, description="of Process, domain waveform; none: no Process")
    process_every: int = Field(10, ge=1, description="steps between two times of Process")
    iterations: int = Field(32, ge=1, description="of Griffin and Lim, domain mel")


class AudioInversion:
    """The attack audio MI (see the module's documentation)."""

    Config: ClassVar[type[Config]] = AudioConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "waveform": {"domain": "waveform", "smoothness": 5.0, "noise": 0.02},
        "mel": {"domain": "mel", "smoothness": 0.3, "mean_mel": 0.05},
        "smoke": {"steps": 20, "restarts": 2, "candidates": 100, "speeds": (1.0,)},
        "paper": {
            "domain": "waveform", "start": "laplace", "objective": "confidence", "smoothness": 0.0, "candidates": 1,
            "choose": "random",
        },
    }  # fmt: skip
    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset(
        {"domain", "start", "choose", "candidates", "speeds", "restarts"}
    )

    def __init__(self, config: AudioConfig) -> None:
        self.config = config

    @property
    def start(self) -> Start:
        """What samples begin with."""
        return "public-clip" if self.config.domain == "equaliser" else self.config.start

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared | None:
        """Keep public clips, their mean spectrogram, and what the target says to them, where the start needs it.

        Raises: DataError when there are none; ModelError when the domain does not fit the network.
        """
        speech = PublicSpeech.of(public, self.config.candidates, runtime.rng("public clips"))
        with torch.no_grad():
            mean = mean_of(self._spectrograms(target, runtime), speech.clips.to(runtime.device))
        if not self._chosen:
            return Prepared(state={**speech.state(), "mean_mel": mean.cpu()})
        clips = torch.cat([sped(speech.clips, speed) for speed in self.config.speeds])
        scores = self._tried(target, clips, runtime)
        kept = top_k_per_class(scores, min(self.config.restarts, len(clips))).indices.unique()
        best = replace(speech, clips=clips[kept])
        return Prepared(state={**best.state(), "mean_mel": mean.cpu(), "scores": scores[kept]})

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Descend from all starts of all cases, render, and ask again."""
        domain, begun = self._domain(target, prepared, runtime), self._starts(target, cases, prepared, runtime)
        restarts = begun.shape[1]
        values = domain.begun(begun.flatten(0, 1)).unflatten(0, (len(cases), restarts))
        draw = uniform_draws(cases, restarts, Views.N_NUMBERS, runtime)
        rows = make_rows(cases, values, draw, {"clips": begun})

        def losses(values: Tensor, constants: Mapping[str, Tensor], numbers: Tensor) -> Tensor:
            costs = self._costs(domain.logits(values, constants, numbers), constants["labels"])
            return costs + domain.penalty(values, constants)

        search = RowSearch(
            objective=losses, optimizer=self._optimizer(), steps=self._steps, constraint=domain.constrained
        )
        found = search.run(rows, target.ledger, runtime)
        believed = self._believed(domain, found.values, rows, target, runtime)
        samples = tiled(lambda part, clips: requantised(domain.waveforms(part, {"clips": clips})), runtime.tile,
                        found.values, rows.constants["clips"])  # fmt: skip
        scores, scored = confidences(target, samples, rows.constants["labels"], rows.owners, runtime)
        for item in reconstructions(cases, found, samples, scores, latents=believed, scored=scored):
            yield _told(item)

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the steps of all restarts, two answers to each result, and the clips that are tried."""
        spent = self.config.restarts * self._steps
        tried = len(self.config.speeds) * min(self.config.candidates, n_public) if self._chosen else 0
        return Forecast(
            preparation=Spending(queries=tried),
            per_case=Spending(queries=spent + 2 * self.config.restarts, gradients=spent),
        )

    # preparation ----------------------------------------------------------------------------------

    def _tried(self, target: Target, clips: Tensor, runtime: Runtime) -> Tensor:
        """Return the target's probabilities of all classes for clips on the CPU, (N, classes)."""
        with torch.no_grad():
            answers = [target.module(part.to(runtime.device)).float().cpu() for part in clips.split(runtime.tile)]
        return torch.cat(answers).softmax(dim=1)

    # parts ----------------------------------------------------------------------------------------

    @property
    def _steps(self) -> int:
        steps = self.config.steps
        return STEPS[self.config.domain] if steps is None else steps

    @property
    def _chosen(self) -> bool:
        """Whether the target chooses the clips that samples begin with."""
        return self.start == "public-clip" and self.config.choose == "best"

    def _costs(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.config.objective == "cross-entropy":
            return cross_entropy(logits, labels)
        return 1 - logits.float().softmax(dim=1).gather(1, labels[:, None])[:, 0]

    def _optimizer(self) -> RowOptimizer:
        config = self.config
        adam = RowAdam(learning_rate=config.learning_rate or RATES[config.domain])
        hertz = config.low_pass_hz
        if hertz is None or config.domain != "waveform":
            return adam
        return Processed(
            optimizer=adam, process=lambda waveforms: low_passed(waveforms, hertz), every=config.process_every
        )

    def _spectrograms(self, target: Target, runtime: Runtime) -> Any:
        """Return what makes spectrograms of canonical clips: the network's own front in the domain mel."""
        if self.config.domain != "mel":
            return LogMel(RATE).to(runtime.device)
        front, adapter = front_of(target.module.inner), AudioAdapter(target.input_spec)
        return lambda clips: front(adapter(clips))

    def _domain(self, target: Target, prepared: Prepared | None, runtime: Runtime) -> Searched:
        config, mean = self.config, _state(prepared)["mean_mel"].to(runtime.device)
        weights = Weights(
            smoothness=config.smoothness, energy=config.energy, level=config.level, mean_mel=config.mean_mel,
            size=config.size,
        )  # fmt: skip
        if config.domain == "mel":
            front = front_of(target.module.inner)
            return MelDomain(
                network=target.module, front=front, spec=target.input_spec, weights=weights, mean_mel=mean,
                iterations=config.iterations,
            )  # fmt: skip
        bank = runtime.rng("noise").normal((canonical_length(target.input_spec),))
        views = Views(bank=bank, noise=config.noise, gain=config.gain, shift=config.shift, colour=config.colour)
        if config.domain == "equaliser":
            return EqualiserDomain(network=target.module, views=views, weights=weights)
        mel = LogMel(RATE).to(runtime.device)
        return WaveformDomain(network=target.module, views=views, weights=weights, mel=mel, mean_mel=mean)

    def _starts(self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime) -> Tensor:
        """Return the waveforms that samples begin with, (cases, restarts, length)."""
        state, length = _state(prepared), canonical_length(target.input_spec)
        speech = PublicSpeech.of_state(state, runtime)
        if not self._chosen:
            return starts(self.start, cases, self.config.restarts, length, speech, runtime)
        return torch.stack([speech.clips[self._best(state, case).to(runtime.device)] for case in cases])

    def _best(self, state: Mapping[str, Any], case: Case) -> Tensor:
        """Return the rows of the public clips that the target takes most for a case's class, (restarts,)."""
        scores: Tensor = state["scores"][:, case.label]
        best = stable_top_k(scores, min(self.config.restarts, len(scores))).indices
        return best.repeat(-(-self.config.restarts // len(best)))[: self.config.restarts]

    def _believed(self, domain: Searched, values: Tensor, rows: Rows, target: Target, runtime: Runtime) -> Tensor:
        """Return the target's confidence in the domain that was searched, (N,), unchanged by chance."""
        middle = torch.full((1, Views.N_NUMBERS), 0.5, device=values.device)

        def score(part: Tensor, clips: Tensor, labels: Tensor) -> Tensor:
            logits = _plain(domain).logits(part, {"clips": clips}, middle)
            return logits.float().softmax(dim=1).gather(1, labels[:, None])[:, 0]

        constants = rows.constants
        found, _ = score_rows(score, runtime.tile, values, constants["clips"], constants["labels"],
                              ledger=target.ledger, owners=rows.owners)  # fmt: skip
        return found


def _plain(domain: Searched) -> Searched:
    """Return a domain whose samples are not changed at random."""
    if isinstance(domain, MelDomain):
        return domain
    return replace(domain, views=Views(bank=domain.views.bank))


def _told(item: Reconstruction) -> Reconstruction:
    """Move what the target believed before and after rendering into the history."""
    believed = [] if item.latents is None else item.latents.tolist()
    history = {
        **item.history, "confidence-optimised": believed, "confidence-rendered": item.scores.tolist(),
    }  # fmt: skip
    return replace(item, latents=None, history=history)


def _state(prepared: Prepared | None) -> Mapping[str, Any]:
    if prepared is None:
        raise DataError("audio-mi was not prepared")
    return prepared.state
