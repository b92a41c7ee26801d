"""The GAN of public images as fields of an attack's config: what GMI and all that search its GAN share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from mi_image.wgan_training import SMALL, SMOKE
from micore.contracts import Config
from micore.kit.wgan import WganSettings

__all__ = ["GAN_FIELDS", "SMALL_GAN", "SMOKE_GAN", "WganConfig"]


class WganConfig(Config):
    """Settings of the GAN of public images; the defaults are the authors' code of GMI at 64 px."""

    latent_dim: int = Field(100, ge=1, description="dimensions of the GAN's latent space (GMI: 100)")
    width: int = Field(64, ge=1, description="channels of the GAN's finest stage (GMI: 64)")
    iterations: int = Field(26_250, ge=1, description="generator steps (GMI: 280 epochs of 30,000 images)")
    gan_batch_size: int = Field(64, ge=2, description="images of one GAN step (GMI: 64)")
    critic_steps: int = Field(5, ge=1, description="critic steps per generator step (GMI: 5)")
    gan_learning_rate: float = Field(2e-4, gt=0, description="of the GAN's Adams (GMI: 2e-4)")

    def wgan_settings(self) -> WganSettings:
        """Return how the GAN is trained; attacks with the same settings share it."""
        return WganSettings(
            latent_dim=self.latent_dim, width=self.width, iterations=self.iterations, batch_size=self.gan_batch_size,
            critic_steps=self.critic_steps, learning_rate=self.gan_learning_rate,
        )  # fmt: skip


GAN_FIELDS = frozenset(WganConfig.model_fields)
"""What a preparation that is this GAN alone depends on."""


def _named(settings: Mapping[str, Any]) -> dict[str, Any]:
    renamed = {"batch_size": "gan_batch_size", "learning_rate": "gan_learning_rate"}
    return {renamed.get(name, name): value for name, value in settings.items()}


SMALL_GAN: Mapping[str, Any] = _named(SMALL)
"""Values of ``default`` presets: a narrow GAN for small pictures on a CPU."""
SMOKE_GAN: Mapping[str, Any] = _named(SMOKE)
"""Values of ``smoke`` presets."""
