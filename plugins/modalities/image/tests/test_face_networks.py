"""IR-50 and IR-152: shapes, size-dependent embedding layer, number of parameters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mi_image.face_networks import ImprovedResidualBlock, Ir50, Ir152


def conv_parameters(depths: tuple[int, ...], side: int, channels: int = 3) -> int:
    """Count the parameters up to the embedding from the published layout, in plain arithmetic."""
    total = channels * 64 * 9 + 2 * 64 + 64  # stem: conv, BN, PReLU
    inputs = 64
    for outputs, depth in zip((64, 128, 256, 512), depths, strict=True):
        for _ in range(depth):
            total += 2 * inputs + 9 * inputs * outputs + outputs + 9 * outputs * outputs + 2 * outputs
            total += inputs * outputs + 2 * outputs if inputs != outputs else 0
            inputs = outputs
    return total + 2 * 512 + (512 * side * side * 512 + 512) + 2 * 512  # BN2d, Linear, BN1d


@pytest.mark.parametrize("network", [Ir50, Ir152])
def test_forward_is_the_head_of_the_features(network: type[Ir50] | type[Ir152]) -> None:
    model = network(5, 1, 64, width=4, embedding=16).eval()
    images = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    features = model.features(images)
    assert features.shape == (2, 16)
    assert model(images).shape == (2, 5)
    torch.testing.assert_close(model(images), model.head(features), rtol=0, atol=0)


@pytest.mark.parametrize(("size", "side"), [(32, 2), (64, 4), (112, 7), (100, 7)])
def test_the_embedding_fits_the_last_map(size: int, side: int) -> None:
    model = Ir50(5, 3, size, width=4).eval()
    images = torch.zeros(1, 3, size, size)
    assert model.stages(model.stem(images)).shape == (1, 32, side, side)
    assert model(images).shape == (1, 5)


@pytest.mark.parametrize(
    ("network", "size", "side"),
    [(Ir50, 64, 4), (Ir50, 112, 7), (Ir152, 64, 4)],
    ids=["ir50", "ir50-112", "ir152"],
)
def test_numbers_of_parameters(network: type[Ir50] | type[Ir152], size: int, side: int) -> None:
    with torch.device("meta"):
        model = network(1000, 3, size)
    total = sum(p.numel() for p in model.parameters())
    assert total - (512 * 1000 + 1000) == conv_parameters(network.depths, side)


def test_the_blocks_have_the_published_order() -> None:
    same, wider = ImprovedResidualBlock(8, 8, 2), ImprovedResidualBlock(8, 16, 2)
    kinds = [type(part) for part in same.residual]
    assert kinds == [nn.BatchNorm2d, nn.Conv2d, nn.PReLU, nn.Conv2d, nn.BatchNorm2d]
    maps = torch.rand(2, 8, 7, 7)
    torch.testing.assert_close(same.shortcut(maps), maps[:, :, ::2, ::2])
    assert wider.eval()(maps).shape == (2, 16, 4, 4)


def test_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="built for 64 px"):
        Ir50(5, width=4).eval()(torch.zeros(1, 3, 112, 112))
    with pytest.raises(ValueError, match="too small"):
        Ir152(5, size=8)
