"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import DatasetSpec, ModalitySpec, ModelSpec

TRAINING = {"epochs": 60, "batch_size": 128, "learning_rate": 3e-3, "augment": "none"}


@hookimpl
def mi_modalities() -> Iterable[ModalitySpec]:
    return [
        ModalitySpec(
            name="tabular",
            target="mi_tabular.modality:TabularModality",
            summary="Rows of tables: the sensitive value of people whose other columns are known",
            default_dataset="made-people",
            default_model="decision-tree",
            default_attack="csmia",
        )
    ]


@hookimpl
def mi_datasets() -> Iterable[DatasetSpec]:
    return [
        _dataset("made-people", "made:open_made_people", "Drawn people and what their insurance costs, bundled",
                 "Apache-2.0", bundled=True),
        _dataset("csv-table", "files:open_csv_table", "csv-table:PATH, your table, with a label and a sensitive column",
                 "your own"),
        _dataset("adult", "files:open_adult", "Income in a census (UCI Adult); sensitive: married or not", "CC BY 4.0"),
        _dataset("steak", "files:open_steak", "How people like their steak; sensitive: cheated or not", "CC BY 4.0"),
        _dataset("happy", "files:open_happy", "Happiness in the General Social Survey; sensitive: married or not",
                 "see NORC; with citation"),
        _dataset("warfarin", "files:open_warfarin", "Doses of warfarin; sensitive: a genotype", "CC BY-SA 4.0"),
    ]  # fmt: skip


def _dataset(name: str, opener: str, summary: str, licence: str, *, bundled: bool = False) -> DatasetSpec:
    return DatasetSpec(
        name=name, target=f"mi_tabular.datasets.{opener}", summary=summary, modality="tabular", licence=licence,
        bundled=bundled,
    )  # fmt: skip


@hookimpl
def mi_models() -> Iterable[ModelSpec]:
    return [
        _model("tabular-mlp", "tabular_mlp", "A perceptron on coded rows"),
        _model("decision-tree", "decision_tree", "A decision tree of scikit-learn", "Breiman et al., 1984"),
        _model("random-forest", "random_forest", "A random forest of scikit-learn", "Breiman, 2001"),
        _model("logistic-regression", "logistic_regression", "A logistic regression of scikit-learn"),
    ]


def _model(name: str, builder: str, summary: str, paper: str | None = None) -> ModelSpec:
    return ModelSpec(
        name=name, target=f"mi_tabular.networks:{builder}", summary=summary, paper=paper, modality="tabular",
        training=TRAINING,
    )  # fmt: skip
