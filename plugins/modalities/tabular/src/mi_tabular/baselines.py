"""What the same knowledge gives without the target: floors beside every attack on a sensitive column.

Jayaraman and Evans ("Are Attribute Inference Attacks Just Imputation?", CCS 2022) found that most attacks tell no more
than a model that imputes the column from public rows: so such models stand here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional

from mi_tabular.cases import log_shares, ranked, table_data
from mi_tabular.evidence import known_of, stacked
from mi_tabular.table import Table
from micore.contracts import Case, Dataset, Reconstruction

FREQUENT, LINEAR, BOOSTED = "most-frequent", "imputation-linear", "imputation-boosted"
FLOORS = (FREQUENT, LINEAR, BOOSTED)
LEAST = 20
"""Public rows that a model is learned from at least."""


def floors(cases: Sequence[Case], dataset: Dataset) -> Mapping[str, Sequence[Reconstruction]]:
    """Return for each case what is known of the sensitive column without a target.

    ``most-frequent``: the values by their frequencies. ``imputation-linear``, ``imputation-boosted``: what a logistic
    regression and boosted trees have learned from public rows, of the known columns and the true label (where public
    rows have one). The latter two where public rows hold the sensitive column.
    """
    data = table_data(dataset)
    found = {FREQUENT: [ranked(case, known_of(case).log_frequencies()) for case in cases]}
    values = data.public.table.values()
    is_known = values >= 0
    if int(is_known.sum()) < LEAST or len(values[is_known].unique()) < 2:
        return found
    labels, n_classes = data.public.labels, len(data.classes) if data.public.labels is not None else 0
    learned = told(data.public.table[is_known], labels[is_known] if labels is not None else None, n_classes)
    asked = told(Table(stacked(cases), data.schema), torch.tensor([known_of(case).label for case in cases]), n_classes)
    for name, model in _models().items():
        model.fit(learned, values[is_known].numpy())
        shares = imputed(model, asked, len(data.schema.values))
        found[name] = [ranked(case, row) for case, row in zip(cases, log_shares(shares), strict=True)]
    return found


def _models() -> dict[str, Any]:
    return {
        LINEAR: LogisticRegression(max_iter=2000),
        BOOSTED: HistGradientBoostingClassifier(max_iter=100, random_state=0, early_stopping=False),
    }


def told(table: Table, labels: Tensor | None, n_classes: int) -> numpy.ndarray[Any, Any]:
    """Return what tells of rows, float32 (N, columns): all but the sensitive, and of so many classes the label."""
    known = table.schema.known(table.rows)
    if n_classes and labels is not None:
        known = torch.cat([known, functional.one_hot(labels, n_classes).float()], dim=1)
    found: numpy.ndarray[Any, Any] = known.numpy()
    return found


def imputed(model: Any, columns: Any, n_values: int) -> Tensor:
    """Return what a fitted model of scikit-learn thinks of each value, float64 (N, values); 0: never seen."""
    shares = torch.zeros(len(columns), n_values, dtype=torch.float64)
    shares[:, torch.as_tensor(model.classes_).long()] = torch.as_tensor(model.predict_proba(columns)).double()
    return shares
