"""The small transformer: the contract of all classifiers, and that it is one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mi_image.transformer import Attention, SmallTransformer


def seeded(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("size", "channels", "places"), [(16, 1, 16), (28, 1, 9), (32, 3, 16), (64, 3, 64), (23, 3, 25)]
)
def test_forward_is_the_head_of_the_features(size: int, channels: int, places: int) -> None:
    model = SmallTransformer(5, channels, size, width=8).eval()
    images = seeded(2, channels, size, size)
    features = model.features(images)
    assert features.shape == (2, model.n_features)
    assert model.places.shape == (1, places, model.n_features)
    torch.testing.assert_close(model(images), model.head(features), rtol=0, atol=0)
    assert [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1] is model.head
    assert isinstance(model.stages, nn.Sequential)


def test_attention_is_the_published_formula() -> None:
    """softmax(q k^T / sqrt(d)) v for each head, in float64."""
    attention = Attention(8).double().eval()
    tokens = seeded(2, 3, 8).double()
    query, key, value = attention.inputs(tokens).split(8, dim=2)
    heads = []
    for head in range(4):
        part = slice(2 * head, 2 * head + 2)
        weights = (query[..., part] @ key[..., part].transpose(1, 2) / 2**0.5).softmax(dim=2)
        heads.append(weights @ value[..., part])
    torch.testing.assert_close(attention(tokens), attention.output(torch.cat(heads, dim=2)))


def test_a_picture_does_not_change_with_its_batch() -> None:
    model = SmallTransformer(3, 1, 16, width=8).eval()
    images = seeded(4, 1, 16, 16)
    torch.testing.assert_close(model(images)[:1], model(images[:1]))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        SmallTransformer(3, width=10)
    with pytest.raises(ValueError, match="at least 1"):
        SmallTransformer(3, depth=0)
    with pytest.raises(ValueError, match="too small"):
        SmallTransformer(3, size=12)
    with pytest.raises(ValueError, match="built for 16 px"):
        SmallTransformer(3, 1, 16).eval()(seeded(1, 1, 32, 32))
