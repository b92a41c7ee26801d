"""Features by a network of the user's: TorchScript, and the Inception of the literature with weights of the test's."""

from __future__ import annotations

import io
import math
import pickle
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mi_evaluator_distribution.evaluator import DistributionConfig, DistributionEvaluator
from mi_evaluator_distribution.extractors import Extractor, is_script
from mi_image.modality import ImageModality
from micore.contracts import Case, Measurement, Reconstruction, Reference, Subject
from micore.errors import DataError, ModelError
from micore.files import file_digest
from micore.runtime import Random, Runtime
from micore.testing.check import check_plugin

CLASSES, SIZE = 3, 8
CPU = Runtime.create("cpu")


class Means(nn.Module):
    """Mean and spread of each channel, and the corners: features (N, 9) that a test can make itself."""

    def forward(self, images: Tensor) -> Tensor:
        """Return the features."""
        return torch.cat([images.mean(dim=(2, 3)), images.std(dim=(2, 3)), images[:, :, 0, 0]], dim=1)


class Labels(nn.Module):
    """No features."""

    def forward(self, images: Tensor) -> Tensor:
        """Return (N,)."""
        return images.mean(dim=(1, 2, 3))


def saved(module: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.jit as a whole
        torch.jit.script(module).save(str(path))
    return path


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return saved(Means(), tmp_path / "means.pt")


def images(seed: int, n: int = 12, channels: int = 3, size: int = SIZE) -> Tensor:
    return Random(seed).uniform((n, channels, size, size))


class Private:
    """Ten images of each class, brighter from class to class."""

    def __init__(self) -> None:
        self.labels = torch.arange(CLASSES).repeat_interleave(10)

    def take(self, rows: Tensor) -> Tensor:
        return of_class(self.labels, 1)[rows]

    def __len__(self) -> int:
        return len(self.labels)


def of_class(labels: Tensor, seed: int) -> Tensor:
    return (images(seed, len(labels)) + labels.view(-1, 1, 1, 1)) / (CLASSES + 1)


def subject(name: str, seed: int, shift: int = 0, n: int = 6) -> Subject:
    items = [
        Reconstruction(
            case=Case(id=f"class-{label}", goal="class", label=label),
            samples=of_class(torch.full((n,), (label + shift) % CLASSES), seed + label), scores=torch.zeros(n),
        )
        for label in range(CLASSES)
    ]  # fmt: skip
    return Subject(name=name, reconstructions=items)


def judged(*subjects: Subject, modality: str = "image", **options: Any) -> dict[tuple[str, str], Measurement]:
    data = SimpleNamespace(split=lambda _: Private(), modality=modality)
    reference = Reference(modality=ImageModality(), dataset=data, target=None)  # type: ignore[arg-type]
    found = DistributionEvaluator(DistributionConfig(resamples=20, **options)).evaluate(subjects, reference, CPU)
    return {(item.subject, item.name): item for item in found}


# TorchScript ----------------------------------------------------------------------------------------------


def test_features_are_those_of_the_script(script: Path) -> None:
    extractor = Extractor(script, CPU, trusted=True)
    many = images(1, 70)
    torch.testing.assert_close(extractor(many), Means()(many))
    grey = images(2, 3, 1)
    torch.testing.assert_close(extractor(grey), Means()(grey.expand(-1, 3, -1, -1)))
    torch.testing.assert_close(extractor(3 * many - 1), Means()((3 * many - 1).clamp(0, 1)))


def test_the_evaluator_judges_with_it_and_names_it(script: Path) -> None:
    found = judged(subject("attack", 5), subject("wrong", 5, 1), extractor=str(script), trust=True)
    digest = file_digest(script)[:12]
    item = found["attack", "fid"]
    assert item.evaluator == f"distribution@{digest}"
    assert any(digest in note and "not comparable with published FID" in note for note in item.notes)
    assert found["attack", "precision"].value > 0.5
    assert found["wrong", "precision"].value < 0.1
    assert math.isfinite(found["attack", "kid"].value)


def test_a_spoiled_sample_is_left_out_and_counted(script: Path) -> None:
    spoiled = subject("attack", 5)
    spoiled.reconstructions[0].samples[0, 0, 0, 0] = math.nan
    found = judged(spoiled, extractor=str(script), trust=True)
    assert found["attack", "fid"].n == 17
    assert any("1 samples that the judge cannot read" in note for note in found["attack", "fid"].notes)


def test_a_script_must_be_trusted(script: Path) -> None:
    with pytest.raises(ModelError, match="can run code") as error:
        judged(subject("attack", 5), extractor=str(script))
    assert "trust=true" in str(error.value.hint)


def test_other_modalities_are_refused(script: Path) -> None:
    with pytest.raises(DataError, match="takes images; the data are of modality text"):
        judged(subject("attack", 5), modality="text", extractor=str(script), trust=True)


def test_a_network_that_gives_no_features_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no features"):
        Extractor(saved(Labels(), tmp_path / "labels.pt"), CPU, trusted=True)(images(1))


def test_a_file_that_is_not_there_is_missed_before_the_attack(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        DistributionEvaluator(DistributionConfig(extractor=str(tmp_path / "none.pt")))


def test_it_is_found_below_the_data_root(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MI_DATA_ROOT", str(script.parent))
    assert judged(subject("attack", 5), extractor=script.name, trust=True)["attack", "fid"].n == 18


def test_the_contract_is_kept_with_an_extractor(script: Path) -> None:
    options = {"extractor": str(script), "trust": True, "resamples": 20}
    report = check_plugin("evaluator", "distribution", options=options)
    assert report.passed, "\n" + report.text()


# Inception ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return random weights of the FID network, in the form of the published file."""
    fid = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    with torch.random.fork_rng(devices=[]), pytest.MonkeyPatch.context() as patch:
        torch.manual_seed(3)
        patch.setattr(fid.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        stream = io.BytesIO()
        torch.save({}, stream)
        stream.seek(0)
        module = fid.FeatureExtractorInceptionV3("fid", ["2048"], feature_extractor_weights_path=stream)
        patch.undo()
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(module.state_dict(), path)
    return path


def test_the_fid_network_is_that_of_torch_fidelity_with_images_of_8_bits(inception: Path) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    assert not is_script(inception)
    with torch.random.fork_rng(devices=[]):
        oracle = FeatureExtractorInceptionV3("fid", ["2048"], feature_extractor_weights_path=str(inception))
    some = images(1, 2, size=32)
    before = torch.random.get_rng_state()
    found = Extractor(inception, CPU, trusted=False)(some)
    assert torch.equal(before, torch.random.get_rng_state())
    assert found.shape == (2, 2048)
    assert float(found.std()) > 0
    torch.testing.assert_close(found, oracle((some * 255).round().to(torch.uint8))[0])


def test_the_note_says_whether_it_is_the_published_network(inception: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extractor = Extractor(inception, CPU, trusted=False)
    assert "not the published file" in extractor.note
    monkeypatch.setattr("mi_evaluator_distribution.extractors.PUBLISHED", extractor.digest[:8])
    assert extractor.note.startswith("features of the published FID network")


def test_its_published_name_is_that_of_torch_fidelity() -> None:
    fid = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    from mi_evaluator_distribution.extractors import PUBLISHED

    assert fid.URL_INCEPTION_V3.endswith(f"-2015-12-05-{PUBLISHED}.pth")


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("torch_fidelity")
    path = tmp_path / "other.pth"
    torch.save({"features.0.weight": torch.zeros(3)}, path)
    with pytest.raises(ModelError, match="no weights of the FID network"):
        Extractor(path, CPU, trusted=False)


class Bomb:
    """What a pickle of a stranger's may hold."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("went-off"),))


def test_no_code_in_weights_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bomb.pth"
    path.write_bytes(pickle.dumps(Bomb(), protocol=2))
    with pytest.raises(ModelError):
        Extractor(path, CPU, trusted=True)
    assert not (tmp_path / "went-off").exists()


def test_without_torch_fidelity_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    path = tmp_path / "some.pth"
    torch.save({"fc.weight": torch.zeros(3)}, path)
    with pytest.raises(ModelError, match="torch-fidelity") as error:
        Extractor(path, CPU, trusted=False)
    assert "pip install torch-fidelity" in str(error.value.hint)
