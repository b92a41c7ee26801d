"""Models of tables answer as scikit-learn does, and come back from a bundle; defenses of steps do not fit trees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from mi_tabular.datasets.made import open_made_people
from mi_tabular.networks import decision_tree, logistic_regression, random_forest
from micore.artifacts import PluginUse
from micore.data import DataRequest
from micore.errors import ModelError
from micore.models import restore_network
from micore.registry import Registry
from micore.runtime import Random, Runtime
from micore.training import train

DATA = open_made_people(None, private=300, holdout=200, public=60)
ROWS, LABELS = DATA.private.table.rows, DATA.private.labels
HELD = DATA.holdout.table.rows


@pytest.mark.parametrize(
    ("build", "estimator"),
    [
        (decision_tree, DecisionTreeClassifier), (random_forest, RandomForestClassifier),
        (logistic_regression, LogisticRegression),
    ],
)  # fmt: skip
@pytest.mark.parametrize("n_classes", [2, 3])
def test_answers_are_those_of_scikit_learn(build: Any, estimator: Any, n_classes: int) -> None:
    labels, seed = LABELS.clamp(max=n_classes - 1), Random(5).seed() % 2**32
    module = build(n_classes, DATA.input)
    module.learn(ROWS, labels, Random(5))
    options = {"max_iter": 5000} if estimator is LogisticRegression else {"random_state": seed}
    options |= {"n_estimators": 50} if estimator is RandomForestClassifier else {}
    wanted = estimator(**options).fit(ROWS.numpy(), labels.numpy()).predict_proba(HELD.numpy())
    with torch.no_grad():
        numpy.testing.assert_allclose(module(HELD).softmax(dim=1).numpy(), wanted, atol=2e-4)


def test_leaves_count_the_training_rows_of_each_class() -> None:
    module = decision_tree(3, DATA.input, max_depth=3)
    module.learn(ROWS, LABELS, Random(1))
    leaves = module.leaves(ROWS)[:, 0]
    for leaf in leaves.unique():
        counts = LABELS[leaves == leaf].bincount(minlength=3).float()
        torch.testing.assert_close(module.rows[leaf], counts)
    assert module.n_training_rows == len(ROWS)


def trained(model: str, output: Path | None = None, defenses: tuple[PluginUse, ...] = ()) -> Any:
    runtime = Runtime(device=torch.device("cpu"), seed=1)
    return train(
        Registry.discover(), runtime, data=DataRequest.parse("made-people"), model=PluginUse(name=model),
        defenses=defenses, output=output,
    )  # fmt: skip


def test_a_grown_tree_comes_back_from_its_bundle(tmp_path: Path) -> None:
    bundle = trained("decision-tree", tmp_path / "tree.safetensors")
    module, _ = restore_network(Registry.discover(), bundle.load(tmp_path / "tree.safetensors"))
    data = open_made_people(None)
    with torch.no_grad():
        found = module(data.private.table.rows).argmax(dim=1)
    assert torch.equal(found, data.private.labels)
    assert bundle.card.metrics["train_accuracy"] == 1.0
    assert bundle.card.metrics["holdout_accuracy"] > 0.6


def test_defenses_of_steps_do_not_fit_trees() -> None:
    with pytest.raises(ModelError, match="this model learns at once"):
        trained("decision-tree", defenses=(PluginUse(name="neg-label-smoothing"),))
