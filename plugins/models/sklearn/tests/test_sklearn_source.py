"""Estimators as targets: the answers are theirs, whatever file and columns they come with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import joblib
import numpy
import pandas
import pytest
import torch
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.svm import LinearSVC
from skops import io

from mi_model_sklearn.loading import load
from mi_tabular.datasets.made import open_made_people
from micore.errors import ModelError
from micore.external import External, SourceRequest
from micore.runtime import Runtime
from micore.threat import Access

DATA = open_made_people(None, private=120, holdout=60, public=60)
ROWS, LABELS = DATA.private.table.rows, DATA.private.labels
NAMES = numpy.array(DATA.classes)[LABELS.numpy()]


def stored(estimator: Any, path: Path) -> Path:
    io.dump(estimator, path)
    return path


def opened(path: Path, **options: object) -> External:
    runtime = Runtime(device=torch.device("cpu"))
    return load(SourceRequest(uri=f"sklearn:{path}", runtime=runtime, options=options, dataset=DATA))


def test_scores_are_in_the_order_of_the_data_sets_classes(tmp_path: Path) -> None:
    model = LogisticRegression(max_iter=500).fit(ROWS.numpy(), NAMES)  # its classes stand in the alphabet's order
    target = opened(stored(model, tmp_path / "model.skops"))
    assert target.respond is not None
    scores = target.respond(ROWS)
    wanted = model.predict_proba(ROWS.numpy())[:, [list(model.classes_).index(name) for name in DATA.classes]]
    numpy.testing.assert_allclose(scores.numpy(), wanted, rtol=1e-5)
    assert target.highest_access == Access.SCORES


def test_a_forest_becomes_a_network_that_answers_alike(tmp_path: Path) -> None:
    model = RandomForestClassifier(7, random_state=0).fit(ROWS.numpy(), NAMES)
    path = stored(model, tmp_path / "model.skops")
    with pytest.raises(ModelError, match="what skops does not know"):
        opened(path)
    target = opened(path, trust=True)
    assert target.module is not None
    held = DATA.holdout.table.rows
    scores = target.module(held).softmax(dim=1).detach().numpy()
    wanted = model.predict_proba(held.numpy())[:, [list(model.classes_).index(name) for name in DATA.classes]]
    numpy.testing.assert_allclose(scores, wanted, atol=1e-4)
    assert target.highest_access == Access.WHITE_BOX


def test_a_pipeline_gets_a_frame_with_the_columns_it_was_fitted_on(tmp_path: Path) -> None:
    frame = pandas.DataFrame(DATA.private.table.records())
    model = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["condition", "sport"]), ("passthrough", ["age"])),
        LogisticRegression(max_iter=2000),
    ).fit(frame, NAMES)
    target = opened(stored(model, tmp_path / "model.skops"), takes="columns")
    assert target.respond is not None
    places = [list(model.classes_).index(name) for name in DATA.classes]
    numpy.testing.assert_allclose(target.respond(ROWS).numpy(), model.predict_proba(frame)[:, places], rtol=1e-4)


def test_an_estimator_without_probabilities_grants_labels(tmp_path: Path) -> None:
    model = LinearSVC().fit(ROWS.numpy(), LABELS.numpy())
    target = opened(stored(model, tmp_path / "model.skops"))
    assert target.respond is not None
    assert target.highest_access == Access.LABEL
    assert target.respond(ROWS).tolist() == model.predict(ROWS.numpy()).tolist()


def test_a_pickle_is_read_only_when_it_is_trusted(tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump(LogisticRegression(max_iter=500).fit(ROWS.numpy(), NAMES), path)
    with pytest.raises(ModelError, match="can run code") as caught:
        opened(path)
    assert "trust=true" in str(caught.value)
    assert opened(path, trust=True).respond is not None


@pytest.mark.parametrize(
    ("labels", "width", "message"),
    [(["x", "y", "z"], 19, "knows the classes x, y, z"), (["low", "medium", "high"], 5, "takes 5 numbers")],
)
def test_estimators_of_other_data_are_refused(tmp_path: Path, labels: list[str], width: int, message: str) -> None:
    model = LogisticRegression().fit(ROWS.numpy()[:90, :width], numpy.resize(labels, 90))
    with pytest.raises(ModelError, match=message):
        opened(stored(model, tmp_path / "model.skops"))


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.skops").write_text("no zip")
    with pytest.raises(ModelError, match="no file of a fitted estimator"):
        opened(tmp_path / "model.skops")
    with pytest.raises(ModelError, match="is no file"):
        opened(tmp_path / "missing.skops")
