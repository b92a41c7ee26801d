"""The words and cells of a benchmark's tables, the same in every rendering."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from micore.report.figures import duration, finite, interval, number, size

Document = Mapping[str, Any]
Render = Callable[[Document | None], str]

WRONG_LABEL = "wrong-label"
PRIOR_SAMPLES = "prior-samples"
UNDEFENDED = "none"

CAPTION = (
    "In brackets: 95 % intervals over classes. Below a figure: its floors, what the same judge gives without any "
    "attack, and its ceiling, what it gives held-out private samples. Bold: the interval lies beyond every floor, also "
    "beyond that of the wrong label. Queries are samples sent forward through the target, gradients samples sent "
    "backward; both include the preparation. Times and memory are those of one process, without judging; a "
    "preparation marked * came from the cache, with the time of its making."
)
SEEDS_CAPTION = (
    "Means over seeds of target and attack, with Student's 95 % intervals, and below them those of floors and ceiling; "
    "the judge of a data set is the same for all."
)
TEXTS: Mapping[str, str] = {
    "finished": "finished", "failed": "failed", "begun": "not finished", "not run": "not run",
    "other settings": "other settings",
}  # fmt: skip


def row_columns(figures: Sequence[Document]) -> list[str]:
    """Return the headings of the table of rows."""
    return [
        "target", "defense", "attack", "seed", "held-out accuracy", *map(figure_heading, figures), "prepare", "attack",
        "queries", "gradients", "peak memory", "status",
    ]  # fmt: skip


def figure_heading(figure: Document) -> str:
    """Name a figure and, where there are several, its judge."""
    return f"{figure['name']}, judge {figure['judge']}" if figure["judge"] else str(figure["name"])


def row_cells(row: Document, figures: Sequence[Document], render: Render) -> list[str]:
    """Return the cells of a row; figures are rendered by the caller."""
    return [
        row["target"], row["defense"], row["attack"], str(row["seed"]), share(row["holdout_accuracy"]),
        *(render(find_figure(row, figure)) for figure in figures), _prepared(row), duration_text(row["attack_s"]),
        count(row["queries"]), count(row["gradients"]), memory(row["peak_memory_bytes"]), _status(row),
    ]  # fmt: skip


def find_figure(row: Document, column: Document) -> Document | None:
    """Return a row's figure of a column."""
    keys = ("name", "evaluator", "judge")
    return next((figure for figure in row["figures"] if all(figure[key] == column[key] for key in keys)), None)


def figure_lines(figure: Document) -> list[str]:
    """Write a figure with its interval, each of its floors, and its ceiling."""
    floors = {name: cell for name, cell in figure["floors"].items() if name != WRONG_LABEL}
    texts = [f"{name} {number(cell['value'])}" for name, cell in floors.items()]
    if PRIOR_SAMPLES not in floors:
        texts.append(f"no {PRIOR_SAMPLES}")
    ceiling = figure["ceiling"]
    return [
        f"{number(figure['value'])} {interval(figure['interval'])}", *texts,
        f"ceiling {number(ceiling['value'])}" if ceiling else "no ceiling",
    ]  # fmt: skip


def span(values: Sequence[float | None]) -> str:
    """Write the lowest and the highest of values, or the one that they all are."""
    known = _known(values)
    return " to ".join(dict.fromkeys(map(number, (min(known), max(known))))) if known else "none"


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None and finite(value) is not None]


def floors_of(figures: Sequence[Document]) -> str:
    """Write between what the hardest floors of figures lie."""
    names = [(figure, figure.get("highest_floor")) for figure in figures]
    return span([figure["floors"][name]["value"] for figure, name in names if name])


def ceilings_of(figures: Sequence[Document]) -> str:
    """Write between what the ceilings of figures lie."""
    return span([figure["ceiling"]["value"] for figure in figures if figure.get("ceiling")])


def seed_columns(figures: Sequence[Document]) -> list[str]:
    """Return the headings of the table over seeds."""
    return ["target", "defense", "attack", "seeds", "held-out accuracy", *map(figure_heading, figures), "attack"]


def seed_cells(row: Document, figures: Sequence[Document], render: Render) -> list[str]:
    """Return the cells of a summary over seeds; figures are rendered by the caller."""
    return [
        row["target"], row["defense"], row["attack"], ", ".join(map(str, row["seeds"])),
        share(row["holdout_accuracy"]),
        *(render(find_figure(row, figure)) for figure in figures), duration_text(row["attack_s"]),
    ]  # fmt: skip


def row_keys(row: Document, figures: Sequence[Document]) -> list[float | None]:
    """Return by what the cells of a row are sorted, from the accuracy to the peak of memory."""
    return [
        _value(row["holdout_accuracy"]), *(_value(find_figure(row, figure)) for figure in figures), row["prepare_s"],
        row["attack_s"], row["queries"], row["gradients"], max(_known([*(row["peak_memory_bytes"] or {}).values()]),
                                                             default=None),
    ]  # fmt: skip


def seed_keys(row: Document, figures: Sequence[Document]) -> list[float | None]:
    """Return by what the cells of a summary over seeds are sorted, from the accuracy to the time."""
    found = (_value(find_figure(row, figure)) for figure in figures)
    return [_value(row["holdout_accuracy"]), *found, row["attack_s"]]


def _value(cell: Document | None) -> float | None:
    return None if cell is None else finite(cell["value"])


LEADING = re.compile(r"-?[\d,]*\.?\d+(e[+-]?\d+)?")


def leading(cell: str) -> str:
    """Return the number that a cell begins with, as scripts read it; the cell itself where it begins with none."""
    found = LEADING.match(cell)
    return found.group().replace(",", "") if found else cell


def mean(figure: Document | None) -> str:
    """Write a mean with its interval."""
    return "" if figure is None else f"{number(figure['value'])} {interval(figure['interval'])}"


def share(cell: Document | None) -> str:
    """Write an accuracy as a percentage with its interval."""
    if cell is None:
        return ""
    bounds = cell["interval"]
    return f"{cell['value']:.1%}" + (f" [{bounds['low']:.1%}, {bounds['high']:.1%}]" if bounds else "")


def count(value: int | None) -> str:
    """Write a number of samples."""
    return "" if value is None else f"{value:,}"


def memory(peak: Document | None) -> str:
    """Write the peak of the process, and of the accelerator where there is one."""
    known = {kind: size(value) for kind, value in (peak or {}).items() if value is not None}
    return ", ".join(f"{value} of the {kind}" if "accelerator" in known else value for kind, value in known.items())


def duration_text(seconds: float | None) -> str:
    """Write a time; nothing for none."""
    return "" if seconds is None else duration(seconds)


def _prepared(row: Document) -> str:
    return duration_text(row["prepare_s"]) + (" *" if row["prepare_cached"] else "")


def _status(row: Document) -> str:
    """Say how a row ended, with the number of cases that have no result."""
    text = TEXTS[row["status"]]
    cases = row["cases"] or {}
    return text + (f", {cases['failed']} of {cases['total']} cases failed" if cases.get("failed") else "")


def status_text(row: Document) -> str:
    """Say why a row has no result."""
    return f"{_status(row)}: {row['error']}"


def judge_rows(document: Document) -> list[list[str]]:
    """Return each judge of each target once: target, number, architecture, identity, held-out accuracy."""
    found: dict[tuple[str, int, str], list[str]] = {}
    for row in document["rows"]:
        for position, judge in enumerate(row["judges"], start=1):
            doubt = "" if judge["independent"] else ", not fully independent"
            cells = [row["target"], str(position), judge["model"] + doubt, judge["identity"],
                     share(judge["holdout_accuracy"])]  # fmt: skip
            found.setdefault((row["target"], position, judge["identity"]), cells)
    return list(found.values())


def overlap_lines(document: Document) -> list[str]:
    """Say for each target what the audit of overlap with its private data counted."""
    found = {row["target"]: row["overlap"] for row in document["rows"] if row.get("overlap")}
    return [f"{target}: " + "; ".join(f"{name}: {text}" for name, text in facts.items())
            for target, facts in found.items()]  # fmt: skip


def machine_lines(document: Document) -> list[str]:
    """Describe the machines, and the rows of a forward pass where they differ."""
    found = [", ".join(f"{key} {value}" for key, value in machine.items()) for machine in document["machines"]]
    settings = sorted(
        {(row["hardware"]["precision"], row["hardware"]["tile"]) for row in document["rows"] if row["hardware"]}
    )
    return [*found, *(f"{precision} with {tile} rows in a forward pass" for precision, tile in settings)]


def version_line(document: Document) -> str:
    """List all versions."""
    return ", ".join(_versions(document["versions"]))


def _versions(versions: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for name, known in versions.items():
        yield f"{name} {' or '.join(known)}"
