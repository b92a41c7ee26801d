"""A run and its gates as JUnit XML, which pipelines show as tests."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as Tree

from micore.report import facts
from micore.report.gates import FAILED, UNDECIDED, Outcome

Document = Mapping[str, Any]

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML cannot hold, escaped or not."""


def to_junit(report: Document, outcomes: Sequence[Outcome]) -> str:
    """Render a suite named after the run: a test case that says whether it came to its end, and one for each gate.

    outcomes: of `micore.report.gates.check_gates`. A gate that does not pass is a failure, one that cannot be decided
    an error.
    """
    counts = {status: str(sum(case.status == status for case in outcomes)) for status in (FAILED, UNDECIDED)}
    numbers = {"tests": str(len(outcomes)), "failures": counts[FAILED], "errors": counts[UNDECIDED], "skipped": "0"}
    top = Tree.Element("testsuites", {"name": "micore", **numbers})
    suite = Tree.SubElement(top, "testsuite", {"name": _clean(report["run"]["id"]), **numbers, **_time(report)})
    properties = Tree.SubElement(suite, "properties")
    for name, value in _properties(report).items():
        Tree.SubElement(properties, "property", {"name": name, "value": _clean(str(value))})
    for case in outcomes:
        _add(suite, report, case)
    Tree.SubElement(suite, "system-out").text = _clean(_words(report))
    Tree.indent(top)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Tree.tostring(top, encoding="unicode") + "\n"


def _time(report: Document) -> dict[str, str]:
    created, seconds = report["run"]["created"], report["cost"]["wall_s"]
    found = {"timestamp": str(created).partition("+")[0]} if created else {}
    return found | ({"time": f"{seconds:.3f}"} if seconds is not None else {})


def _properties(report: Document) -> dict[str, Any]:
    threat, block = report["threat"], report["reproduction"]
    return {
        "attack": threat["attack"]["name"], "access": threat["access"]["granted"], "seed": block["seed"],
        "target": block["target_fingerprint"], "data": block["data_fingerprint"], "command": block["command"],
        **dict(facts.overlap(report["data"]["overlap"])),
    }  # fmt: skip


def _add(suite: Tree.Element, report: Document, outcome: Outcome) -> None:
    kind = _clean(f"micore.{report['threat']['attack']['name']}")
    case = Tree.SubElement(suite, "testcase", {"classname": kind, "name": _clean(outcome.name)})
    text = _clean("\n".join(outcome.details))
    if outcome.status in (FAILED, UNDECIDED):
        tag = "failure" if outcome.status == FAILED else "error"
        Tree.SubElement(case, tag, {"message": text.replace("\n", "; "), "type": outcome.status}).text = text
    else:
        Tree.SubElement(case, "system-out").text = text


def _words(report: Document) -> str:
    head = report["headline"]
    return "\n".join(filter(None, (head["text"], head["verdict"], *head["other_judges"], head["scope"])))


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
