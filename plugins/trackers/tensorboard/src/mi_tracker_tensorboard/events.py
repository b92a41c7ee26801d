"""What is written for TensorBoard, and when.

``MI_TENSORBOARD_DIR`` says where; without it nothing is imported or written. Each run has a folder of its own there,
named after it, with an event file of each of its processes and sittings; TensorBoard shows them as one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from micore.kit.tracking import case_index, figures, identity, leads, parameters, recovered

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from micore.contracts import Case, Reconstruction
    from micore.runs import Run

PLACE = "MI_TENSORBOARD_DIR"
REPORT = "report.md"
"""Without samples; the other report shows what was recovered."""


def started(run: Run) -> None:
    """Write the parameters as a table."""
    folder = _folder(run)
    if folder is not None and leads():
        writer = _writer(folder)
        writer.add_text("parameters", _table(parameters(run)))
        writer.flush()


def case_done(run: Run, case: Case, reconstruction: Reconstruction) -> None:
    """Write the attack's own curves and its final score for a case."""
    folder = _folder(run)
    if folder is None:
        return
    writer = _writer(folder)
    for name, values in reconstruction.history.items():
        for step, value in enumerate(values):
            writer.add_scalar(f"{name}/{case.id}", value, step)
    if len(reconstruction.scores):
        writer.add_scalar("case/score", float(reconstruction.scores[0]), case_index(run, case.id))
    writer.flush()


def finished(run: Run) -> None:
    """Write what was measured and the report, and close the file."""
    folder = _folder(run)
    if folder is None:
        return
    writer, numbers = _writer(folder), figures(run)
    for name, value in numbers.items():
        writer.add_scalar(name, value, recovered(run))
    _offer_comparison(writer, parameters(run), numbers)
    writer.add_text("report", (run.directory / REPORT).read_text(encoding="utf-8"))
    writer.close()


def _folder(run: Run) -> Path | None:
    place = os.environ.get(PLACE, "")
    return Path(place) / f"{run.id}-{identity(run)[:8]}" if place else None


@cache  # hooks are functions: the open file of a run stands here; a closed one opens another when it is written to
def _writer(folder: Path) -> SummaryWriter:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder))


def _offer_comparison(writer: SummaryWriter, values: Mapping[str, str], numbers: Mapping[str, float]) -> None:
    """Write what the tab HPARAMS reads; `SummaryWriter.add_hparams` would open another run for it."""
    from torch.utils.tensorboard.summary import hparams

    measured = {name: number for name, number in numbers.items() if name.endswith("/attack/value")}
    for summary in hparams(dict(values), measured):
        writer._get_file_writer().add_summary(summary)


def _table(values: Mapping[str, str]) -> str:
    rows = [f"| {name} | {value} |" for name, value in values.items()]
    return "\n".join(["| parameter | value |", "|---|---|", *rows])
