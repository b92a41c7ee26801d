"""Reports of runs: JSON, Markdown, CSV, JUnit and one self-contained HTML file.

This module imports nothing of `micore.runs`, which imports it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from micore.errors import UsageError
from micore.files import write_json, write_text

if TYPE_CHECKING:
    from micore.contracts import Dataset, Modality
    from micore.runs.store import Run

__all__ = ["FORMATS", "document", "render", "write_report"]

FORMATS = ("html", "markdown", "json", "csv", "junit")


def document(run: Run) -> dict[str, Any]:
    """Return the report as JSON values (schema ``micore.report/1``), without any sample.

    Raises: RunError when the run directory is damaged.
    """
    from micore.report.model import build

    return build(run)


def render(
    run: Run,
    format: str,
    *,
    modality: Modality | None = None,
    dataset: Dataset | None = None,
    show_private: bool = False,
    redact: bool = False,
    evidence: bool = True,
    blurred: bool = False,
    gates: Sequence[str] = (),
) -> str:
    """Return the report as ``html``, ``markdown``, ``json``, ``csv`` or ``junit``; only HTML holds samples.

    modality: shows the samples, without it there are none; dataset: where the private samples come
    from that ``show_private`` puts beside the recovered ones; ``redact`` leaves out every sample,
    ``evidence=False`` what the adversary held of each case; ``blurred`` shows what was recovered too coarsely
    to recognise anybody, and neither private samples nor evidence;
    gates: conditions such as ``accuracy > floor + 0.1``, each a test case of JUnit.

    Raises: UsageError for an unknown format or gate; RunError when the run directory is damaged.
    """
    if format not in FORMATS:
        raise UsageError(f"unknown report format {format!r}", hint="one of " + ", ".join(FORMATS))
    content = document(run)
    if format == "json":
        import json

        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    if format != "html":
        return _plain(content, format, gates)
    from micore.report.gallery import pictures
    from micore.report.html import to_html

    private = dataset if show_private else None
    shown = pictures(run, modality, private, redact=redact, evidence=evidence, blurred=blurred)
    return to_html(content, shown)


def _plain(content: dict[str, Any], format: str, gates: Sequence[str]) -> str:
    if format == "markdown":
        from micore.report.markdown import to_markdown

        return to_markdown(content)
    if format == "csv":
        from micore.report.rows import to_csv

        return to_csv(content)
    from micore.report.gates import check_gates
    from micore.report.junit import to_junit

    return to_junit(content, check_gates(content, gates))


def write_report(run: Run, modality: Modality | None, dataset: Dataset | None, *, show_private: bool = False) -> None:
    """Write ``report.html``, ``report.md`` and ``report.json`` into the run directory, each atomically.

    No private sample is written unless ``show_private``: ``mi report --show-private`` does that, when a person asks for
    it, and demonstrations do, whose data belong to nobody.

    Raises: StorageError; RunError when the run directory is damaged.
    """
    write_json(run.directory / "report.json", document(run))
    write_text(run.directory / "report.md", render(run, "markdown"))
    page = render(run, "html", modality=modality, dataset=dataset, show_private=show_private)
    write_text(run.directory / "report.html", page)
