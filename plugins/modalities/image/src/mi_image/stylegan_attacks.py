"""What all attacks on a StyleGAN share: where the prior comes from, its candidate bank, and how codes are rendered.

The prior is a file of the user's (`mi prior`) or is trained on the public images; the second is shared between
attacks. Both are made without the target. The bank is then scored by the target and belongs to one preparation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from mi_image.bank import BankSettings, CandidateBank, Scores, bare_scores, fill_bank
from mi_image.prior_choice import PriorFileConfig, stylegan_state
from mi_image.stylegan2 import to_canonical
from mi_image.stylegan2_training import StyleGanSettings
from mi_image.stylegan_prior import StyleGanPrior, restore_stylegan
from micore.contracts import Prepared, Split
from micore.errors import DataError
from micore.kit.stages import Stages
from micore.runtime import Random, Runtime
from micore.target import Target

__all__ = [
    "PREPARE_FIELDS", "SMALL", "TINY", "StyleGround", "StylePriorConfig", "StyleRenderer", "bank_stage",
    "prepare_ground", "prior_stage", "restore_ground", "shown_channels", "unscored_ground", "with_renderer",
]  # fmt: skip

TRAINING: Mapping[str, str] = {
    "latent_dim": "latent_dim", "w_dim": "w_dim", "mapping_layers": "mapping_layers", "channel_base": "channel_base",
    "channel_max": "channel_max", "gan_iterations": "iterations", "gan_batch_size": "batch_size",
    "gan_learning_rate": "learning_rate", "gan_r1_weight": "r1_weight",
}  # fmt: skip
"""Fields of a config, and what they are called in `StyleGanSettings`."""

PREPARE_FIELDS = frozenset({"prior_digest", *TRAINING, "centre", "bank", "psi", "cutoff", "mirror"})
"""The fields that a preparation depends on; of a prior's file its content, wherever it lies."""

SMALL: Mapping[str, Any] = {
    **{field: getattr(StyleGanSettings, name) for field, name in TRAINING.items()},
    "bank": 2000, "psi": 1.0, "cutoff": None, "mirror": False,
}  # fmt: skip
"""Values of ``default`` presets: a StyleGAN for small pictures that a CPU trains in minutes, one for all attacks."""

TINY: Mapping[str, Any] = {
    **SMALL, "latent_dim": 16, "w_dim": 16, "channel_base": 256, "channel_max": 16, "gan_iterations": 40,
    "gan_batch_size": 8, "bank": 64,
}  # fmt: skip
"""Values of ``smoke`` presets: only to try the plumbing."""


class StylePriorConfig(PriorFileConfig):
    """Settings of the prior and its bank; the defaults are those of PPA (CelebA) and of StyleGAN2-ADA's release."""

    # the StyleGAN that is trained when there is no file
    latent_dim: int = Field(512, ge=1, description="dimensions of z (release: 512)")
    w_dim: int = Field(512, ge=1, description="dimensions of w (release: 512)")
    mapping_layers: int = Field(8, ge=1, description="layers from z to w (release: 8)")
    channel_base: int | None = Field(
        32768, ge=1, description="channels at r px are this / r (release: 32768); none: 16 at the finest"
    )
    channel_max: int = Field(512, ge=1, description="but at most so many (release: 512)")
    gan_iterations: int = Field(780_000, ge=1, description="generator steps (release: 25 million images)")
    gan_batch_size: int = Field(32, ge=2, description="images of one GAN step (release: 32)")
    gan_learning_rate: float = Field(2.5e-3, gt=0, description="of both networks' Adam (release: 0.0025)")
    gan_r1_weight: float | None = Field(
        None, ge=0, description="of the penalty on the discriminator's gradient; none: the release's rule"
    )
    centre: float = Field(
        1.0, gt=0, le=1, description="side of the central part of the prior's pictures that is used (FFHQ: 800/1024)"
    )
    # the candidate bank
    bank: int = Field(5000, ge=1, description="candidates that the target scores once, for all classes")
    psi: float = Field(0.5, ge=0, description="truncation of the candidates; 1: none")
    cutoff: int | None = Field(None, ge=1, description="layers whose codes are truncated; none: all of them")
    mirror: bool = Field(
        False, description="score a candidate by its mirror image, too (twice the queries; not for digits or text)"
    )

    def gan_settings(self) -> StyleGanSettings:
        """Return how a StyleGAN is trained."""
        return StyleGanSettings(**{name: getattr(self, field) for field, name in TRAINING.items()})

    def bank_settings(self) -> BankSettings:
        """Return how the bank is filled."""
        return BankSettings(size=self.bank, psi=self.psi, cutoff=self.cutoff, mirror=self.mirror)

    @property
    def bank_queries(self) -> int:
        """What the bank costs: all that a preparation asks the target."""
        return self.bank_settings().size * self.bank_settings().views


@dataclass(frozen=True, kw_only=True)
class StyleGround:
    """A prior with its bank; also the `Prior` of a run's control, drawn as the candidates are.

    centre: side of the part in the middle that is kept of each picture.
    """

    generator: StyleGanPrior
    bank: CandidateBank
    settings: BankSettings
    centre: float

    def render(self, ws: Tensor) -> Tensor:
        """Return images (B, C, S, S) in [0, 1] of codes (B, w_dim), used in all layers, or (B, num_ws, w_dim)."""
        return self.cut(self.generator.render(ws))

    def cut(self, images: Tensor) -> Tensor:
        """Return the central part of pictures."""
        side = images.shape[-1]
        kept = max(1, round(self.centre * side))
        first = (side - kept) // 2
        return images[..., first : first + kept, first : first + kept]

    def sample(self, n: int, rng: Random) -> Tensor:
        """Draw n images of the prior, truncated as the candidates are."""
        return self.cut(self.generator.sample(n, rng, psi=self.settings.psi, cutoff=self.settings.cutoff))


class StyleRenderer(nn.Module):
    """The part of the prior that makes pictures of codes, as a network that may be trained further (PPDG-MI).

    Called with codes (B, w_dim), or (B, num_ws, w_dim), and labels, which it ignores; gives images in [0, 1].
    """

    def __init__(self, ground: StyleGround) -> None:
        super().__init__()
        self.synthesis = ground.generator.generator.synthesis
        self._num_ws, self._cut = ground.generator.num_ws, ground.cut

    def forward(self, styles: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return images (B, C, S, S)."""
        ws = styles[:, None].expand(-1, self._num_ws, -1) if styles.ndim == 2 else styles
        return self._cut(to_canonical(self.synthesis(ws)))


def with_renderer(prepared: Prepared, weights: Mapping[str, Tensor]) -> Prepared:
    """Return a preparation whose prior has other weights of its `StyleRenderer`; the bank stays as it was scored."""
    prior = prepared.state["prior"]
    return Prepared(state={**prepared.state, "prior": {**prior, "weights": {**prior["weights"], **weights}}})


def prepare_ground(
    config: StylePriorConfig, target: Target, public: Split | None, runtime: Runtime, attack: str,
    answers: Scores | None = None,
) -> Prepared:  # fmt: skip
    """Load or train the prior, then let the target score its candidates.

    answers: what asks the target for scores; None: its logits, with a white box.

    Raises: DataError without a file and public images; what is wrong with the file or the images.
    """
    stages = Stages(runtime)
    prior = prior_stage(config, public, stages, attack)
    bank = bank_stage(unscored_ground(config, prior, runtime), answers or bare_scores(target), stages)
    return Prepared(state={"prior": prior, "bank": bank})


def prior_stage(config: StylePriorConfig, public: Split | None, stages: Stages, attack: str) -> Mapping[str, Any]:
    """Load or train the prior; the target is not asked.

    Raises: DataError without a file and public images; what is wrong with the file or the images.
    """
    images = None if public is None or not len(public) else public.take(torch.arange(len(public)))
    if images is None and config.prior is None:
        raise DataError(f"{attack} needs public images or a prior", hint="-p prior=FILE, see `mi prior`")
    return stages.run("prior", lambda own: stylegan_state(config.prior, images, config.gan_settings(), own))


def unscored_ground(config: StylePriorConfig, prior: Mapping[str, Any], runtime: Runtime) -> StyleGround:
    """Return the prior, of which the target has seen nothing yet."""
    return _ground(config, prior, CandidateBank(styles=torch.empty(0), scores=torch.empty(0)), runtime)


def bank_stage(ground: StyleGround, answers: Scores, stages: Stages) -> Mapping[str, Any]:
    """Let the target score the prior's candidates."""
    return stages.run(
        "bank", lambda own: fill_bank(ground.generator, answers, ground.settings, own, ground.cut).state()
    )


def restore_ground(config: StylePriorConfig, prepared: Prepared | None, runtime: Runtime, attack: str) -> StyleGround:
    """Return what was prepared, on the run's device.

    Raises: DataError when nothing was.
    """
    if prepared is None:
        raise DataError(f"{attack} was not prepared")
    bank = CandidateBank.restore(prepared.state["bank"], runtime)
    return _ground(config, prepared.state["prior"], bank, runtime)


def shown_channels(images: Tensor, target: Target) -> int:
    """Return the channels in which the target sees images (N, C, S, S): 1 when either they or its input are grey."""
    return min(images.shape[1], target.input_spec.shape[0])


def _ground(config: StylePriorConfig, prior: Mapping[str, Any], bank: CandidateBank, runtime: Runtime) -> StyleGround:
    generator = restore_stylegan(prior, runtime)
    return StyleGround(generator=generator, bank=bank, settings=config.bank_settings(), centre=config.centre)
