"""The modality ``tabular``: samples are tables, rows of columns of which one is sensitive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mi_tabular import baselines, table
from mi_tabular.adapter import TableAdapter
from mi_tabular.augment import augment
from mi_tabular.cases import attribute_cases, truths
from mi_tabular.overlap import measure_overlap
from mi_tabular.previews import export_tables, fragment
from mi_tabular.table import Table
from micore.contracts import Case, Dataset, Reconstruction, Truth
from micore.errors import UsageError
from micore.inputs import InputSpec
from micore.runtime import Random

if TYPE_CHECKING:
    from micore.testing.setting import ToySetting


class TabularModality:
    """How rows fit a model, are stored and are shown (`micore.contracts.Modality`)."""

    def adapter(self, spec: InputSpec) -> TableAdapter:
        """Return the conversion from tables to a model's input.

        Raises: ModelError when the spec is not that of a model of tables.
        """
        return TableAdapter(spec)

    def cases(
        self,
        goal: str,
        dataset: Dataset | None,
        bundle_classes: Sequence[str],
        choice: str | None,
        evidence: str | None = None,
    ) -> list[Case]:
        """Return what a run of goal ``attribute`` attacks: private rows, and rows that the target never saw.

        evidence: ``columns+label``, all columns but the sensitive one, and the true label.

        Raises: UsageError for another goal, and when choice or evidence do not fit.
        """
        if goal != "attribute":
            raise UsageError(f"goal {goal!r} is not there for tables", hint="attribute")
        return attribute_cases(dataset, choice, evidence)

    def truths(self, cases: Sequence[Case], dataset: Dataset) -> Mapping[str, Truth]:
        """Return the whole row behind each case, by case id."""
        return truths(cases, dataset)

    def floors(self, cases: Sequence[Case], dataset: Dataset) -> Mapping[str, Sequence[Reconstruction]]:
        """Return what the evidence gives without the target; see `mi_tabular.baselines.floors`."""
        return baselines.floors(cases, dataset)

    def augment(self, samples: Table, strength: str, rng: Random) -> Table:
        """Change rows at random for training; ``strength``: none, light, medium or strong.

        Raises: UsageError when there is no such strength.
        """
        return augment(samples, strength, rng)

    def pack(self, samples: Table) -> dict[str, Tensor]:
        """Return samples as tensors to store."""
        return table.pack(samples)

    def unpack(self, tensors: Mapping[str, Tensor]) -> Table:
        """Return stored samples."""
        return table.unpack(tensors)

    def join(self, parts: Sequence[Table]) -> Table:
        """Return several groups of samples as one."""
        return table.joined(parts)

    def overlap(self, dataset: Dataset) -> Mapping[str, Any]:
        """Count public and held-out rows that equal private ones; see `measure_overlap`."""
        return measure_overlap(dataset)

    def export(self, samples: Mapping[str, Table], directory: Path) -> list[Path]:
        """Write a CSV file with the rows of each key; return the paths.

        Raises: StorageError.
        """
        return export_tables(samples, directory)

    def show(self, samples: Table, limit: int) -> str:
        """Return a self-contained HTML table of up to ``limit`` rows."""
        return fragment(samples, limit)

    def show_against(self, truth: Table, samples: Table, limit: int) -> str:
        """Return a table of up to ``limit`` rows, with right and wrong sensitive values marked."""
        return fragment(samples, limit, truth)

    def toy(self) -> list[ToySetting]:
        """Return the planted problem that conformance checks attack and defend."""
        from mi_tabular.toy import toys

        return toys()
