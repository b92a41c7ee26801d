"""Torchvision's classifiers as targets: built for the data, stored, and refused with a reason."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest
import torch
from torch import nn

from mi_model_torchvision.builder import build, replace_head
from micore.errors import ModelError
from micore.inputs import InputSpec
from micore.kit.features import features_and_logits

SMALL = InputSpec(shape=(3, 32, 32))


def images(n=2, size=32):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_classifier_gives_logits_and_features(name):
    module = build(5, SMALL, name=name).eval()
    with torch.no_grad():
        features, logits = features_and_logits(module, images())
    assert logits.shape == (2, 5)
    assert features.ndim == 2
    assert len(features) == 2


def test_transformer_is_built_for_the_size_of_the_data():
    module = build(3, SMALL, name="vit_b_32").eval()
    with torch.no_grad():
        assert module(images()).shape == (2, 3)


def test_auxiliary_outputs_are_off():
    module = build(3, InputSpec(shape=(3, 80, 80)), name="inception_v3").train()
    assert module(images(size=80)).shape == (2, 3)


def test_weights_fit_a_model_that_is_built_again():
    first, second = build(3, SMALL).eval(), build(3, SMALL).eval()
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        assert torch.equal(first(images()), second(images()))


def test_building_leaves_the_model_as_it_was_made():
    torch.manual_seed(3)
    module = build(3, SMALL)
    state = torch.random.get_rng_state()
    assert module.training
    assert int(module.bn1.num_batches_tracked) == 0
    torch.manual_seed(3)
    build(3, SMALL)
    assert torch.equal(state, torch.random.get_rng_state())


def test_unknown_name_is_answered_with_close_ones():
    with pytest.raises(ModelError) as caught:
        build(3, SMALL, name="resnet81")
    assert "resnet18" in str(caught.value.hint)


@pytest.mark.parametrize("shape", [(), (3, 32), (3, 32, 0), (3, 32, 32, 2)])
def test_inputs_that_are_no_pictures_are_refused(shape):
    with pytest.raises(ModelError, match="shape"):
        build(3, InputSpec(shape=shape))


def test_no_classes_are_refused():
    with pytest.raises(ModelError, match="0 classes"):
        build(0, SMALL)


def test_grey_pictures_are_refused_with_the_way_out():
    with pytest.raises(ModelError, match="3 channels, not 1") as caught:
        build(3, InputSpec(shape=(1, 32, 32)))
    assert caught.value.hint == "-D channels=3"


@pytest.mark.parametrize(("name", "shape"), [("alexnet", (3, 32, 32)), ("vit_b_32", (3, 64, 32))])
def test_sizes_that_the_architecture_does_not_take_are_refused(name, shape):
    with pytest.raises(ModelError, match="takes no inputs"):
        build(3, InputSpec(shape=shape), name=name)


def test_weights_that_are_not_there_are_an_error_offline(monkeypatch, tmp_path):
    def offline(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(torch.hub, "urlopen", offline)
    monkeypatch.setattr(urllib.request, "urlopen", offline)
    with pytest.raises(ModelError, match="no network"):
        build(3, SMALL, weights="DEFAULT")


def test_unknown_weights_are_answered_with_the_known_ones():
    with pytest.raises(ModelError) as caught:
        build(3, SMALL, weights="BEST")
    assert "IMAGENET1K_V1" in str(caught.value.hint)


def test_weights_in_the_cache_keep_the_body_and_change_the_head(monkeypatch):
    from torchvision import models

    stored = models.resnet18().state_dict()
    monkeypatch.setattr(models._api.WeightsEnum, "get_state_dict", lambda *_, **__: stored)
    module = build(3, SMALL, weights="DEFAULT")
    assert torch.equal(module.conv1.weight, stored["conv1.weight"])
    assert module.fc.out_features == 3


def test_a_model_without_a_linear_layer_has_no_head_to_replace():
    with pytest.raises(ModelError, match="no linear"):
        replace_head(nn.Sequential(nn.Conv2d(3, 3, 1)), 3)
