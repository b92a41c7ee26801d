"""The image classifiers: the contract they share, their size, and that the small ones learn quickly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mi_image.classifiers import ImageClassifier, ResNet18, SmallCnn, SmallResNet, Vgg16Bn

ALL = (SmallCnn, SmallResNet, ResNet18, Vgg16Bn)


def seeded(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize(("size", "channels"), [(32, 1), (64, 3), (96, 3)])
@pytest.mark.parametrize("network", ALL)
def test_forward_is_the_head_of_the_features(network: type[ImageClassifier], size: int, channels: int) -> None:
    model = network(5, channels, size, width=4).eval()  # type: ignore[call-arg]
    images = seeded(2, channels, size, size)
    features = model.features(images)
    assert features.shape == (2, model.n_features)
    assert isinstance(model.head, nn.Linear)
    assert model(images).shape == (2, 5)
    torch.testing.assert_close(model(images), model.head(features), rtol=0, atol=0)


@pytest.mark.parametrize("network", ALL)
def test_the_head_is_the_last_linear_layer(network: type[ImageClassifier]) -> None:
    model = network(5, width=4)  # type: ignore[call-arg]
    assert [m for m in model.modules() if isinstance(m, nn.Linear)][-1] is model.head
    assert isinstance(model.stages, nn.Sequential)


@pytest.mark.parametrize("network", [SmallCnn, SmallResNet])
def test_small_networks_take_28_pixels(network: type[ImageClassifier]) -> None:
    assert network(10, 1, 28).eval()(seeded(3, 1, 28, 28)).shape == (3, 10)


@pytest.mark.parametrize("network", ALL)
def test_what_does_not_fit_is_refused(network: type[ImageClassifier]) -> None:
    with pytest.raises(ValueError, match="too small"):
        network(5, 3, 8)
    with pytest.raises(ValueError, match="at least 1"):
        network(0, 3, 64)
    model = network(5, 3, 64, width=4).eval()  # type: ignore[call-arg]
    with pytest.raises(ValueError, match=r"expected \(B, 3, height, width\)"):
        model(seeded(2, 1, 64, 64))
    with pytest.raises(ValueError, match="resize"):
        model(seeded(2, 3, 8, 8))


def test_the_vgg_head_is_bound_to_its_size() -> None:
    with pytest.raises(ValueError, match="built for 64 px"):
        Vgg16Bn(5, width=4).eval()(seeded(2, 3, 96, 96))


def test_a_residual_network_needs_a_block() -> None:
    with pytest.raises(ValueError, match="at least one residual block"):
        SmallResNet(5, depth=0)


def test_resnet18_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        large, small = ResNet18(1000, size=224), ResNet18(10, size=64)
    # torchvision documents 11,689,512 with a head of 512 * 1000 + 1000.
    assert count(large) == 11_689_512
    assert count(large) - count(large.head) == 11_176_512
    # The stem for small pictures has 3 * 64 kernels of 3x3 instead of 7x7.
    assert count(small) - count(small.head) == 11_176_512 - 3 * 64 * (49 - 9)


def test_vgg16_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = Vgg16Bn(1000)
    # torchvision documents 138,365,992 for vgg16_bn; its three linear layers have 25088 * 4096 + 4096,
    # 4096 * 4096 + 4096 and 4096 * 1000 + 1000, together 123,642,856.
    assert count(model.stages) == 138_365_992 - 123_642_856 == 14_723_136
    assert model.n_features == 512 * 2 * 2


def test_the_vgg_bias_is_frozen_at_zero() -> None:
    model = Vgg16Bn(5, width=4)
    assert not model.neck.bias.requires_grad
    assert not model.neck.bias.any()


def test_resnet18_agrees_with_torchvision() -> None:
    models = pytest.importorskip("torchvision.models")
    theirs, ours = models.resnet18(num_classes=4).eval(), ResNet18(4, size=96).eval()
    pairs = zip(ours.state_dict(), theirs.state_dict().values(), strict=True)
    ours.load_state_dict(dict(pairs))
    images = seeded(1, 3, 96, 96)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-5)


def fit(model: nn.Module, images: Tensor, labels: Tensor, epochs: int) -> None:
    order = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(images), generator=order).split(50):  # type: ignore[no-untyped-call]
            loss = nn.functional.cross_entropy(model(images[rows]), labels[rows])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    model.eval()


@pytest.mark.parametrize("network", [SmallCnn, SmallResNet])
def test_small_networks_learn_digits(network: type[ImageClassifier]) -> None:
    """Three epochs at 16 px: far above chance (10 %) and above a linear model (about 92 %)."""
    datasets = pytest.importorskip("sklearn.datasets")
    digits = datasets.load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    images = nn.functional.interpolate(images, size=16, mode="bilinear") * 2 - 1
    labels = torch.tensor(digits.target)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = network(10, 1, 16, width=16)  # type: ignore[call-arg]
    fit(model, images[:900], labels[:900], epochs=3)
    with torch.no_grad():
        accuracy = (model(images[900:]).argmax(1) == labels[900:]).float().mean()
    assert accuracy > 0.92
