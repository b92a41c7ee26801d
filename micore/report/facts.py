"""The sections that are lists of facts: label and text, the same in every rendering."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from micore.kit.statistics import wilson
from micore.report import words
from micore.report.figures import MISSING, duration, figure, number, plural, size

Document = Mapping[str, Any]
Fact = tuple[str, str]


def threat(report: Document) -> list[Fact]:
    """Return what the adversary was, knew and spent."""
    threat_, cases = report["threat"], report["cases"]["total"]
    attack, access, public = threat_["attack"], threat_["access"], threat_["public_samples"]
    return [
        ("attack", f"{attack['name']}: {attack['summary']}"),
        ("paper", attack["paper"] or "none named"),
        ("package", f"{attack['distribution'] or 'unknown'} {attack['version'] or ''}".strip()),
        ("goal", f"{threat_['goal']}: {threat_['goal_text']}"),
        *(
            [("evidence", f"{threat_['evidence']} (what the adversary held of each case)")]
            if threat_["evidence"]
            else []
        ),
        ("access granted", f"{access['granted']}. {access['text']}"),
        ("access used", access["used"] or "none recorded"),
        ("public data", "none" if public is None else f"{plural(public, 'sample')} that the adversary held"),
        ("settings", f"preset {threat_['preset']}; {_settings(threat_['config'])}"),
        ("budget", _budget(threat_["budget"])),
        *_spending(threat_["spending"], cases),
    ]


def _budget(limits: Document) -> str:
    queries, seconds = limits["queries"], limits["seconds"]
    parts = [plural(queries, "query", "queries")] if queries is not None else []
    parts += [duration(seconds)] if seconds is not None else []
    return " and ".join(parts) or "no limit"


def _spending(spending: Document | None, cases: int) -> Iterator[Fact]:
    if spending is None:
        yield ("queries", "not recorded: the run did not end")
        return
    for kind in ("queries", "gradients"):
        shared = spending["shared"][kind] - spending["preparation"][kind]
        yield (
            kind,
            f"{spending['total'][kind]:,} in all: preparation {spending['preparation'][kind]:,}, "
            f"{plural(cases, 'case')} {spending['cases'][kind]:,}, shared by cases {shared:,}",
        )


def target(report: Document) -> list[Fact]:
    """Return what is known of the target."""
    target_ = report["target"]
    return [
        ("origin", target_["uri"]),
        ("fingerprint", target_["fingerprint"]),
        ("architecture", _use(target_["architecture"])),
        ("role", target_["role"]),
        ("classes", str(target_["classes"])),
        ("input", " × ".join(str(size) for size in target_["input"]["shape"])),  # noqa: RUF001 - a real times sign
        *_qualities(target_),
        ("trained on", str(target_["data"].get("name") or target_["data"].get("uri") or "not said")),
        ("training", _settings(target_["training"])),
        ("defenses", "; ".join(_use(use) for use in target_["defenses"]) or "none"),
        ("seed", str(target_["seed"])),
    ]


def _qualities(target_: Document) -> list[Fact]:
    """Return how good the target is: its accuracy, or the figures that its card has of another role."""
    metrics = target_["metrics"]
    if target_["role"] == words.CLASSIFIER:
        return [
            ("held-out accuracy", _accuracy(metrics, "holdout", target_["classes"])),
            ("training accuracy", _accuracy(metrics, "train", target_["classes"])),
        ]
    plain = {name: value for name, value in metrics.items() if isinstance(value, float)}
    return [(name.replace("_", " "), number(value)) for name, value in plain.items()]


def _accuracy(metrics: Document, split: str, classes: int) -> str:
    cell = accuracy(metrics, split)
    if cell is None:
        return "not measured"
    samples = f"n = {cell['n']:,}" if cell["n"] else "n unknown"
    return f"{figure(cell)} ({samples}; chance {number(1 / classes) if classes else MISSING})"


def accuracy(metrics: Document, split: str) -> dict[str, Any] | None:
    """Return a model's accuracy with its Wilson interval; given the model, samples are independent."""
    value, samples = metrics.get(f"{split}_accuracy"), metrics.get(f"{split}_samples")
    if value is None or not 0 <= value <= 1:
        return None
    found = wilson(value * samples, samples) if samples else None
    bounds = {"low": found.low, "high": found.high, "level": found.level} if found else None
    return {"value": value, "interval": bounds, "n": samples}


def data(report: Document) -> list[Fact]:
    """Return what is known of the data and of their overlap."""
    data_ = report["data"]
    splits = data_.get("splits", {})
    trained = {True: "yes: same fingerprint", False: "NO: another fingerprint", None: "not known"}
    return [
        ("data set", str(data_.get("name", MISSING))),
        ("opened as", f"{data_.get('uri', MISSING)}; {_settings(data_.get('options', {}))}"),
        ("fingerprint", str(data_.get("fingerprint", MISSING))),
        ("splits", ", ".join(f"{name} {count:,}" for name, count in splits.items()) or "unknown"),
        ("trained the target", trained[data_.get("same_as_target", False)]),
        *overlap(data_["overlap"]),
    ]


def overlap(found: Document | None) -> Iterator[Fact]:
    """Say what the audit of overlap counted, whatever the modality counts."""
    if found is None:
        yield ("overlap audit", "not done")
        return
    plain = {key: value for key, value in found.items() if not isinstance(value, Mapping)}
    if plain:
        yield ("overlap audit", _settings(plain))
    for split, counts in found.items():
        if isinstance(counts, Mapping) and split != "private":
            yield (f"overlap of {split}", _counts(counts))


def _counts(counts: Document) -> str:
    if {"n", "equal", "near"} <= counts.keys():
        equal, near = f"{counts['equal']:,} equal", f"{counts['near']:,} resemble"
        return f"of {plural(counts['n'], 'sample')}, {equal} and {near} a private one"
    return _settings({key: value for key, value in counts.items() if not isinstance(value, (list, Mapping))})


def judge(found: Document) -> list[Fact]:
    """Return what is known of an evaluator model, but for its independence."""
    classes = len(found.get("classes", ()))
    return [
        ("architecture", str(found.get("model", MISSING))),
        ("fingerprint", str(found.get("fingerprint", MISSING))),
        *([("its figures are marked", f"@{found['identity']}")] if "identity" in found else []),
        ("classes it knows", str(classes)),
        ("its own held-out accuracy", _accuracy(found.get("metrics", {}), "holdout", classes)),
        ("seed", str(found.get("seed", MISSING))),
    ]


def cost(report: Document) -> list[Fact]:
    """Return time by stage and the machine."""
    cost_ = report["cost"]
    hardware = cost_["hardware"]
    cached = {True: " (taken from the cache; the time is of its making)", False: "", None: ""}
    return [
        ("training the target", duration(cost_["target_training_s"])),
        ("preparing the attack", duration(cost_["preparation_s"]) + cached[cost_["preparation_cached"]]),
        ("attacking", f"{duration(cost_['attack_s'])} over {plural(cost_['cases_timed'], 'case')}"),
        ("judging, training of judges included", duration(cost_["evaluation_s"])),
        ("from start to end, pauses included", duration(cost_["wall_s"])),
        ("most memory held by preparing and attacking", _memory(cost_["peak_memory_bytes"])),
        ("hardware", f"{hardware.get('device_name', MISSING)} ({_settings(hardware)})"),
    ]


def _memory(peak: Document | None) -> str:
    """Say the peak of the process and, where there is one, that of the accelerator."""
    known = [f"{size(value)} of the {kind}" for kind, value in (peak or {}).items() if value is not None]
    return ", ".join(known) or MISSING


def reproduction(report: Document) -> list[Fact]:
    """Return what a repetition needs besides the command."""
    block = report["reproduction"]
    return [
        ("seed", str(block["seed"])),
        ("target", block["target_fingerprint"]),
        ("data", block["data_fingerprint"] or "unknown"),
        ("preparation", block["preparation_key"] or "none"),
        ("versions", _settings(block["versions"])),
    ]


def counts(report: Document) -> str:
    """Say how many cases ended how."""
    found = ", ".join(f"{count:,} {status}" for status, count in report["cases"]["counts"].items())
    return f"{plural(report['cases']['total'], 'case')}: {found or 'none'}"


def _use(use: Document) -> str:
    return f"{use['name']} ({_settings(use['config'])})" if use.get("config") else str(use["name"])


def _settings(values: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> str:
    return ", ".join(f"{name}={value}" for name, value in dict(values).items()) or "no settings"


def subjects(report: Document) -> list[Fact]:
    """Return what each column of the results is."""
    return [(subject["name"], subject["text"]) for subject in report["results"]["subjects"]]
