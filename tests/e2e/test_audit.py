"""A user with a model and folders of images follows docs/how-to/audit-your-model.md, line by line, to its reports."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from micore.kit.training import TrainingConfig
from micore.runs import judges
from tests.docs.pages import ROOT, blocks
from tests.e2e.following import follow

PAGE = ROOT / "docs" / "how-to" / "audit-your-model.md"
NAMES = ("anna", "ben", "carla", "dora")
SIZE = 32
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def pictures(kind: int, n: int, seed: int) -> Tensor:
    """Draw n pictures of two crossing bars (n, 3, 32, 32), whose places and colours tell the kind."""
    rng = torch.Generator().manual_seed(100 * seed + kind)
    plain = torch.zeros(3, SIZE, SIZE)
    plain[kind % 3, 5 * kind % 20 : 5 * kind % 20 + 12, 4:28] = 0.9
    plain[(kind + 1) % 3, 4:28, 7 * kind % 20 : 7 * kind % 20 + 6] = 0.7
    return (plain + 0.1 * torch.randn(n, 3, SIZE, SIZE, generator=rng)).clamp(0, 1)


def write(folder: Path, images: Tensor) -> None:
    folder.mkdir(parents=True)
    for number, image in enumerate((255 * images).byte().permute(0, 2, 3, 1).numpy()):
        Image.fromarray(image).save(folder / f"{number}.png")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with what the page says that the user has."""
    resnet18 = pytest.importorskip("torchvision").models.resnet18
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(judges, "judge_training", lambda n: TrainingConfig(epochs=2, augment="strong"))
    for kind, name in enumerate(NAMES):
        write(tmp_path / "photos" / name, pictures(kind, 24, 1))
        write(tmp_path / "held-out" / name, pictures(kind, 8, 2))
    write(tmp_path / "others", torch.cat([pictures(kind, 24, 3) for kind in (4, 5, 6)]))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = resnet18(num_classes=len(NAMES))
        images = (torch.cat([pictures(kind, 24, 1) for kind in range(len(NAMES))]) - MEAN) / STD
        learn(network, images, torch.arange(len(NAMES)).repeat_interleave(24))
        torch.save(network.state_dict(), "model.pth")
        save_vit(tmp_path / "my-vit")
    yield tmp_path
    sys.modules.pop("my_model", None)


def learn(network: torch.nn.Module, images: Tensor, labels: Tensor) -> None:
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(20):
        optimizer.zero_grad()
        functional.cross_entropy(network(images), labels).backward()
        optimizer.step()


def save_vit(folder: Path) -> None:
    """Save an untrained vision transformer with its image processor's settings."""
    from transformers import ViTConfig, ViTForImageClassification

    size = {"image_size": SIZE, "patch_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 32}
    names = {"id2label": dict(enumerate(NAMES)), "label2id": {name: number for number, name in enumerate(NAMES)}}
    ViTForImageClassification(ViTConfig(**size, intermediate_size=32, **names)).save_pretrained(folder)
    settings = {"size": {"height": SIZE, "width": SIZE}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def test_the_page_leads_from_nothing_to_reports(workplace: Path, mi) -> None:
    """Every command as it stands there, but for the shortest presets and a quickly trained judge."""
    (python,) = blocks(PAGE, "python")
    assert len([line for line in python.splitlines() if line.strip()]) <= 10
    (workplace / "my_model.py").write_text(python)
    printed = follow(PAGE, mi)
    assert "accuracy 100.0% on 32 held-out samples" in printed, "the import has the right classes and normalisation"
    for run in ("audit", "audit-vit", "audit-own", "scores", "rounded"):
        assert (workplace / "runs" / run / "report.html").is_file()
    reports = {
        run: json.loads((workplace / "runs" / run / "report.json").read_text()) for run in ("audit-vit", "audit-own")
    }
    accuracies = {run: report["target"]["metrics"]["holdout_accuracy"] for run, report in reports.items()}
    assert accuracies["audit-own"] == 1
    doubts = [item["text"] for item in reports["audit-vit"]["validity"]]
    assert any("may be chance" in text for text in doubts) == (accuracies["audit-vit"] < 0.4)
    assert not any("may be chance" in item["text"] for item in reports["audit-own"]["validity"])
