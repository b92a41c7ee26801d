"""The completion network: published layout, other sizes, patches, evidence that stays as it is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mi_image.corruptions import CORRUPTIONS
from mi_image.inpainting import SIZES, Completer, InpaintingGenerator, patches, require_completable
from micore.errors import MiError


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def small(size: int = 16, channels: int = 1) -> InpaintingGenerator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return InpaintingGenerator(latent_dim=3, size=size, channels=channels, width=2).eval()


def layers(network: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [layer for layer in network.modules() if isinstance(layer, kind)]


@pytest.mark.parametrize("size", SIZES)
def test_it_gives_canonical_images(size: int) -> None:
    network = small(size, channels=3)
    images, masks = CORRUPTIONS["centre"].apply(drawn(2, 3, size, size), torch.empty(2, 0))
    whole = network(images, masks, torch.randn(2, 3, generator=torch.Generator().manual_seed(0)))
    assert whole.shape == (2, 3, size, size)
    assert 0 <= whole.min() < whole.max() <= 1
    assert network.read(images, masks).shape == (2, 8, size // 4, size // 4)


def test_it_has_the_published_layout() -> None:
    with torch.device("meta"):
        paper = InpaintingGenerator()
    shapes = [tuple(conv.weight.shape) for conv in layers(paper.context, nn.Conv2d)]
    assert shapes == [
        (32, 4, 5, 5), (64, 32, 3, 3), (64, 64, 3, 3), (128, 64, 3, 3), *[(128, 128, 3, 3)] * 6,
    ]  # fmt: skip
    strides = [conv.stride[0] for conv in layers(paper.context, nn.Conv2d)]
    assert strides == [1, 2, 1, 2, 1, 1, 1, 1, 1, 1]
    assert [conv.dilation[0] for conv in layers(paper.context, nn.Conv2d)][-4:] == [2, 4, 8, 16]
    assert [tuple(linear.weight.shape) for linear in layers(paper.identity, nn.Linear)] == [(8192, 100)]
    ups = [tuple(conv.weight.shape[:2]) for conv in layers(paper.identity, nn.ConvTranspose2d)]
    assert ups == [(512, 256), (256, 128)]
    assert [tuple(conv.weight.shape[:2]) for conv in layers(paper.decoder, nn.ConvTranspose2d)] == [
        (256, 128),
        (128, 64),
    ]
    assert [tuple(conv.weight.shape[:2]) for conv in layers(paper.decoder, nn.Conv2d)] == [(32, 64), (3, 32)]


def test_reading_activates_before_it_normalises() -> None:
    kinds = [type(layer) for layer in small().context[0]]
    assert kinds == [nn.Conv2d, nn.ReLU, nn.BatchNorm2d]


def test_at_16_px_the_latent_starts_where_the_branches_meet() -> None:
    network = small()
    assert not layers(network.identity, nn.ConvTranspose2d)
    assert [conv.dilation[0] for conv in layers(network.context, nn.Conv2d)][-4:] == [1, 1, 2, 4]


def test_in_eval_mode_a_completion_does_not_depend_on_its_batch() -> None:
    network, images, masks, latents = small(), drawn(3, 1, 16, 16), drawn(3, 1, 16, 16).round(), drawn(3, 3)
    together, alone = network(images, masks, latents), network(images[:1], masks[:1], latents[:1])
    torch.testing.assert_close(together[:1], alone)


def test_patches_equal_a_plain_loop_and_stay_inside() -> None:
    images = drawn(50, 2, 6, 6)
    numbers = drawn(50, 2, seed=1)
    numbers[0], numbers[1] = 0, 1 - 2**-24
    cut = patches(images, numbers)
    for image, (down, right), patch in zip(images, numbers.tolist(), cut, strict=True):
        top, left = int(down * 4), int(right * 4)  # a patch of 3 px has four places
        assert torch.equal(patch, image[:, top : top + 3, left : left + 3])
    assert {tuple(place) for place in (numbers * 4).long().tolist()} == {(a, b) for a in range(4) for b in range(4)}


def test_the_gradient_of_a_patch_reaches_its_pixels_alone() -> None:
    images = drawn(1, 1, 4, 4).requires_grad_(True)
    patches(images, torch.tensor([[0.5, 0.0]])).sum().backward()
    wanted = torch.zeros(1, 1, 4, 4)
    wanted[:, :, 1:3, 0:2] = 1
    assert torch.equal(images.grad, wanted)


def test_a_completer_reads_once_and_leaves_the_evidence_as_it_is() -> None:
    network = small()
    images, masks = CORRUPTIONS["scattered"].apply(drawn(3, 1, 16, 16), drawn(3, 16, seed=2))
    completer = Completer(network, images, masks, tile=2)
    pieces, latents = torch.tensor([2, 0, 2, 1]), drawn(4, 3)
    with torch.no_grad():
        completions = completer(latents, pieces)
        whole = network(images[pieces], masks[pieces], latents)
    shown = masks[pieces] == 0
    assert torch.equal(completions[shown], images[pieces][shown])
    torch.testing.assert_close(completions[~shown], whole[~shown])
    torch.testing.assert_close(completer.whole(latents, pieces).detach(), whole)


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="resize the images"):
        InpaintingGenerator(size=8)
    for shape in ((1, 1, 8, 8), (1, 1, 32, 16)):
        with pytest.raises(MiError, match="square images of 16, 32") as caught:
            require_completable(torch.zeros(shape))
        assert "resize" in (caught.value.hint or "")
