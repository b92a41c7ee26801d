"""Made people: a table that is nobody's, drawn from a seed, whose sensitive column others tell in part."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from mi_tabular.datasets.dataset import TableDataset
from mi_tabular.datasets.parts import PartOptions, Records, coded, divided
from mi_tabular.schema import Column, Schema
from micore.kit.dataset_options import read_options, refuse_location
from micore.runtime import Random, derive_seed

COLUMNS = (
    Column("age", low=18, high=80),
    Column("sex", ("female", "male")),
    Column("region", ("north", "east", "south", "west")),
    Column("education", ("school", "college", "university")),
    Column("smoker", ("no", "yes")),
    Column("sport", ("never", "sometimes", "often")),
    Column("income", low=10, high=120),
    Column("condition", ("none", "heart", "diabetes")),
)
CLASSES = ("low", "medium", "high")
"""Of what a year of insurance costs: the label."""


class MadePeopleOptions(PartOptions):
    """Options of ``made-people``."""

    private: int | None = Field(600, ge=10, description="Rows that the target learns from")
    holdout: int | None = Field(600, ge=10, description="Rows that it never sees")
    public: int | None = Field(600, ge=10, description="Rows that the adversary has")


def open_made_people(location: str | None, **options: Any) -> TableDataset:
    """Open ``made-people``: what an insurance costs, by age, habits and a condition, which is sensitive.

    A condition depends on age, smoking and sport; costs depend on it and on age and smoking, and on chance.
    """
    refuse_location("made-people", location)
    settings = read_options(MadePeopleOptions, "made-people", options)
    n = sum(size or 0 for size in (settings.private, settings.holdout, settings.public))
    values, costs = drawn(n, Random(derive_seed("made-people", settings.seed)))
    records = Records(Schema(COLUMNS, "condition"), coded(COLUMNS, values), costs, CLASSES)
    return divided("made-people", records, settings, settings.model_dump())


def drawn(n: int, rng: Random) -> tuple[dict[str, Tensor], Tensor]:
    """Draw n people: values of each column, and what they cost, int64 (n,)."""
    age = 18 + 62 * rng.uniform((n,))
    education = _chosen(torch.tensor([0.0, 0.3, 0.0]).expand(n, -1), rng)
    smoker = _chosen(torch.stack([0.6 + 0.5 * education, torch.zeros(n)], dim=1), rng)
    sport = _chosen(torch.stack([(age - 50) / 30, torch.full((n,), 0.4), (45 - age) / 30], dim=1), rng)
    income = (25 + 18 * education + 0.4 * (age - 18) + 10 * rng.normal((n,))).clamp(10, 120)
    old = (age - 50) / 12
    condition = _chosen(
        torch.stack([torch.full((n,), 1.3), old + 1.2 * smoker - 0.4, 0.8 * old - 0.9 * sport + 0.6], dim=1), rng
    )
    burden = torch.tensor([0.0, 2.6, 1.4])[condition] + 0.5 * old + 0.6 * smoker
    costs = _chosen(torch.stack([1.6 - burden, torch.full((n,), 0.8), 1.4 * burden - 2.0], dim=1) * 1.5, rng)
    values = {
        "age": age, "sex": rng.integers(2, (n,)), "region": rng.integers(4, (n,)), "education": education,
        "smoker": smoker, "sport": sport, "income": income, "condition": condition,
    }  # fmt: skip
    return values, costs


def _chosen(logits: Tensor, rng: Random) -> Tensor:
    """Draw one of each row's values by their logits (n, values), int64 (n,)."""
    noise = rng.uniform(tuple(logits.shape)).clamp(min=1e-12)
    return (logits - (-noise.log()).log()).argmax(dim=1)  # Gumbel's trick
