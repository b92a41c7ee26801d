"""Generative model inversion of classifiers of speech, in the latents of a prior of log-mel spectrograms.

Zhang et al., "The Secret Revealer" (GMI), CVPR 2020 (arXiv:1911.07135), on log-mel spectrograms of speech. As
auto-encoder: Kingma & Welling, "Auto-Encoding Variational Bayes", ICLR 2014 (arXiv:1312.6114).

Threat model: white box (logits and gradients of the target), unlabelled public clips of other speakers.

1. A prior of the log-mel spectrograms of public clips is trained without the target: a Wasserstein GAN (as in GMI), or
   a convolutional variational auto-encoder.
2. For each class, latents are searched that minimise -D(G(z)) + w_id L(T(r(G(z))), class) + w_z |z|^2 / d. The target
   hears waveforms: r takes the phases of a few iterations of Griffin and Lim's algorithm, without gradient.
3. What was found is rendered with more iterations, or by a vocoder, and the target is asked about that: the surest come
   first.

Fidelity notes (paper / here)
- GMI is of images; its prior, loss and search are here on spectrograms. Networks convolve over time alone
  (`mi_audio.mel_networks`); training is `micore.kit.wgan`, or `mi_audio.mel_vae`.
- GMI moves latents by momentum within a box. Here Adam, and a pull to the middle of the prior (``latent_weight``)
  instead of the box.
- The colour of each step's spectrogram is changed at random (``colour``): a target that hears the colour of a recording
  is else satisfied by it alone. Ours.
- A vocoder is not there; Griffin and Lim's phases are the lower bound. ``vocoder`` takes another one.
- All presets are ours; no paper gives values for speech. ``paper`` has GMI's sizes of training and search.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from mi_attack_audio_gan_mi.priors import GAN, VAE, SpeechPrior, prior_state, restore_prior
from mi_audio.mel_vae import VaeSettings
from mi_audio.rendering import Renderer, find_vocoder
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import DataError
from micore.kit.case_rows import confidences, make_rows, normal_draws, reconstructions, standard_normal, tiled
from micore.kit.latent_objective import LatentObjective, identity_of
from micore.kit.losses import LOSSES
from micore.kit.row_optimizers import RowAdam
from micore.kit.search import RowSearch
from micore.kit.wgan import WganSettings
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending

COLOURS = 8
"""Bands in which the colour of a recording is changed (as in `mi_audio.augment`)."""
DECIBELS = 10 / 2.302585
"""In one unit of the natural logarithm of power."""


class SpeechPriorConfig(Config):
    """Settings of the attack."""

    prior: Literal["gan", "vae"] = Field(GAN, description="generator of public speech: Wasserstein GAN, or VAE")
    public: int | None = Field(4000, ge=1, description="public clips that the prior learns, at most, evenly spread")
    mels: int = Field(64, ge=8, le=128, description="mel bands of a spectrogram, at 16 kHz (ours)")
    latent_dim: int = Field(100, ge=1, description="dimensions of the latent space (GMI: 100)")
    width: int = Field(64, ge=4, multiple_of=4, description="channels of the finest stage (GMI: 64)")
    iterations: int = Field(26_250, ge=1, description="training steps of the prior (GMI: 280 epochs of 30,000)")
    batch_size: int = Field(64, ge=2, description="spectrograms of one training step (GMI: 64)")
    critic_steps: int = Field(5, ge=1, description="of the GAN, per generator step (GMI: 5)")
    prior_learning_rate: float = Field(2e-4, gt=0, description="of the prior's Adams (GMI: 2e-4)")
    kl_weight: float = Field(2e-3, ge=0, description="of the VAE's divergence (ours: all 32 latents stay in use)")
    loss: Literal["cross_entropy", "max_margin", "poincare"] = Field(
        "cross_entropy", description="of the target's answer (GMI: cross-entropy)"
    )
    steps: int = Field(1500, ge=0, description="Adam steps of the search (GMI: 1500 of its own)")
    learning_rate: float = Field(0.05, gt=0, description="of the search's Adam (ours)")
    identity_weight: float = Field(100.0, ge=0, description="of the target's loss (GMI lambda: 100)")
    latent_weight: float = Field(1.0, ge=0, description="of the mean square of the latents (ours)")
    colour: float = Field(3.0, ge=0, description="random colour of each step in dB, in eight bands; 0: none (ours)")
    restarts: int = Field(16, ge=1, description="searches per class")
    keep: int | None = Field(8, ge=1, description="reconstructions per class, the surest; none: all")
    rendering_iterations: int = Field(32, ge=1, description="of Griffin and Lim's phases of what is given back")
    search_iterations: int = Field(3, ge=1, description="of the same at each step of the search")
    vocoder: str | None = Field(
        None, description="package.module:function, log-mels (B, mels, frames) and length to waveforms; none: "
        "Griffin-Lim"
    )  # fmt: skip

    def prior_settings(self) -> WganSettings | VaeSettings:
        """Return how the prior is trained; attacks with the same settings share it."""
        shared: dict[str, Any] = {
            "latent_dim": self.latent_dim, "width": self.width, "iterations": self.iterations,
            "batch_size": self.batch_size, "learning_rate": self.prior_learning_rate,
        }  # fmt: skip
        if self.prior == VAE:
            return VaeSettings(kl_weight=self.kl_weight, **shared)
        return WganSettings(critic_steps=self.critic_steps, **shared)


PRIOR_FIELDS = (
    "prior", "public", "mels", "latent_dim", "width", "iterations", "batch_size", "critic_steps",
    "prior_learning_rate", "kl_weight",
)  # fmt: skip


class SpeechPriorInversion:
    """The attack (see the module's documentation)."""

    Config: ClassVar[type[Config]] = SpeechPriorConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {
            "prior": VAE, "latent_dim": 32, "iterations": 700, "batch_size": 48, "prior_learning_rate": 2e-3,
            "critic_steps": 1, "steps": 150,
        },
        "smoke": {
            "prior": VAE, "mels": 40, "latent_dim": 16, "width": 32, "iterations": 300, "batch_size": 32,
            "prior_learning_rate": 5e-3, "critic_steps": 1, "kl_weight": 0.01, "steps": 50, "learning_rate": 0.1,
            "colour": 1.0, "restarts": 4, "keep": 3, "rendering_iterations": 8, "search_iterations": 2,
        },
        "paper": {},
    }  # fmt: skip
    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset(PRIOR_FIELDS)

    def __init__(self, config: SpeechPriorConfig) -> None:
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Train the prior of public clips; attacks with the same settings share it.

        Raises: DataError without public clips, or for clips that are too short.
        """
        if public is None or len(public) == 0:
            raise DataError("audio-gan-mi needs public clips")
        n = min(len(public), self.config.public or len(public))
        waveforms = public.take(torch.arange(n) * len(public) // n).to(runtime.device)
        config = self.config
        return Prepared(state=prior_state(config.prior, waveforms, config.prior_settings(), config.mels, runtime))

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Search the latents of all restarts of all cases, and render what was found."""
        config, prior = self.config, self.prior(prepared, runtime)
        starts = standard_normal(cases, (config.restarts, prior.generator.latent_dim), runtime)
        draw = normal_draws(cases, config.restarts, COLOURS, runtime, "colours") if config.colour else None
        rows = make_rows(cases, starts, draw)
        search = RowSearch(
            objective=_Objective(prior, target, config), optimizer=RowAdam(learning_rate=config.learning_rate),
            steps=config.steps,
        )  # fmt: skip
        found = search.run(rows, target.ledger, runtime)
        labels = rows.constants["labels"]
        rough = tiled(lambda z: prior.renderer.searched(prior.spectrograms(z)), runtime.tile, found.values)
        before, _ = confidences(target, rough, labels, rows.owners, runtime)
        waveforms = tiled(prior.rendered, runtime.tile, found.values)
        scores, scored = confidences(target, waveforms, labels, rows.owners, runtime)
        given = reconstructions(cases, found, waveforms, scores, latents=found.values, keep=config.keep, scored=scored)
        places = {case.id: place for place, case in enumerate(cases)}
        for item in given:
            part = slice(places[item.case.id] * config.restarts, (places[item.case.id] + 1) * config.restarts)
            told = {"searched confidence": [float(before[part].mean())],
                    "rendered confidence": [float(scores[part].mean())]}  # fmt: skip
            yield replace(item, history={**item.history, **told})

    def forecast(self, n_classes: int, n_public: int) -> Forecast:
        """Count the target's work: each step of the search, and a look before and after rendering."""
        steps = self.config.restarts * self.config.steps
        per_case = Spending(queries=steps + 2 * self.config.restarts, gradients=steps)
        return Forecast(preparation=Spending(), per_case=per_case)

    def prior(self, prepared: Prepared | None, runtime: Runtime) -> SpeechPrior:
        """Return the prior; it has never seen the target.

        Raises: DataError when nothing was prepared; ConfigError for a vocoder that is not there.
        """
        if prepared is None:
            raise DataError("audio-gan-mi was not prepared")
        return restore_prior(prepared.state, runtime, lambda length, mels: self._renderer(length, mels, runtime))

    def _renderer(self, length: int, mels: int, runtime: Runtime) -> Renderer:
        config = self.config
        return Renderer(
            length, mels, runtime, iterations=config.rendering_iterations, quick=config.search_iterations,
            vocoder=find_vocoder(config.vocoder),
        )  # fmt: skip


@dataclass(frozen=True)
class _Objective:
    """GMI's loss of latents (B, d) through waveforms of a colour drawn anew, with a pull to the prior's middle."""

    prior: SpeechPrior
    target: Target
    config: SpeechPriorConfig

    def __call__(self, latents: Tensor, constants: Mapping[str, Tensor], numbers: Tensor) -> Tensor:
        """Return losses (B,)."""
        module = self.target.module

        def heard(scaled: Tensor) -> Tensor:
            spectrograms = self.prior.scale.unscaled(scaled) + self._colours(numbers, scaled.shape[1])
            logits: Tensor = module(self.prior.renderer.searched(spectrograms))
            return logits

        objective = LatentObjective(
            generator=self.prior.generator, realism=self.prior.realism,
            identity=identity_of(heard, LOSSES[self.config.loss]), identity_weight=self.config.identity_weight,
        )  # fmt: skip
        pull = self.config.latent_weight * latents.square().mean(dim=1)
        return objective(latents, constants, numbers) + pull

    def _colours(self, numbers: Tensor, mels: int) -> Tensor | float:
        """Return smooth curves (B, mels, 1) that are added to log-mel values."""
        if not self.config.colour:
            return 0.0
        curves = functional.interpolate(numbers[:, None], size=mels, mode="linear", align_corners=True)
        return self.config.colour / DECIBELS * curves.transpose(1, 2)
