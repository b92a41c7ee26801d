"""From a voiceprint back to speech, by an inverter that was learned on public clips.

Inversion of speaker templates: the adversary holds the voiceprint of a private clip (a stolen template) and wants
speech that verifies as the speaker. The learned inverter follows Zhang et al., Journal of Information Security Research
10(2), 2024 (a layer-wise inverter with cycle consistency); the idea of ranking candidates by embedding them again is
that of Morris et al., EMNLP 2023 (arXiv:2310.06816).

Threat model: the target's answers (voiceprints) to public clips of other speakers, and to what the attack made; the
voiceprint of each private clip.

1. The target is asked about public clips.
2. An inverter learns their log-mel spectrograms, given their voiceprints: a variational auto-encoder, whose latents
   hold what a voiceprint does not, such as what is said.
3. For each private voiceprint several spectrograms are drawn and rendered; the target is asked about them, and those
   with the nearest voiceprints are given, nearest first.

Fidelity notes (paper / here)
- The published inverter undoes the encoder layer by layer, which needs the encoder. Here one network learns the whole
  way from answers alone; a cycle term (1 - cosine of what is made, through the encoder) can be added where the run
  grants white-box access (``cycle_weight``).
- Published inverters give one spectrogram, the mean of all that fit. Here latents are drawn, so that it is not blurred,
  and there are candidates to choose among.
- No vocoder: Griffin and Lim's phases, a lower bound. ``vocoder`` takes another one.
- All values are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mi_attack_embedding_to_voice.inverter import Inverter, learned
from mi_attack_embedding_to_voice.public_voices import PublicVoices, asked, cosines, held, nearest_public
from mi_audio.mel_vae import VaeSettings
from mi_audio.rendering import Renderer, find_vocoder
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import BudgetExceeded, DataError
from micore.kit.case_rows import score_rows, standard_normal, tiled
from micore.kit.selection import stable_top_k
from micore.kit.stages import Stages
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending

NAME = "embedding-to-voice"


class VoiceprintInversionConfig(Config):
    """Settings of the attack; all values are ours."""

    public: int | None = Field(2000, ge=2, description="public clips asked about, at most, evenly spread; none: all")
    mels: int = Field(64, ge=8, le=128, description="mel bands of a spectrogram, at 16 kHz")
    latent_dim: int = Field(32, ge=1, description="dimensions of what a voiceprint does not hold")
    width: int = Field(64, ge=4, multiple_of=4, description="channels of the inverter's finest stage")
    iterations: int = Field(1000, ge=1, description="training steps of the inverter")
    batch_size: int = Field(48, ge=2, description="spectrograms of one training step")
    inverter_learning_rate: float = Field(2e-3, gt=0, description="of the inverter's Adam")
    kl_weight: float = Field(5e-3, ge=0, description="of the latents' divergence: more leaves more to voiceprints")
    cycle_weight: float = Field(
        0.0, ge=0, description="of 1 - cosine of drawn spectrograms through the target; above 0 needs white-box access"
    )
    candidates: int = Field(32, ge=1, description="spectrograms drawn for each voiceprint, each one query")
    keep: int = Field(4, ge=1, description="given back of them, the nearest")
    rendering_iterations: int = Field(32, ge=1, description="of Griffin and Lim's phases")
    vocoder: str | None = Field(
        None, description="package.module:function, log-mels (B, mels, frames) and length to waveforms; none: "
        "Griffin-Lim"
    )  # fmt: skip

    def inverter_settings(self) -> VaeSettings:
        """Return how the inverter is trained."""
        return VaeSettings(
            latent_dim=self.latent_dim, width=self.width, iterations=self.iterations, batch_size=self.batch_size,
            learning_rate=self.inverter_learning_rate, kl_weight=self.kl_weight, cycle_weight=self.cycle_weight,
        )  # fmt: skip


class VoiceprintInversion:
    """The attack (see the module's documentation)."""

    Config: ClassVar[type[Config]] = VoiceprintInversionConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {},
        "smoke": {
            "mels": 40, "latent_dim": 8, "width": 16, "iterations": 300, "batch_size": 32,
            "inverter_learning_rate": 5e-3, "candidates": 8, "keep": 3, "rendering_iterations": 8,
        },
        "paper": {"width": 128, "iterations": 10_000, "cycle_weight": 0.1, "candidates": 64},
    }  # fmt: skip
    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset({
        "public", "mels", "latent_dim", "width", "iterations", "batch_size", "inverter_learning_rate", "kl_weight",
        "cycle_weight",
    })  # fmt: skip

    def __init__(self, config: VoiceprintInversionConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Ask the target about public clips, and train the inverter on them.

        Raises: DataError without public clips; AccessDenied for a cycle without white-box access; BudgetExceeded.
        """
        config, stages = self.config, Stages(runtime)
        encoder = target.module if config.cycle_weight else None  # refused before anything was asked
        answers = stages.run("answers", lambda stage: asked(target, public, config.public, NAME, stage))
        voices = PublicVoices.restored(answers, runtime)
        renderer = self._renderer(voices, runtime)
        inverter = stages.run(
            "inverter", lambda stage: learned(voices, config.inverter_settings(), renderer, stage, encoder)
        )
        return Prepared(state={"answers": dict(answers), "inverter": dict(inverter)})

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Draw and render candidates for all cases, ask the target about them, give the nearest.

        Raises, after all was given back: BudgetExceeded when the budget did not last for all candidates.
        """
        voices = _voices(prepared, runtime)
        wanted = held(cases, voices.prints.shape[1], runtime)
        waveforms = self._drawn(cases, voices.standardised(wanted), prepared, runtime, self.config.candidates)
        n = self.config.candidates
        scores, scored = score_rows(
            lambda heard, sought: cosines(target.scores(heard), sought), runtime.tile, waveforms,
            wanted.repeat_interleave(n, dim=0), ledger=target.ledger,
            owners=[case.id for case in cases for _ in range(n)],
        )  # fmt: skip
        for case, clips, found in zip(cases, waveforms.split(n), scores.split(n), strict=True):
            best = stable_top_k(found, min(self.config.keep, n))
            told = {"cosine of all candidates": [float(found.mean())]}
            yield Reconstruction(
                case=case, samples=clips[best.indices], scores=best.scores, history=told, complete=scored
            )
        if not scored:
            raise BudgetExceeded("the budget ended among the candidates", hint="raise --budget-queries")

    def control(self, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime) -> Iterator[Reconstruction]:
        """Draw as many clips as are given back, given the mean public voiceprint: the inverter as a mere voice."""
        n, voices = min(self.config.keep, self.config.candidates), _voices(prepared, runtime)
        nobody = torch.zeros(len(cases), voices.prints.shape[1], device=runtime.device)
        clips = self._drawn(cases, nobody, prepared, runtime, n)
        for case, part in zip(cases, clips.split(n), strict=True):
            yield Reconstruction(case=case, samples=part, scores=torch.zeros(n))

    def baselines(
        self, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Mapping[str, Sequence[Reconstruction]]:
        """Return the public clip with the nearest voiceprint, as ``nearest-public``."""
        return {"nearest-public": nearest_public(cases, _voices(prepared, runtime), runtime)}

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the public clips, what a cycle asks, and the candidates."""
        config = self.config
        cycles = config.iterations * config.batch_size if config.cycle_weight else 0
        public = min(n_public, config.public or n_public)
        return Forecast(
            preparation=Spending(queries=public + cycles, gradients=cycles),
            per_case=Spending(queries=config.candidates),
        )

    def _drawn(
        self, cases: Sequence[Case], conditions: Tensor, prepared: Prepared | None, runtime: Runtime, n: int
    ) -> Tensor:
        """Return n waveforms for each case, (C n, length), given standardised voiceprints (C, d)."""
        inverter = self._inverter(prepared, runtime)
        latents = standard_normal(cases, (n, inverter.latent_dim), runtime).flatten(0, 1)
        return tiled(inverter.rendered, runtime.tile, latents, conditions.repeat_interleave(n, dim=0))

    def _inverter(self, prepared: Prepared | None, runtime: Runtime) -> Inverter:
        voices = _voices(prepared, runtime)
        return Inverter.restored(_state(prepared)["inverter"], self._renderer(voices, runtime), runtime)

    def _renderer(self, voices: PublicVoices, runtime: Runtime) -> Renderer:
        config = self.config
        return Renderer(
            voices.clips.shape[1], config.mels, runtime, iterations=config.rendering_iterations,
            vocoder=find_vocoder(config.vocoder),
        )  # fmt: skip


def _state(prepared: Prepared | None) -> Mapping[str, Any]:
    if prepared is None:
        raise DataError(f"{NAME} was not prepared")
    return prepared.state


def _voices(prepared: Prepared | None, runtime: Runtime) -> PublicVoices:
    return PublicVoices.restored(_state(prepared)["answers"], runtime)
