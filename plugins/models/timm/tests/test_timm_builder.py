"""timm's classifiers as targets: built for the data, stored, and refused with a reason."""

from __future__ import annotations

import pytest
import torch

from mi_model_timm.builder import build
from micore.errors import ModelError
from micore.inputs import InputSpec
from micore.kit.features import features_and_logits

SMALL = InputSpec(shape=(3, 32, 32))
TRANSFORMER = "vit_tiny_patch16_224"


def images(n=2, shape=(3, 32, 32)):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050", TRANSFORMER])
def test_classifier_gives_logits_and_features(name):
    module = build(5, SMALL, name=name).eval()
    with torch.no_grad():
        features, logits = features_and_logits(module, images())
    assert logits.shape == (2, 5)
    assert features.ndim == 2
    assert len(features) == 2


@pytest.mark.parametrize("shape", [(3, 48, 48), (3, 48, 32), (1, 32, 32)])
def test_transformer_is_built_for_the_pictures_of_the_data(shape):
    module = build(3, InputSpec(shape=shape), name=TRANSFORMER).eval()
    with torch.no_grad():
        assert module(images(shape=shape)).shape == (2, 3)


def test_grey_pictures_are_possible():
    module = build(3, InputSpec(shape=(1, 32, 32))).eval()
    with torch.no_grad():
        assert module(images(shape=(1, 32, 32))).shape == (2, 3)


def test_arguments_reach_timm():
    assert build(3, SMALL, drop_rate=0.25).drop_rate == 0.25


def test_weights_fit_a_model_that_is_built_again():
    first, second = (build(3, SMALL, name=TRANSFORMER).eval() for _ in range(2))
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        assert torch.equal(first(images()), second(images()))


def test_building_leaves_the_model_as_it_was_made():
    module = build(3, SMALL)
    assert module.training
    assert int(module.bn1.num_batches_tracked) == 0


def test_names_with_a_tag_of_weights_are_known():
    tagged = build(3, SMALL, name=f"{TRANSFORMER}.augreg_in21k")
    assert type(tagged) is type(build(3, SMALL, name=TRANSFORMER))


def test_unknown_name_is_answered_with_close_ones():
    with pytest.raises(ModelError) as caught:
        build(3, SMALL, name="resnet81")
    assert "resnet18" in str(caught.value.hint)


def test_unknown_tag_is_refused():
    with pytest.raises(ModelError, match="nope"):
        build(3, SMALL, name=f"{TRANSFORMER}.nope")


def test_unknown_arguments_are_refused():
    with pytest.raises(ModelError, match="no_such"):
        build(3, SMALL, no_such=1)


@pytest.mark.parametrize("shape", [(), (3, 32), (3, 32, 0), (3, 32, 32, 2)])
def test_inputs_that_are_no_pictures_are_refused(shape):
    with pytest.raises(ModelError, match="shape"):
        build(3, InputSpec(shape=shape))


def test_no_classes_are_refused():
    with pytest.raises(ModelError, match="0 classes"):
        build(0, SMALL)


def test_sizes_that_the_architecture_does_not_take_are_refused():
    with pytest.raises(ModelError, match="takes no inputs"):
        build(3, SMALL, name="inception_v3")


def test_weights_that_are_not_there_are_an_error_offline(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ModelError, match="cannot be built"):
        build(3, SMALL, pretrained=True)
