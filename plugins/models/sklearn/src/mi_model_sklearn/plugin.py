"""Entry point of the package; imports neither torch nor scikit-learn."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import SourceSpec


@hookimpl
def mi_sources() -> Iterable[SourceSpec]:
    """Describe the scheme."""
    return [
        SourceSpec(
            name="sklearn", target="mi_model_sklearn.loading:load", scheme="sklearn",
            summary="A fitted estimator of scikit-learn: --model sklearn:model.skops --data ...",
        )
    ]  # fmt: skip
