"""LPIPS against torchmetrics with the same weights, its properties, and the evaluator that reports it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mi_evaluator_paired.evaluator import PairedConfig, PairedEvaluator
from mi_evaluator_paired.perceptual import LAYERS, PUBLISHED, SMALLEST, Backbone, Perceptual
from mi_image.modality import ImageModality
from micore.contracts import Case, Measurement, Reconstruction, Reference, Subject, Truth
from micore.errors import ModelError
from micore.runtime import Random, Runtime
from micore.testing.check import check_plugin

CPU = torch.device("cpu")
SIZE = 40


def random_weights(net: Backbone, seed: int = 0) -> dict[str, Tensor]:
    """Return a state dict in the form of torchvision's; random, so that its figures mean nothing but themselves."""
    rng, channels, state = Random(seed), 3, {}
    for layer in LAYERS[net]:
        spread = (2 / (channels * layer.kernel**2)) ** 0.5
        weight = rng.normal((layer.channels, channels, layer.kernel, layer.kernel)) * spread
        state |= {
            f"features.{layer.index}.weight": weight,
            f"features.{layer.index}.bias": rng.normal((layer.channels,)),
        }
        channels = layer.channels
    return state


@pytest.fixture(scope="module")
def alex(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "alex.pth"
    torch.save(random_weights("alex") | {"classifier.1.weight": torch.zeros(2, 2)}, path)
    return path


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "vgg.safetensors"
    save_file(random_weights("vgg"), path)
    return path


def images(seed: int, n: int = 3, channels: int = 3, size: int = SIZE) -> Tensor:
    return Random(seed).uniform((n, channels, size, size))


# the figure -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("net", "size"), [("alex", 31), ("alex", 64), ("vgg", 16), ("vgg", 37)])
def test_it_is_that_of_torchmetrics(net: Backbone, size: int, request: pytest.FixtureRequest) -> None:
    pytest.importorskip("torchvision")
    from torchmetrics.functional.image.lpips import _LPIPS

    with torch.random.fork_rng():
        oracle = _LPIPS(net=net, pnet_rand=True)
    state = {name.removeprefix("features."): value for name, value in random_weights(net).items()}
    slices = {name: value for name, value in oracle.net.state_dict().items()}
    oracle.net.load_state_dict({name: state[name.partition(".")[2]] for name in slices})
    one, other = images(1, size=size), images(2, size=size)
    expected = oracle(one, other, normalize=True).flatten().double()
    found = Perceptual(request.getfixturevalue(net), net, CPU).distances(one, other)
    assert found.dtype == torch.float64
    assert float(expected.min()) > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_equal_images_are_0_apart_and_noise_moves_them_away(alex: Path) -> None:
    net, truth = Perceptual(alex, "alex", CPU), images(1)
    noise = Random(3).normal(truth.shape)
    means = [float(net.distances((truth + much * noise).clamp(0, 1), truth).mean()) for much in (0, 0.02, 0.1, 0.5)]
    assert means[0] == 0
    assert means == sorted(set(means))
    forth, back = net.distances(truth, truth.flip(0)), net.distances(truth.flip(0), truth)
    torch.testing.assert_close(forth, back)


def test_grey_images_are_repeated_and_batches_do_not_matter(alex: Path) -> None:
    net, one, other = Perceptual(alex, "alex", CPU), images(1, 35, 1, 32), images(2, 35, 1, 32)
    found = net.distances(one, other)
    torch.testing.assert_close(found, net.distances(one.expand(-1, 3, -1, -1), other.expand(-1, 3, -1, -1)))
    torch.testing.assert_close(found[34:], net.distances(one[34:], other[34:]))


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_the_smallest_side_is_the_smallest(net: Backbone, request: pytest.FixtureRequest) -> None:
    judge, side = Perceptual(request.getfixturevalue(net), net, CPU), SMALLEST[net]
    assert judge.distances(images(1, size=side), images(2, size=side)).isfinite().all()
    assert judge.distances(images(1, size=side - 1), images(2, size=side - 1)).isnan().all()
    with pytest.raises(RuntimeError):  # what the check is for
        judge._compared(images(1, size=side - 1), images(2, size=side - 1))


def test_no_random_number_is_drawn(alex: Path) -> None:
    before = torch.random.get_rng_state()
    Perceptual(alex, "alex", CPU).distances(images(1), images(2))
    assert torch.equal(before, torch.random.get_rng_state())


# the weights ----------------------------------------------------------------------------------------------


def test_weights_of_another_network_are_refused(alex: Path, vgg: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no weights of torchvision's VGG-16") as error:
        Perceptual(alex, "vgg", CPU)
    assert "lpips_net" in str(error.value.hint)
    with pytest.raises(ModelError, match="no weights of torchvision's AlexNet"):
        Perceptual(vgg, "alex", CPU)
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"no weights")
    with pytest.raises(ModelError):
        Perceptual(broken, "alex", CPU)


@pytest.mark.parametrize(("net", "name"), [("alex", "AlexNet_Weights"), ("vgg", "VGG16_Weights")])
def test_published_files_are_known_by_torchvisions_own_names(net: Backbone, name: str) -> None:
    models = pytest.importorskip("torchvision.models")
    assert getattr(models, name).IMAGENET1K_V1.url.endswith(f"-{PUBLISHED[net][1]}.pth")


def test_the_note_says_whose_weights_they_are(alex: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = sha256(alex.read_bytes()).hexdigest()
    assert f"SHA-256 {digest[:12]}: not torchvision's published" in Perceptual(alex, "alex", CPU).note
    monkeypatch.setitem(PUBLISHED, "alex", ("AlexNet", digest[:8]))  # type: ignore[arg-type]
    assert Perceptual(alex, "alex", CPU).note == "LPIPS 0.1 with torchvision's published AlexNet"


# the evaluator --------------------------------------------------------------------------------------------


def measured(truth: Tensor, samples: Sequence[Tensor], **options: str) -> dict[str, Measurement]:
    items = [
        Reconstruction(case=Case(id=f"image-{row}", goal="instance"), samples=some, scores=torch.zeros(len(some)))
        for row, some in enumerate(samples)
    ]
    known = {f"image-{row}": Truth(sample=truth[row : row + 1], label=row) for row in range(len(truth))}
    reference = Reference(modality=ImageModality(), dataset=SimpleNamespace(), target=None, truth=known)  # type: ignore[arg-type]
    judge = PairedEvaluator(PairedConfig(resamples=50, **options))  # type: ignore[arg-type]
    found = judge.evaluate([Subject(name="attack", reconstructions=items)], reference, Runtime.create("cpu"))
    return {item.name: item for item in found}


def test_it_is_reported_with_weights_and_only_then(alex: Path) -> None:
    truth = images(1)
    near, far = (
        [(truth[row : row + 1] + much * images(5 + row)).clamp(0, 1) for row in range(3)] for much in (0.1, 0.9)
    )
    assert "lpips" not in measured(truth, near)
    item = measured(truth, near, lpips=str(alex))["lpips"]
    assert item.value < measured(truth, far, lpips=str(alex))["lpips"].value
    assert (item.n, item.clusters, item.unit, item.direction) == (9, 3, "LPIPS", "down")
    assert item.evaluator == f"paired@{sha256(alex.read_bytes()).hexdigest()[:12]}"
    assert any("not torchvision's published" in note for note in item.notes)
    perfect = measured(truth, [truth[row : row + 1] for row in range(3)], lpips=str(alex))
    assert perfect["lpips"].value == 0


def test_too_small_images_have_none_and_are_told_why(alex: Path) -> None:
    truth = images(1, size=16)
    item = measured(truth, [truth[row : row + 1] for row in range(3)], lpips=str(alex))["lpips"]
    assert math.isnan(item.value)
    assert any("less than 31 pixels" in note for note in item.notes)


def test_spoiled_samples_count_and_are_said(alex: Path) -> None:
    truth = images(1)
    samples = [truth[row : row + 1].clone() for row in range(3)]
    samples[0][:] = math.nan
    item = measured(truth, samples, lpips=str(alex))["lpips"]
    assert item.per_case["image-0"] > 0.01
    assert any("1 samples with pixels" in note for note in item.notes)


def test_weights_are_found_below_the_data_root(alex: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MI_DATA_ROOT", str(alex.parent.parent))
    truth = images(1)
    relative = f"{alex.parent.name}/{alex.name}"
    assert measured(truth, [truth[row : row + 1] for row in range(3)], lpips=relative)["lpips"].value == 0


def test_weights_that_are_not_there_are_missed_before_the_attack(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        PairedEvaluator(PairedConfig(lpips=str(tmp_path / "none.pth")))


def test_the_contract_is_kept_with_weights(vgg: Path) -> None:
    report = check_plugin("evaluator", "paired", options={"lpips": str(vgg), "lpips_net": "vgg"})
    assert report.passed, "\n" + report.text()
