"""The commands of these pages run, one after another, as they stand there: only shorter."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest
import torch
from PIL import Image

from micore.errors import BudgetExceeded
from micore.kit.training import TrainingConfig
from micore.runs import judges
from tests.docs.pages import ROOT
from tests.e2e.following import follow

TARGET = (
    "train", "--data", "digits", "--model", "small-cnn", "-p", "epochs=1", "--device", "cpu",
    "-o", "runs/target.safetensors",
)  # fmt: skip
PLMI = ("attack", "--plugin", "plmi", "--model", "runs/target.safetensors", "--preset", "smoke", "--device", "cpu")
PAGES: dict[str, tuple[str, ...]] = {
    "README.md": ("quickstart", "new", "check", "bench", "attack --plugin plmi --model hf:"),
    "docs/tutorial/first-inversion.md": ("quickstart",),
    "docs/how-to/attack-an-endpoint.md": ("serve", "attack --plugin brep-mi --model http", "resume"),
    "docs/how-to/attack-attributes.md": ("quickstart",),
    "docs/how-to/attack-graphs.md": (
        "quickstart", "train --data tu:", "attack --plugin embedding-to-graph", "report runs/mutag",
    ),
    "docs/how-to/attack-single-images.md": (),
    "docs/how-to/attack-voices.md": (
        "quickstart", "train --data folder-audio", "attack --plugin audio-mi --model runs/own", "report",
    ),
    "docs/how-to/ci-gate.md": (),
    "docs/how-to/defend-a-target.md": (),
    "docs/how-to/own-data.md": ("train --data hf:",),
    "docs/how-to/resume-and-budgets.md": (),
    "docs/explanation/evaluator-independence.md": (),
}  # fmt: skip
"""Pages, and what is left out of each: commands that other tests run, or that need files which nobody may copy."""
BEFORE = {
    "docs/how-to/ci-gate.md": [TARGET],
    "docs/how-to/resume-and-budgets.md": [TARGET, (*PLMI, "--budget-queries", "2000", "-o", "runs/plmi")],
    "docs/explanation/evaluator-independence.md": [TARGET],
}
"""What a reader of the page has done before."""


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the reader's own files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(judges, "judge_training", lambda n: TrainingConfig(epochs=1, augment="strong"))
    draw = random.Random(5)
    for number, name in enumerate(("anna", "ben", "carla", "dora", "emil")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(12):
            noise = torch.rand(40, 40, 3, generator=torch.Generator().manual_seed(100 * number + index))
            image = (100 * noise + 30 * number).byte().numpy()
            Image.fromarray(image).save(tmp_path / "photos" / name / f"{index}.png")
    with (tmp_path / "people.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["age", "smokes", "condition", "cost"])
        for _ in range(400):
            ill = draw.random() < 0.4
            smokes = draw.random() < (0.7 if ill else 0.3)
            rows.writerow([draw.randint(20, 80), "yes" if smokes else "no", "ill" if ill else "well",
                           "high" if ill and draw.random() < 0.9 else "low"])  # fmt: skip
    edges = {tuple(sorted(draw.sample(range(60), 2))) for _ in range(240)}
    (tmp_path / "graph.txt").write_text("".join(f"{one} {two}\n" for one, two in sorted(edges)))
    nodes = [f"{node},{'ab'[node % 2]},{node % 2 + draw.random():.3f},{draw.random():.3f}\n" for node in range(60)]
    (tmp_path / "nodes.csv").write_text("id,label,one,two\n" + "".join(nodes))
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run(page: str, reader: Path, mi) -> None:
    for arguments in BEFORE.get(page, ()):
        result = mi(*arguments)
        assert result.exit_code in (0, BudgetExceeded.exit_code), result.output
    follow(ROOT / page, mi, but=PAGES[page])
