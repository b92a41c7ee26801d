"""The planted problem that conformance checks attack and defend: what a label tells, a tree gives away."""

from __future__ import annotations

import torch
from torch import Tensor

from mi_tabular.datasets.dataset import TableDataset
from mi_tabular.datasets.parts import PartOptions, Records, coded, divided
from mi_tabular.networks import decision_tree, tabular_mlp
from mi_tabular.schema import Column, Schema
from mi_tabular.table import Table
from micore.artifacts import PluginUse
from micore.contracts import Case, Samples
from micore.kit.training import TrainingConfig
from micore.runtime import Random
from micore.testing.setting import ToySetting

THREE = ("a", "b", "c")
COLUMNS = (Column("age", low=0, high=99), Column("place", THREE), Column("secret", THREE), Column("colour", THREE))
SCHEMA = Schema(COLUMNS, "secret")
PRIVATE, OTHERS = 240, 90
TRAINING = TrainingConfig.model_validate({"epochs": 20, "batch_size": 32, "learning_rate": 1e-2, "augment": "none"})


def toys() -> list[ToySetting]:
    """Return the problem of goal ``attribute``: the label names the secret value, in one place the next one.

    The known columns alone tell nothing of it, and public rows do not hold it.
    """
    dataset = _dataset()
    private, holdout = dataset.private.table.values(), dataset.holdout.table.values()

    def judge(case: Case, samples: Samples) -> Tensor:
        part, _, row = case.id.rpartition("-")
        truth = int((private if part == "private" else holdout)[int(row)])
        found = samples.values().cpu()
        values = ((found == truth).double() - 1 / len(THREE)) / (1 - 1 / len(THREE))
        return torch.where(found < 0, 0.0, values)

    return [
        ToySetting(
            modality="tabular", goals=("attribute",), dataset=dataset, model=PluginUse(name="decision-tree"),
            build=decision_tree, judge_model=PluginUse(name="tabular-mlp"), judge_build=tabular_mlp, judge=judge,
            problem=problem, noise=_noise, inputs=(dataset.input,), training=TRAINING,
        )
    ]  # fmt: skip


def _dataset() -> TableDataset:
    n = PRIVATE + 2 * OTHERS
    rng = Random(3)
    values = {name: rng.integers(3, (n,)) for name in ("place", "secret", "colour")}
    labels = (values["secret"] + (values["place"] == 2)) % 3
    rows = coded(COLUMNS, {**values, "age": 99 * rng.uniform((n,))})
    settings = PartOptions(private=PRIVATE, holdout=OTHERS, known="frequencies")
    return divided("toy-table", Records(SCHEMA, rows, labels, THREE), settings, {})


def problem(samples: Samples) -> str | None:
    """Tell what is wrong with samples that should be a table."""
    if not isinstance(samples, Table):
        return f"samples are {type(samples).__name__}, not a table"
    rows = samples.rows
    if rows.dtype != torch.float32 or not bool(rows.isfinite().all()):
        return "rows are not finite float32"
    if len(rows) and (float(rows.min()) < 0 or float(rows.max()) > 1):
        return "rows lie outside of [0, 1]"
    for column in samples.schema.columns:
        sums = rows[:, samples.schema.spans[column.name]].sum(dim=1)
        allowed = (0.0, 1.0) if column.name == samples.schema.sensitive else (1.0,)
        if not column.is_number and not set(sums.tolist()) <= set(allowed):
            return f"column {column.name} is not one-hot"
    return None


def _noise(n: int, rng: Random) -> Table:
    values = {name: rng.integers(3, (n,)) for name in ("place", "secret", "colour")}
    return Table(coded(COLUMNS, {**values, "age": 99 * rng.uniform((n,))}), SCHEMA)
