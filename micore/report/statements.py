"""The sentences of a report: the headline, its scope, what was not tested, what a reader must doubt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from micore.report import words
from micore.report.facts import accuracy
from micore.report.figures import figure, plural, share

Document = Mapping[str, Any]


def headline(report: Document) -> dict[str, Any]:
    """Say the main figure with its interval, floor and ceiling, and how far it carries."""
    row = next((row for row in report["results"]["rows"] if row["main"]), None)
    return {
        "text": _no_figure(report) if row is None else _main_figure(report, row),
        "verdict": None if row is None else verdict(row),
        "other_judges": [] if row is None else list(_other_judges(report, row)),
        "scope": _scope(report, row),
        "row": None if row is None else {"name": row["name"], "evaluator": row["evaluator"]},
    }


def _no_figure(report: Document) -> str:
    cases, name = report["cases"], report["threat"]["attack"]["name"]
    if not cases["recovered"]:
        return (
            f"Nothing was recovered: attack {name} gave no reconstruction for any of "
            f"{plural(cases['total'], 'case')}, so nothing was measured. "
            "This is no evidence that the target is safe."
        )
    return (
        f"Attack {name} gave reconstructions for {cases['recovered']} of {plural(cases['total'], 'case')}, "
        "but no evaluator has judged them: nothing is known of leakage."
    )


def _main_figure(report: Document, row: Document) -> str:
    threat, cell = report["threat"], row["cells"]["attack"]
    who = "Negative control" if threat["control"] else "Attack"
    return (
        f"{who} {threat['attack']['name']} reaches {row['name']} {figure(cell)} "
        f"({row['direction_text']}; n = {cell['n']}, {plural(cell['clusters'], *words.units(threat['goal']))}); "
        f"{_floor(row)}; {_ceiling(row)}."
    )


def _floor(row: Document) -> str:
    if row["highest_floor"] is None:
        return "no floor was measured"
    return f"floor {row['highest_floor']} {figure(row['cells'][row['highest_floor']])}"


def _ceiling(row: Document) -> str:
    if row["ceiling"] is None:
        return "no ceiling was measured"
    return f"ceiling {row['ceiling']} {figure(row['cells'][row['ceiling']])}"


def verdict(row: Document) -> str:
    """Say whether the figure is beyond its floors."""
    if row["direction"] not in ("up", "down"):
        return "This figure says nothing of leakage by itself."
    if row["beats_floor"] is None:
        return "Whether it beats a floor cannot be said: an interval or a floor is missing."
    side = "above" if row["direction"] == "up" else "below"
    if not row["beats_floor"]:
        return f"Its interval does not lie entirely {side} every floor: this figure shows no leakage."
    text = f"Its interval lies entirely {side} every floor"
    if row["overlaps_floor"]:
        return text + ", but meets a floor's own interval: weak evidence of leakage."
    return text + ": the target gave something of these cases away."


def _same_figure(report: Document, row: Document) -> list[Document]:
    """Return the rows of the same measurement by other judges."""
    kind = row["evaluator"].partition("@")[0]
    return [
        other for other in report["results"]["rows"]
        if other is not row and other["name"] == row["name"] and other["evaluator"].partition("@")[0] == kind
    ]  # fmt: skip


def _other_judges(report: Document, row: Document) -> Iterator[str]:
    for other in _same_figure(report, row):
        if "attack" in other["cells"]:
            yield (
                f"Judged by {other['evaluator']}: {other['name']} {figure(other['cells']['attack'])}; {_floor(other)}; "
                f"{_ceiling(other)}. Beats the floor: {beats(other)}."
            )


def beats(row: Document) -> str:
    """Say whether a row's attack beats its floors: yes, no, or why that cannot be said."""
    if row["direction"] not in ("up", "down"):
        return "no direction"
    if row["beats_floor"] is None:
        return "no floor" if not row["floors"] else "no interval"
    if not row["beats_floor"]:
        return "no"
    return "yes, but meets a floor's interval" if row["overlaps_floor"] else "yes"


def _scope(report: Document, row: Document | None) -> str:
    target, threat, cases = report["target"], report["threat"], report["cases"]
    judge = f", judged by {row['evaluator']}" if row else ""
    return (
        f"One attack with {threat['access']['granted']} access and one seed, on one trained "
        f"{_kind(target)}; {cases['recovered']} of "
        f"{plural(cases['total'], 'attacked case')} gave a reconstruction{judge}. It bounds leakage "
        "from below only: another attack, budget or evaluator may show more."
    )


def _kind(target: Document) -> str:
    """Say what the target is: a classifier by its classes, anything else by its role."""
    if target["role"] != words.CLASSIFIER:
        return f"target, a {target['role']}"
    return f"target of {plural(target['classes'], 'class', 'classes')}"


# what was not tested -------------------------------------------------------------------------------


def not_tested(report: Document) -> list[str]:
    """List what a reader could wrongly take for tested."""
    return list(_untested(report))


def _untested(report: Document) -> Iterator[str]:
    threat, target, cases = report["threat"], report["target"], report["cases"]
    yield f"Any attack but {threat['attack']['name']}, and any of its settings but these."
    if threat["access"]["granted"] != "white-box":
        yield f"Adversaries with more than {threat['access']['granted']} access."
    else:
        yield "Whether less than white-box access would do."
    if threat["goal"] == "class" and cases["total"] < target["classes"]:
        left = target["classes"] - cases["total"]
        yield f"{plural(left, 'class', 'classes')} of {target['classes']}: not attacked."
    if threat["goal"] == "class":
        yield "Recovery of single training records: a class representative is no copy of one."
    if threat["goal"] == "instance":
        left = report["data"].get("splits", {}).get("private", cases["total"]) - cases["total"]
        if left > 0:
            yield f"{plural(left, 'private sample')} of {left + cases['total']:,}: not attacked."
        yield f"Adversaries who hold other evidence than here ({threat['evidence'] or 'not said'})."
    yield "Other seeds, and other targets trained in the same way: the interval does not cover them."
    if target["defenses"]:
        yield "Attacks adapted to the target's defenses."
    if any(value is not None for value in threat["budget"].values()):
        yield "What more than the set budget would recover."
    yield "Adversaries whose public data lie nearer to the private data than here."
    yield "Whether people would recognise what was recovered."


# what a reader must doubt --------------------------------------------------------------------------


def validity(report: Document, notes: Sequence[str]) -> list[dict[str, str]]:
    """List what limits the figures, each as ``warning`` or ``note``."""
    checks = (_run_warnings, _target_warnings, _result_warnings, _judge_warnings, _overlap_warnings)
    warnings = [text for check in checks for text in check(report)]
    remarks = [*notes, *_evaluator_notes(report)]
    return [{"level": "warning", "text": text} for text in warnings] + [
        {"level": "note", "text": text} for text in dict.fromkeys(remarks)
    ]


def _run_warnings(report: Document) -> Iterator[str]:
    run, cases, counts = report["run"], report["cases"], report["cases"]["counts"]
    if not run["complete"]:
        yield f"The run did not finish: {run['status_text']}." + (f" {run['error']}" if run["error"] else "")
    if counts.get("failed"):
        failed = plural(counts["failed"], "case")
        yield f"{failed} of {cases['total']} failed; no figure includes failed cases."
    if counts.get("partial"):
        stopped = plural(counts["partial"], "case")
        yield f"{stopped} of {cases['total']} stopped early; their best so far is in the figures."
    unattacked = cases["total"] - cases["recovered"] - counts.get("failed", 0)
    if unattacked:
        yield f"{plural(unattacked, 'case')} of {cases['total']} not attacked: no figure includes them."
    same = report["data"].get("same_as_target", False)
    if same is None:
        yield "Whether the target was trained on this data set is not known: if not, figures refer to other data."
    elif not same:
        yield "The data set is not the one that the target was trained on: figures refer to other data."
    if report["threat"]["control"]:
        yield "This attack is a negative control: its figures are a floor, not leakage."


def _target_warnings(report: Document) -> Iterator[str]:
    target = report["target"]
    right = accuracy(target["metrics"], "holdout") if target["role"] == words.CLASSIFIER else None
    if right and right["interval"] and target["classes"] > 1 and right["interval"]["low"] <= 1 / target["classes"]:
        yield (
            f"The target is right on {share(right['value'])} of {plural(right['n'], 'held-out sample')}, which may be "
            "chance: its classes may be in another order than the data set's, or its input in another form."
        )


def _result_warnings(report: Document) -> Iterator[str]:
    rows = report["results"]["rows"]
    if not rows:
        yield "There are no measurements."
        return
    if not any(row["floors"] for row in rows):
        yield "No floor was measured: no figure here can show leakage."
    if not any(row["ceiling"] for row in rows):
        yield "No held-out data: there is no ceiling to read the figures against."
    if report["target"]["classes"] == 1 and report["target"]["role"] == words.CLASSIFIER:
        yield "The target has one class: wrong-label is no floor here, and a classifier judges nothing."
    judged = [row["cells"]["attack"] for row in rows if "attack" in row["cells"]]
    clusters = min((cell["clusters"] for cell in judged), default=None)
    if clusters is not None and clusters < 10:
        units = plural(clusters, *words.units(report["threat"]["goal"]))
        yield f"Figures rest on {units}; below ten, intervals are too narrow."
    yield from _row_warnings(rows)
    main = next((row for row in rows if row["main"]), None)
    if main is not None and any(other["beats_floor"] != main["beats_floor"] for other in _same_figure(report, main)):
        yield f"Judges disagree on whether {main['name']} beats its floors: quote both figures."


def _row_warnings(rows: Sequence[Document]) -> Iterator[str]:
    for row in rows:
        name = f"{row['name']} ({row['evaluator']})"
        bounds = row["cells"].get("attack", {}).get("interval")
        if bounds and bounds["low"] == bounds["high"]:
            yield f"{name}: an interval without width claims more certainty than there is."
        if row["ceiling_beyond_floor"] is False:
            yield f"{name}: the ceiling is not beyond the floors, so it cannot tell leakage from none."


def _judge_warnings(report: Document) -> Iterator[str]:
    for name, judge in report["judges"].items():
        if not judge.get("independence"):
            yield f"{name}: independence from the target could not be checked."
        elif not judge["independence"].get("weights", True):
            yield f"{name}: self-graded. The judge has the target's own weights; its figures show nothing."
        elif not judge.get("independent"):
            shared = ", ".join(fact for fact, holds in judge["independence"].items() if not holds)
            yield f"{name}: not fully independent; it shares with the target: {shared}."


def _overlap_warnings(report: Document) -> Iterator[str]:
    overlap = report["data"]["overlap"]
    if overlap is None:
        yield "Overlap of the adversary's data with the private data was not checked."
        return
    splits = {name: counts for name, counts in overlap.items() if isinstance(counts, Mapping)}
    splits.pop("private", None)
    for split, counts in (splits or {"the public data": overlap}).items():
        hits = counts.get("equal", 0) + counts.get("near", 0)
        if hits:
            part = share(hits / counts["n"]) if counts.get("n") else "some"
            yield (
                f"{plural(hits, 'sample')} of {split} ({part}) equal or resemble private ones: "
                "the setting itself leaks."
            )


def _evaluator_notes(report: Document) -> Iterator[str]:
    for item in report["results"]["notes"]:
        names, subjects = ", ".join(item["names"]), ", ".join(item["subjects"])
        yield f"{item['evaluator']}, {names} ({subjects}): {item['note']}"


def independence_facts(judge: Document) -> list[tuple[str, bool]]:
    """Return each fact of a judge's independence in words, and whether it holds."""
    facts: Mapping[str, bool] = judge.get("independence") or {}
    return [(words.FACTS.get(fact, fact), bool(holds)) for fact, holds in facts.items()]


def classes_caption(classes: Document) -> str:
    """Say what the table by case holds."""
    if not classes["columns"]:
        return "No figure was measured by case."
    order = f", most leakage by {classes['ordered_by']} first" if classes["ordered_by"] else ""
    if classes["extremes"]:
        ends = classes["extremes"]
        return f"The {ends} cases with most, the {ends} with least leakage, of {classes['total']}{order}."
    return f"All {classes['total']} cases{order}. Single cases have no interval."
