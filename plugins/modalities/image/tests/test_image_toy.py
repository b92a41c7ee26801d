"""The planted problem of images: quick to make, the same every time, sound."""

from __future__ import annotations

import pytest
import torch

from mi_image import plugin
from mi_image.corruptions import CORRUPTIONS
from mi_image.modality import ImageModality
from mi_image.toy import image_toy, masked_toy
from micore.registry import Registry
from micore.testing.check import check_plugin
from micore.testing.lab import Lab


@pytest.mark.parametrize("toy", [image_toy, masked_toy])
def test_toy_is_the_same_every_time(toy):
    one, two = toy(), toy()
    assert one.dataset.fingerprint == two.dataset.fingerprint
    assert one.dataset.input.shape == (1, 16, 16)
    assert one.problem(one.dataset.split("public").take([0, 1])) is None


@pytest.mark.parametrize(("kind", "name"), [("modality", "image"), ("dataset", "digits"), ("model", "small-cnn")])
def test_modality_passes_its_checks(kind, name):
    registry = Registry.from_plugins({"image": plugin})
    report = check_plugin(kind, name, registry=registry, lab=Lab(registry))
    assert report.passed, "\n" + report.text()


def test_the_hidden_part_follows_from_the_visible_one_in_private_images_only():
    """The masked toy: no floor holds anything of the answer, the truth does, and the target uses both parts."""
    toy, modality = masked_toy(), ImageModality()
    registry = Registry.from_plugins({"image": plugin})
    network = Lab(registry).module(toy).eval()
    cases = modality.cases("instance", toy.dataset, (), None)
    for name, floor in modality.floors(cases, toy.dataset).items():
        shown = torch.stack([toy.judge(item.case, item.samples).mean() for item in floor]).mean()
        assert float(shown) < 0.1, name
    truth = modality.truths(cases, toy.dataset)
    assert float(torch.stack([toy.judge(case, truth[case.id].sample).mean() for case in cases]).mean()) > 0.4
    held_out = toy.dataset.split("holdout")
    images = held_out.take(range(len(held_out)))
    centre = CORRUPTIONS["centre"]
    hidden, masks = centre.apply(images, torch.zeros(len(images), 0))
    for part in (hidden * (1 - masks), images * masks):
        logits = network(modality.adapter(toy.dataset.input)(part))
        assert float((logits.argmax(dim=1) == held_out.labels).double().mean()) > 0.7
