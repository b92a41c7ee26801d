"""The two-headed discriminator of T-ACGAN."""

from __future__ import annotations

import pytest
import torch
from torch.nn.utils import parametrize

from mi_image.acgan import TacganDiscriminator


@pytest.mark.parametrize(("size", "channels"), [(32, 1), (64, 3)])
def test_two_heads_on_the_same_features(size: int, channels: int) -> None:
    model = TacganDiscriminator(5, size, channels, base=2).eval()
    images = torch.rand(3, channels, size, size, generator=torch.Generator().manual_seed(0))
    realness, logits = model(images)
    features = model.features(images)
    assert realness.shape == (3,)
    assert logits.shape == (3, 5)
    assert features.shape == (3, model.n_features)
    torch.testing.assert_close(logits, model.head(features))
    torch.testing.assert_close(realness, model.realness(features)[:, 0])


def test_the_trunk_is_spectrally_normalised_and_the_heads_are_not() -> None:
    model = TacganDiscriminator(5, 32, 1, base=2)
    convolutions = [m for m in model.blocks.modules() if hasattr(m, "kernel_size")]
    assert convolutions
    assert all(parametrize.is_parametrized(conv) for conv in convolutions)
    assert not parametrize.is_parametrized(model.realness)
    assert not parametrize.is_parametrized(model.head)


def test_in_eval_mode_nothing_moves() -> None:
    model = TacganDiscriminator(5, 32, 1, base=2).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(torch.rand(2, 1, 32, 32))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_paper_width() -> None:
    with torch.device("meta"):
        widths = [tuple(m.conv2.weight.shape[:2]) for m in TacganDiscriminator(10).blocks]  # type: ignore[union-attr, index]
    assert widths == [(64, 64), (128, 64), (256, 128), (512, 256), (1024, 512)]


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(B, 3, 32, 32\)"):
        TacganDiscriminator(5, 32, base=2)(torch.rand(2, 3, 64, 64))
