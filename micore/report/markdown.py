"""The report as Markdown: everything but the samples."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from micore.report import facts
from micore.report.figures import figure, number, share
from micore.report.progress import PROGRESS
from micore.report.statements import beats, classes_caption, independence_facts

Document = Mapping[str, Any]

VERDICTS = ("more leakage is", "beats the floor", "floor to ceiling")


def escape(text: object) -> str:
    """Keep text from being read as Markdown or HTML, on one line."""
    plain = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|])", r"\\\1", plain)


def table(columns: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """Write a table; every cell is escaped."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(escape(cell) for cell in line) + " |" for line in lines)


def to_markdown(report: Document) -> str:
    """Render a report document."""
    return "\n\n".join(_parts(report)) + "\n"


def _parts(report: Document) -> Iterator[str]:
    yield f"# Run {escape(report['run']['id'])}: how much does the target give away?"
    yield from _headline(report)
    yield from ("## What was not tested", _bullets(report["not_tested"]))
    yield from ("## Threat model", _facts(facts.threat(report)))
    yield from ("## Target", _facts(facts.target(report)))
    yield from ("## Data", _facts(facts.data(report)))
    yield from ("## Results", *_results(report["results"]))
    yield from _curves(report["curves"])
    yield from _progress(report["progress"])
    yield from ("## Evaluator models", *_judges(report["judges"]))
    yield from ("## By case", *_classes(report["classes"]))
    yield from ("## Cost", _facts(facts.cost(report)), *_costs(report))
    yield from ("## Cases", *_cases(report))
    yield from ("## Samples", "The HTML report shows them.")
    yield from ("## Validity", _bullets(f"{item['level']}: {item['text']}" for item in report["validity"]))
    yield from ("## Reproduction", _code(report["reproduction"]["command"]))
    yield _facts(facts.reproduction(report))
    yield from ("## Glossary", _facts((item["term"], item["text"]) for item in report["glossary"]))


def _headline(report: Document) -> Iterator[str]:
    found, run = report["headline"], report["run"]
    yield f"**{escape(found['text'])}**"
    yield escape(" ".join(filter(None, (found["verdict"], *found["other_judges"], found["scope"]))))
    yield escape(f"Status: {run['status_text']}. Begun {run['created'] or 'at an unknown time'}.")


def _results(results: Document) -> Iterator[str]:
    if not results["rows"]:
        yield "There are no measurements."
        return
    names = [subject["name"] for subject in results["subjects"]]
    columns = ("measurement", "evaluator", *names, "n", results["units"], *VERDICTS)
    yield table(columns, [_result(row, names) for row in results["rows"]])
    yield _facts((subject["name"], subject["text"]) for subject in results["subjects"])


def _result(row: Document, names: Sequence[str]) -> list[object]:
    attack = row["cells"].get("attack", {})
    return [
        row["name"], row["evaluator"], *(figure(row["cells"].get(name)) for name in names),
        attack.get("n", "n/a"), attack.get("clusters", "n/a"), row["direction"], beats(row),
        share(row["reach"]),
    ]  # fmt: skip


def _curves(curves: Sequence[Document]) -> Iterator[str]:
    if not curves:
        return
    yield "## Recovery over steps and queries"
    rows = [
        (
            row["name"],
            row["evaluator"],
            point["step"] or "end",
            f"{point['queries']:,}",
            figure({**point, "interval": _bounds(point)}),
            facts.bounds(row),
        )
        for row in curves
        for point in row["points"]
    ]
    yield table(("measurement", "evaluator", "step", "queries", "value", "floor and ceiling"), rows)
    yield _bullets(f"{row['name']} ({row['evaluator']}): {facts.first_beyond(row)}" for row in curves)


def _progress(series: Sequence[Document]) -> Iterator[str]:
    if not series:
        return
    yield "## What the attack saw of itself"
    yield escape(PROGRESS)
    rows = [
        (row["name"], point["look"], figure({**point, "interval": _bounds(point)}), point["cases"])
        for row in series
        for point in facts.looks(row)
    ]
    yield table(("series", "look", "mean and quartiles", "cases"), rows)


def _costs(report: Document) -> Iterator[str]:
    if report["cost"]["parts"]:
        yield table(facts.PARTS, facts.parts(report))
    yield escape(facts.case_costs_caption(report))
    yield table(facts.CASES, [facts.case_cost(row) for row in facts.case_costs(report)])


def _bounds(point: Document) -> Document | None:
    known = point["low"] is not None and point["high"] is not None
    return {"low": point["low"], "high": point["high"], "level": 0.95} if known else None


def _judges(judges: Document) -> Iterator[str]:
    if not judges:
        yield "No evaluator model took part."
    for name, judge in judges.items():
        checks = [(text, "yes" if holds else "NO") for text, holds in independence_facts(judge)]
        yield f"### {escape(name)}"
        yield _facts([*facts.judge(judge), *(checks or [("independence", "could not be checked")])])


def _classes(classes: Document) -> Iterator[str]:
    yield escape(classes_caption(classes))
    if classes["columns"]:
        names = [f"{column['name']} ({column['evaluator']})" for column in classes["columns"]]
        yield table(
            ("case", "class", "status", *names),
            [
                (row["id"], row["class"] or "n/a", row["status"], *(number(value) for value in row["values"]))
                for row in classes["rows"]
            ]
            + [
                (f"{side}, all cases", "", "", *(_bound(column[side]) for column in classes["columns"]))
                for side in ("floor", "ceiling")
            ],
        )


def _bound(found: Document | None) -> str:
    return f"{found['name']} {number(found['value'])}" if found else "none"


def _cases(report: Document) -> Iterator[str]:
    yield escape(facts.counts(report))
    troubled = report["cases"]["troubled"]
    if troubled:
        rows = [(row["id"], row["status"], row["error"] or "no error recorded") for row in troubled]
        yield table(("case", "status", "error"), rows)


def _facts(pairs: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"- **{escape(label)}**: {escape(text)}" for label, text in pairs)


def _bullets(texts: Iterable[str]) -> str:
    return "\n".join(f"- {escape(text)}" for text in texts) or "none"


def _code(text: str) -> str:
    """Indent a line as code, which no text in it can end."""
    return "    " + " ".join(text.split())
