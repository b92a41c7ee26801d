"""Shapes and arithmetic of the network, with random weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mi_evaluator_face_descriptor.network import ChannelScale, FaceDescriptor, ResidualBlock


def test_faces_become_128_numbers() -> None:
    torch.manual_seed(0)
    network = FaceDescriptor().eval()
    with torch.no_grad():
        descriptors = network(torch.rand(2, 3, 150, 150))
    assert descriptors.shape == (2, 128)
    assert descriptors.isfinite().all()
    assert not torch.equal(descriptors[0], descriptors[1])


def test_it_has_the_29_convolutions_of_the_paper() -> None:
    network = FaceDescriptor()
    assert sum(isinstance(module, nn.Conv2d) for module in network.modules()) == 29
    assert all(not isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_gradients_reach_the_face() -> None:
    torch.manual_seed(0)
    faces = torch.rand(1, 3, 150, 150, requires_grad=True)
    FaceDescriptor()(faces).sum().backward()
    assert faces.grad is not None
    assert faces.grad.abs().sum() > 0


def test_input_is_normalised_as_in_dlib() -> None:
    network = FaceDescriptor()
    seen: list[torch.Tensor] = []
    network.conv32_down.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network(torch.ones(1, 3, 150, 150))
    expected = [(255 - mean) / 256 for mean in (122.782, 117.001, 104.298)]
    assert seen[0][0, :, 75, 75].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("size", "halved"), [(35, 17), (17, 8), (8, 4), (4, 2)])
def test_the_shortcut_of_a_down_block(size: int, halved: int) -> None:
    block = ResidualBlock(2, 5, down=True)
    for scale in (block.conv1.scale, block.conv2.scale):
        nn.init.zeros_(scale.weight)  # leaves the shortcut alone
    features = torch.rand(1, 2, size, size)
    with torch.no_grad():
        result = block(features)
    assert result.shape == (1, 5, halved, halved)
    torch.testing.assert_close(result[0, 1, 0, 0], features[0, 1, :2, :2].mean())
    assert result[:, 2:].abs().sum() == 0


def test_a_short_residual_is_padded_below_and_right() -> None:
    block = ResidualBlock(1, 1, down=True)
    nn.init.zeros_(block.conv2.scale.weight)
    nn.init.ones_(block.conv2.scale.bias)
    with torch.no_grad():
        result = block(torch.zeros(1, 1, 8, 8))
    assert result[0, 0].tolist() == [[1.0] * 3 + [0.0]] * 3 + [[0.0] * 4]


def test_channel_scale() -> None:
    scale = ChannelScale(2)
    with torch.no_grad():
        scale.weight.copy_(torch.tensor([2.0, 3.0]))
        scale.bias.copy_(torch.tensor([1.0, -1.0]))
        assert scale(torch.ones(1, 2, 1, 1)).flatten().tolist() == [3.0, 2.0]
