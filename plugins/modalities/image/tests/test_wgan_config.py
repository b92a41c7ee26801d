"""The GAN's fields of a config mean the settings of its training."""

from mi_image.wgan_config import GAN_FIELDS, SMALL_GAN, SMOKE_GAN, WganConfig
from mi_image.wgan_training import SMALL, SMOKE
from micore.kit.wgan import WganSettings


def test_the_defaults_are_those_of_the_training():
    assert WganConfig().wgan_settings() == WganSettings()


def test_presets_are_the_small_settings():
    assert WganConfig(**SMALL_GAN).wgan_settings() == WganSettings(**SMALL)
    assert WganConfig(**SMOKE_GAN).wgan_settings() == WganSettings(**SMOKE)
    assert set(SMALL_GAN) == set(SMOKE_GAN) == GAN_FIELDS
