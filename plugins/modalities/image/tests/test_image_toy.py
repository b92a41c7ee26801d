"""The planted problem of images: quick to make, the same every time, sound."""

from __future__ import annotations

import pytest

from mi_image import plugin
from mi_image.modality import ImageModality
from mi_image.toy import image_toy
from micore.registry import Registry
from micore.testing.check import check_plugin
from micore.testing.lab import Lab


def test_toy_is_the_same_every_time():
    one, two = image_toy(), image_toy()
    assert one.dataset.fingerprint == two.dataset.fingerprint
    assert one.dataset.input.shape == (1, 16, 16)
    assert one.problem(one.dataset.split("public").take([0, 1])) is None


@pytest.mark.parametrize(("kind", "name"), [("modality", "image"), ("dataset", "digits"), ("model", "small-cnn")])
def test_modality_passes_its_checks(kind, name, monkeypatch):
    monkeypatch.setattr(ImageModality, "toy", lambda self: image_toy(), raising=False)
    registry = Registry.from_plugins({"image": plugin})
    report = check_plugin(kind, name, registry=registry, lab=Lab(registry))
    assert report.passed, "\n" + report.text()
