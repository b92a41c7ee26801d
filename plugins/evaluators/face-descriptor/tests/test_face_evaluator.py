"""The evaluator as the core calls it, with a random network and patterns instead of faces."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mi_evaluator_face_descriptor.evaluator import (
    WEIGHTS_VARIABLE,
    FaceDescriptorConfig,
    FaceDescriptorEvaluator,
)
from mi_evaluator_face_descriptor.network import FaceDescriptor
from micore.contracts import Case, Evaluator, Measurement, Reconstruction, Reference, Subject
from micore.errors import DataError, ModelError
from micore.runtime import Runtime

TENSORS = SimpleNamespace(join=torch.cat)
"""All that these tests need of a modality."""

N_CLASSES, PER_CLASS = 6, 3


@dataclass
class Pictures:
    samples: Tensor
    labels: Tensor | None

    def __len__(self) -> int:
        return len(self.samples)

    def take(self, indices: Sequence[int] | Tensor) -> Tensor:
        return self.samples[torch.as_tensor(indices)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "face.safetensors"
    torch.manual_seed(0)
    save_file(FaceDescriptor().state_dict(), path)
    return str(path)


@pytest.fixture(scope="module")
def private() -> Pictures:
    """Smooth patterns, one a class, with a little noise."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(N_CLASSES, 3, 4, 4, generator=generator).repeat_interleave(PER_CLASS, 0)
    patterns = torch.nn.functional.interpolate(coarse, (32, 32), mode="bilinear")
    noisy = patterns + 0.01 * torch.randn(patterns.shape, generator=generator)
    return Pictures(noisy.clamp(0, 1), torch.arange(N_CLASSES).repeat_interleave(PER_CLASS))


def reference(private: Pictures) -> Reference:
    dataset = SimpleNamespace(split=lambda name: {"private": private}[name])
    return Reference(modality=TENSORS, dataset=dataset, target=None)  # type: ignore[arg-type]


def subject(name: str, samples: Tensor, labels: Sequence[int | None]) -> Subject:
    reconstructions = [
        Reconstruction(
            case=Case(id=f"class-{label}", goal="class", label=label),
            samples=part,
            scores=torch.zeros(len(part)),
        )
        for label, part in zip(labels, samples.split(PER_CLASS), strict=True)
    ]
    return Subject(name=name, reconstructions=reconstructions)


def measure(weights: str, private: Pictures, *subjects: Subject) -> dict[tuple[str, str], Measurement]:
    evaluator = FaceDescriptorEvaluator(FaceDescriptorConfig(weights=weights, batch_size=8))
    measurements = evaluator.evaluate(subjects, reference(private), Runtime.create("cpu"))
    return {(item.subject, item.name): item for item in measurements}


def test_perfect_and_mistaken_reconstructions(weights: str, private: Pictures) -> None:
    shifted = [(label + 1) % N_CLASSES for label in range(N_CLASSES)]
    found = measure(
        weights,
        private,
        subject("attack", private.samples, range(N_CLASSES)),
        subject("mistaken", private.samples, shifted),
    )
    hit, miss = found["attack", "face-top1"], found["mistaken", "face-top1"]
    assert (hit.value, miss.value) == (1.0, 0.0)
    assert (hit.n, hit.clusters, hit.direction) == (N_CLASSES * PER_CLASS, N_CLASSES, "up")
    assert hit.per_case == {f"class-{label}": 1.0 for label in range(N_CLASSES)}
    assert hit.interval is not None
    assert hit.interval.low < 1.0  # six classes cannot show certainty
    assert found["attack", "face-distance"].value == pytest.approx(0.0, abs=1e-3)
    assert found["mistaken", "face-distance"].value > found["attack", "face-distance"].value
    assert found["attack", "face-verified"].value == 1.0
    assert len(found) == 10


def test_a_value_is_the_mean_over_classes(weights: str, private: Pictures) -> None:
    samples = private.samples.clone()
    samples[0] = private.samples[-1]  # one of three of class 0 shows somebody else
    top1 = measure(weights, private, subject("attack", samples, range(N_CLASSES)))["attack", "face-top1"]
    assert top1.per_case["class-0"] == pytest.approx(2 / 3)
    assert top1.value == pytest.approx((2 / 3 + N_CLASSES - 1) / N_CLASSES)


def test_the_same_run_gives_the_same_figures(weights: str, private: Pictures) -> None:
    attack = subject("attack", private.samples.roll(1, 0), range(N_CLASSES))
    assert measure(weights, private, attack) == measure(weights, private, attack)


def test_broken_samples_are_misses_and_said_so(weights: str, private: Pictures) -> None:
    samples = private.samples.clone()
    samples[0] = torch.nan
    found = measure(weights, private, subject("attack", samples, range(N_CLASSES)))
    assert found["attack", "face-top1"].per_case["class-0"] == pytest.approx(2 / 3)
    assert found["attack", "face-distance"].n == N_CLASSES * PER_CLASS - 1
    assert "1 samples" in found["attack", "face-distance"].notes[-1]


def test_it_is_an_evaluator(weights: str) -> None:
    assert isinstance(FaceDescriptorEvaluator(FaceDescriptorConfig()), Evaluator)


def test_weights_come_from_the_environment(weights: str, private: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = FaceDescriptorEvaluator(FaceDescriptorConfig())
    attack = [subject("attack", private.samples, range(N_CLASSES))]
    monkeypatch.delenv(WEIGHTS_VARIABLE, raising=False)
    with pytest.raises(ModelError, match="no weights given"):
        evaluator.evaluate(attack, reference(private), Runtime.create("cpu"))
    monkeypatch.setenv(WEIGHTS_VARIABLE, weights)
    assert evaluator.evaluate(attack, reference(private), Runtime.create("cpu"))


def test_what_cannot_be_judged_is_refused(weights: str, private: Pictures) -> None:
    with pytest.raises(DataError, match="no labelled pictures"):
        measure(weights, Pictures(private.samples, None), subject("a", private.samples[:3], [0]))
    with pytest.raises(DataError, match="no samples of a class"):
        measure(weights, private, subject("a", private.samples[:3], [None]))


def test_the_plugin_describes_it_without_torch() -> None:
    source = str(Path(__file__).parents[1] / "src")
    code = (
        f"import sys; sys.path.insert(0, {source!r})\n"
        "from mi_evaluator_face_descriptor.plugin import mi_evaluators\n"
        "spec, = mi_evaluators()\n"
        "sys.exit('torch' in sys.modules or spec.name != 'face-descriptor')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
