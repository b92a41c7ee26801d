"""From a file of a fitted estimator to a target: trees with all access, others only answer."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import joblib
import numpy
import pandas
import torch
from pydantic import Field
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier
from skops import io
from torch import Tensor

from mi_tabular.adapter import TableAdapter
from mi_tabular.table import Table
from mi_tabular.trees import TreeEnsemble
from micore.configs import make_config
from micore.contracts import Config
from micore.errors import ModelError
from micore.external import External, Respond, SourceRequest
from micore.files import digest, file_digest
from micore.threat import Access

PICKLED = (".joblib", ".pkl", ".pickle")


class SklearnConfig(Config):
    """Options of an estimator."""

    takes: Literal["coded", "columns"] = Field(
        "coded", description="what it was fitted on: coded rows of the data set, or a pandas frame with its columns"
    )
    trust: bool = Field(False, description="read the file although it can run code; only for one that you made")


def load(request: SourceRequest) -> External:
    """Open a file of skops, or, if it is trusted, of joblib or pickle.

    A decision tree or random forest on coded rows becomes a network: all access can be granted. Others answer with
    scores, or with labels where they have no ``predict_proba``.

    Raises: UsageError without a data set; ConfigError; ModelError for a file that is none, is not trusted, or does not
    fit the data.
    """
    config = make_config(SklearnConfig, request.options, "the estimator")
    dataset, path = request.require_dataset(), Path(request.place)
    if dataset.modality != "tabular":
        raise ModelError(f"{path}: estimators take tables, and {dataset.name} is of modality {dataset.modality}")
    estimator = _read(path, trusted=config.trust)
    places = _places(estimator, dataset.classes, path)
    card = request.card("sklearn")
    fingerprint = digest("sklearn", file_digest(path), config.takes, card.input.to_dict())
    adapter = TableAdapter(card.input)
    _check_width(estimator, adapter, config.takes, path)
    if config.takes == "coded" and type(estimator) in (DecisionTreeClassifier, RandomForestClassifier):
        trees = TreeEnsemble(len(dataset.classes))
        trees.take(estimator, [estimator.classes_[places.index(place)] for place in range(len(places))])
        return External(card=card, fingerprint=fingerprint, module=trees)
    respond = _responding(estimator, places, adapter, config.takes, path)
    respond(torch.zeros(2, adapter.schema.width) if config.takes == "coded" else _some(request, adapter))
    access = Access.SCORES if hasattr(estimator, "predict_proba") else Access.LABEL
    return External(card=card, fingerprint=fingerprint, respond=respond, access=access)


def _some(request: SourceRequest, adapter: TableAdapter) -> Tensor:
    """Return two public rows to try an estimator on; this is no query of the adversary's."""
    return adapter(request.require_dataset().split("public").take([0, 1]))


def _read(path: Path, *, trusted: bool) -> Any:
    if not path.is_file():
        raise ModelError(f"{path} is no file", hint="--model sklearn:FILE")
    try:
        if path.suffix in PICKLED:
            if not trusted:
                raise ModelError(
                    f"{path} can run code when it is read", hint="-M trust=true if you made it; files of skops cannot"
                )
            return joblib.load(path)
        unknown = io.get_untrusted_types(file=path)
        if unknown and not trusted:
            raise ModelError(
                f"{path} holds what skops does not know: {', '.join(unknown[:4])}", hint="-M trust=true if you made it"
            )
        return io.load(path, trusted=unknown)
    except (OSError, ValueError, TypeError, KeyError, EOFError, BadZipFile, ImportError, AttributeError,
            pickle.UnpicklingError) as error:  # fmt: skip
        raise ModelError(f"{path} is no file of a fitted estimator: {error}") from error


def _places(estimator: Any, classes: tuple[str, ...], path: Path) -> list[int]:
    """Return which class of the data set each class of the estimator is: by name, or by number."""
    own = list(getattr(estimator, "classes_", ()))
    names = [str(name) for name in own]
    if sorted(names) == sorted(classes):
        return [classes.index(name) for name in names]
    if sorted(names) == sorted(str(place) for place in range(len(classes))):
        return [int(name) for name in names]
    raise ModelError(
        f"{path} knows the classes {', '.join(names) or 'of no fitted classifier'}; the data set has "
        f"{', '.join(classes)}",
        hint="a classifier fitted on these labels, or on their numbers",
    )


def _check_width(estimator: Any, adapter: TableAdapter, takes: str, path: Path) -> None:
    names = list(getattr(estimator, "feature_names_in_", ()))
    known = [column.name for column in adapter.schema.columns]
    if takes == "columns":
        missing = [name for name in names if name not in known]
        if missing:
            raise ModelError(f"{path} was fitted on columns that the data set has not: {', '.join(missing[:5])}")
        return
    width = getattr(estimator, "n_features_in_", None)
    if width != adapter.schema.width:
        raise ModelError(
            f"{path} takes {width} numbers of a row; coded, the data set has {adapter.schema.width}",
            hint="-M takes=columns for a pipeline that was fitted on a frame of its columns",
        )


def _responding(estimator: Any, places: list[int], adapter: TableAdapter, takes: str, path: Path) -> Respond:
    """Return the function from coded rows to scores (N, classes) or labels (N,)."""
    frame = _framed(adapter, list(getattr(estimator, "feature_names_in_", ()))) if takes == "columns" else None
    order = numpy.argsort(places)
    numbers = dict(zip(list(estimator.classes_), places, strict=True))

    def respond(inputs: Tensor) -> Tensor:
        rows = inputs.detach().cpu()
        given = rows.numpy() if frame is None else frame(rows)
        try:
            if hasattr(estimator, "predict_proba"):
                return torch.as_tensor(numpy.ascontiguousarray(estimator.predict_proba(given)[:, order])).float()
            return torch.tensor([numbers[name] for name in estimator.predict(given)], dtype=torch.int64)
        except (ValueError, TypeError, KeyError) as error:
            raise ModelError(f"{path} does not take the data set's rows: {error}") from error

    return respond


def _framed(adapter: TableAdapter, names: list[str]) -> Callable[[Tensor], pandas.DataFrame]:
    def frame(rows: Tensor) -> pandas.DataFrame:
        records = pandas.DataFrame(Table(rows, adapter.schema).records())
        return records[names] if names else records

    return frame
