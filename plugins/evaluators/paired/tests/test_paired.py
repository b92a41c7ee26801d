"""PSNR and SSIM against torchmetrics and loops in float64, and the evaluator as the core calls it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import correlate1d
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from mi_evaluator_paired.evaluator import PairedConfig, PairedEvaluator
from mi_evaluator_paired.likeness import LEAST_ERROR, psnr, readable, ssim_maps, weighted_mean
from mi_image.corruptions import corrupt_case
from mi_image.modality import ImageModality
from micore.contracts import Case, Evaluator, Measurement, Reconstruction, Reference, Subject, Truth
from micore.errors import DataError
from micore.runtime import Random, Runtime

SIZE = 16
CAP = -10 * math.log10(LEAST_ERROR)


def images(seed: int, n: int = 4, channels: int = 1, size: int = SIZE) -> Tensor:
    return Random(seed).uniform((n, channels, size, size))


def everywhere(like: Tensor) -> Tensor:
    return torch.ones_like(like[:, :1])


# kernels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_psnr_is_that_of_torchmetrics(channels: int) -> None:
    one, other = images(0, channels=channels), images(1, channels=channels)
    expected = peak_signal_noise_ratio(one.double(), other.double(), data_range=1.0, reduction="none", dim=(1, 2, 3))
    torch.testing.assert_close(psnr(one, other, everywhere(one)), expected)


@given(st.integers(0, 200))
def test_psnr_of_a_part_is_that_of_its_pixels(seed: int) -> None:
    one, other = images(seed, 2, 3, 6), images(seed + 1, 2, 3, 6)
    part = (images(seed + 2, 2, 1, 6) < 0.3).float()
    for row, found in enumerate(psnr(one, other, part)):
        chosen = part[row].expand(3, -1, -1) == 1
        error = (one[row].double() - other[row].double())[chosen].numpy() ** 2
        expected = -10 * np.log10(error.mean()) if len(error) else np.nan
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_equal_images_are_as_near_as_8_bits_can_be() -> None:
    one = images(0)
    assert psnr(one, one, everywhere(one)).tolist() == pytest.approx([CAP] * 4)
    assert pytest.approx(58.92, abs=0.01) == CAP
    rounded = (one * 255).round() / 255
    assert psnr(one, rounded, everywhere(one)).mean() == pytest.approx(CAP, abs=0.5)


def test_ssim_is_that_of_the_paper() -> None:
    """Against the formula of Wang et al. in numpy: Gaussian window of 11, mirrored border, C1, C2 for range 1."""
    one, other = images(0, 1), images(1, 1)
    window = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def smooth(values: np.ndarray) -> np.ndarray:
        across: np.ndarray = correlate1d(values, window, axis=1, mode="mirror")
        along: np.ndarray = correlate1d(across, window, axis=0, mode="mirror")
        return along

    x, y = one[0, 0].double().numpy(), other[0, 0].double().numpy()
    mean_x, mean_y = smooth(x), smooth(y)
    variance_x, variance_y = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2
    covariance = smooth(x * y) - mean_x * mean_y
    expected = (2 * mean_x * mean_y + 0.01**2) * (2 * covariance + 0.03**2)
    expected /= (mean_x**2 + mean_y**2 + 0.01**2) * (variance_x + variance_y + 0.03**2)
    np.testing.assert_allclose(ssim_maps(one, other)[0, 0].numpy(), expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(ssim_maps(one, one), torch.ones(1, 1, SIZE, SIZE, dtype=torch.float64))
    assert ssim_maps(one[:, :, :5, :5], other[:, :, :5, :5]).isnan().all()


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_of_whole_images_is_the_figure_of_torchmetrics(channels: int) -> None:
    one, other = images(0, channels=channels, size=24), images(1, channels=channels, size=24)
    expected = structural_similarity_index_measure(one.double(), other.double(), data_range=1.0, reduction="none")
    torch.testing.assert_close(weighted_mean(ssim_maps(one, other), everywhere(one)), expected)


def test_what_is_no_number_is_as_wrong_as_can_be() -> None:
    truth = torch.tensor([0.2, 0.9, 0.5, 0.4]).view(1, 1, 2, 2)
    broken = torch.tensor([math.nan, math.inf, -math.inf, 7.0]).view(1, 1, 2, 2)
    assert readable(broken, truth).flatten().tolist() == [1.0, 0.0, 0.0, 1.0]


def test_a_mean_over_nothing_is_no_number() -> None:
    values = images(0, 2, 3)
    weights = torch.stack([torch.zeros(1, SIZE, SIZE), torch.ones(1, SIZE, SIZE)])
    found = weighted_mean(values.double(), weights)
    assert found[0].isnan()
    assert float(found[1]) == pytest.approx(float(values[1].double().mean()))


# the evaluator --------------------------------------------------------------------------------------------

TRUE = images(50, 6, 3)
CLASSES = (0, 0, 1, 1, 2, 2)


def case(row: int, kind: str | None = "centre") -> Case:
    evidence = corrupt_case(TRUE[row], kind, f"image-{row}") if kind else None
    return Case(id=f"image-{row}", goal="instance", evidence=evidence)


def subject(samples: Sequence[Tensor], name: str = "attack", kind: str | None = "centre") -> Subject:
    items = [
        Reconstruction(case=case(row, kind), samples=some, scores=torch.zeros(len(some)))
        for row, some in enumerate(samples)
    ]
    return Subject(name=name, reconstructions=items)


def measure(*subjects: Subject, labelled: bool = True, batch_size: int = 256) -> dict[tuple[str, str], Measurement]:
    truth = {
        f"image-{row}": Truth(sample=TRUE[row : row + 1], label=CLASSES[row] if labelled else None)
        for row in range(len(TRUE))
    }
    unused = SimpleNamespace()
    reference = Reference(modality=ImageModality(), dataset=unused, target=None, truth=truth)  # type: ignore[arg-type]
    evaluator = PairedEvaluator(PairedConfig(resamples=100, batch_size=batch_size))
    assert isinstance(evaluator, Evaluator)
    found = evaluator.evaluate(subjects, reference, Runtime.create("cpu"))
    return {(item.subject, item.name): item for item in found}


def attack(error: float = 0.1, restarts: int = 3) -> list[Tensor]:
    return [(TRUE[row] + error * (images(row, restarts, 3) - 0.5)).clamp(0, 1) for row in range(len(TRUE))]


def test_every_sample_counts_and_classes_are_the_units() -> None:
    samples = attack()
    found = measure(subject(samples))
    item = found["attack", "psnr"]
    expected = [
        psnr(some, TRUE[row].expand_as(some), everywhere(some)).mean().item() for row, some in enumerate(samples)
    ]
    assert item.per_case == pytest.approx({f"image-{row}": value for row, value in enumerate(expected)})
    assert item.value == pytest.approx(np.mean(expected))
    assert (item.n, item.clusters, item.unit, item.direction) == (18, 3, "dB", "up")
    assert item.evaluator == "paired@pixels"
    assert {name for _, name in found} == {"psnr", "ssim", "psnr-hidden", "ssim-hidden"}
    assert not item.notes


def test_without_classes_every_case_is_a_unit() -> None:
    assert measure(subject(attack()), labelled=False)["attack", "ssim"].clusters == 6


def test_the_hidden_part_is_judged_alone() -> None:
    """Two completions that keep the visible part: one is right in the hidden part, one is not."""
    right, wrong = [], []
    for row in range(len(TRUE)):
        held = case(row).evidence
        right.append(TRUE[row : row + 1])
        wrong.append(torch.where(held.mask > 0, 1 - TRUE[row], TRUE[row])[None])
    found = measure(subject(right), subject(wrong, "wrong"))
    assert found["attack", "psnr-hidden"].value == pytest.approx(CAP)
    assert found["attack", "ssim-hidden"].value == pytest.approx(1.0)
    assert found["wrong", "psnr-hidden"].value < 6
    gained = found["wrong", "psnr"].value - found["wrong", "psnr-hidden"].value
    assert gained == pytest.approx(10 * math.log10(4), abs=0.01)  # a quarter of the pixels is hidden
    assert found["wrong", "ssim-hidden"].value < found["wrong", "ssim"].value


def test_a_nearer_attack_scores_higher_in_every_figure() -> None:
    found = measure(subject(attack(0.05)), subject(attack(0.5), "worse"))
    for name in ("psnr", "ssim", "psnr-hidden", "ssim-hidden"):
        assert found["attack", name].value > found["worse", name].value


def test_other_images_of_the_class_are_left_out() -> None:
    found = measure(subject(attack()), subject(attack(), "evidence"), subject(attack(), "holdout"))
    assert {name for name, _ in found} == {"attack", "evidence"}


def test_evidence_without_a_mask_has_no_hidden_part() -> None:
    found = measure(subject(attack(), kind=None))
    for name in ("psnr-hidden", "ssim-hidden"):
        item = found["attack", name]
        assert math.isnan(item.value)
        assert any("hidden" in note for note in item.notes)
    assert math.isfinite(found["attack", "psnr"].value)


def test_blurred_evidence_hides_everything() -> None:
    found = measure(subject(attack(), kind="blur"))
    for name in ("psnr", "ssim"):
        assert found["attack", name].value == pytest.approx(found["attack", f"{name}-hidden"].value)


def test_spoiled_samples_lower_the_figures_and_are_said() -> None:
    spoiled = attack()
    spoiled[0] = spoiled[0].clone()
    spoiled[0][1, :, 8] = math.nan
    before, after = measure(subject(attack())), measure(subject(spoiled))
    for key, item in after.items():
        assert item.value < before[key].value
        assert item.n == 18
        assert any("1 samples with pixels that are no numbers" in note for note in item.notes)


def test_samples_of_another_size_are_fitted_to_the_truth() -> None:
    grey = [some.mean(dim=1, keepdim=True) for some in attack(0.0)]
    large = [torch.nn.functional.interpolate(some, scale_factor=2, mode="nearest") for some in grey]
    found = measure(subject(large))
    assert 10 < found["attack", "psnr"].value < CAP


def test_too_small_images_have_no_ssim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.TRUE", TRUE[:, :, :5, :5])
    found = measure(subject(attack_small()))
    assert math.isnan(found["attack", "ssim"].value)
    assert any("less than 6 pixels" in note for note in found["attack", "ssim"].notes)
    assert math.isfinite(found["attack", "psnr"].value)


def attack_small() -> list[Tensor]:
    return [image[None] for image in TRUE]


def test_batches_do_not_matter() -> None:
    one, many = measure(subject(attack()), batch_size=1), measure(subject(attack()), batch_size=7)
    assert {key: item.value for key, item in one.items()} == pytest.approx(
        {key: item.value for key, item in many.items()}
    )


def test_a_case_without_truth_is_refused() -> None:
    stranger = Reconstruction(case=Case(id="image-99", goal="instance"), samples=TRUE[:1], scores=torch.zeros(1))
    with pytest.raises(DataError, match="nobody knows the truth of image-99"):
        measure(Subject(name="attack", reconstructions=[stranger]))
