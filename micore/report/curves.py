"""Recovery over queries: what the attack would have recovered, had its budget ended earlier."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from micore.contracts import Measurement
from micore.report.figures import finite
from micore.report.findings import Finding

if TYPE_CHECKING:
    from micore.runs.store import Run

Document = dict[str, Any]

SIZE_INCHES = (6.0, 3.2)
PANELS_ABREAST = 3
MARKERS = ("o", "s", "^", "D")
ORDERS = 20
"""The largest number of queries over the smallest from which an axis is logarithmic."""


def curves(run: Run, found: Sequence[Finding]) -> list[Document]:
    """Return a curve for each figure whose attack has earlier stands, from the first to what it gave in the end.

    A point has the number of its stand (its step; None for the end), the queries of the whole run at that stand, and
    the value with its interval.
    """
    from micore.runs.subjects import ATTACK

    stood = stands(run.measurements())
    if not stood:
        return []
    queries, rows = spent(run), []
    for item in found:
        earlier = stood.get((item.evaluator, item.name), {})
        if not earlier or item.attack is None:
            continue
        points = [
            _point(queries[index], earlier[index], index + 1) for index in sorted(earlier) if index < len(queries)
        ]
        floor = item.highest_floor
        points = [*points, _point(total(run), item.subjects[ATTACK], None)]
        rows.append(
            {
                "name": item.name, "evaluator": item.evaluator, "unit": item.unit, "direction": item.direction,
                "points": points,
                "floor": _bound(floor), "ceiling": _bound(item.subjects.get(item.ceiling) if item.ceiling else None),
                "first_beyond_floor": _first_beyond(points, item.direction, floor),
            }
        )  # fmt: skip
    return rows


def _bound(item: Measurement | None) -> Document | None:
    return {"name": item.subject, "value": finite(item.value)} if item else None


def _first_beyond(points: Sequence[Document], direction: str, floor: Measurement | None) -> int | None:
    """Return the queries at the first stand whose whole interval lies beyond the floor; None: at none of them."""
    near = {"up": "low", "down": "high"}.get(direction)
    if floor is None or near is None:
        return None
    sign = 1 if direction == "up" else -1
    beyond = (item["queries"] for item in points if item[near] is not None and sign * (item[near] - floor.value) > 0)
    return next(beyond, None)


def stands(measurements: Iterable[Measurement]) -> dict[tuple[str, str], dict[int, Measurement]]:
    """Group the measurements of earlier stands by figure, then by the stand's number."""
    from micore.runs.subjects import SNAPSHOT

    found: dict[tuple[str, str], dict[int, Measurement]] = {}
    for item in measurements:
        if item.subject.startswith(SNAPSHOT):
            number = int(item.subject.removeprefix(SNAPSHOT))
            found.setdefault((item.evaluator, item.name), {})[number] = item
    return found


def spent(run: Run) -> list[int]:
    """Return the queries of the whole run at each stand: those of all cases, and what they share."""
    rows = list(run.rows().values())
    longest = max((len(row.get("snapshots", ())) for row in rows), default=0)
    shared = total(run) - sum(row["spending"]["queries"] for row in rows)
    return [shared + sum(spent_at(row, index) for row in rows) for index in range(longest)]


def spent_at(row: Mapping[str, Any], index: int) -> int:
    """Return what a case had spent at a stand; one that has no stand any more stays at its end."""
    looks: Sequence[int] = row.get("snapshots", ())
    queries: int = looks[index] if index < len(looks) else row["spending"]["queries"]
    return queries


def total(run: Run) -> int:
    """Return the queries of the whole run; of one that stopped before it was closed, those of its cases."""
    if "ledger" not in run.manifest:
        return sum(row["spending"]["queries"] for row in run.rows().values())
    queries: int = run.manifest["ledger"]["total"]["queries"]
    return queries


def _point(queries: int, item: Measurement, step: int | None) -> Document:
    bounds = item.interval
    return {
        "step": step, "queries": queries, "value": finite(item.value),
        "low": finite(bounds.low) if bounds else None, "high": finite(bounds.high) if bounds else None,
    }  # fmt: skip


def drawing(
    lines: Mapping[str, Sequence[Document]], unit: str, floor: float | None = None, across: str = "queries"
) -> str | None:  # fmt: skip
    """Draw curves as an SVG; None where matplotlib is not installed.

    A curve that is alone has a band for its intervals; queries of different orders have a logarithmic axis. lines:
    points by the name of their line; floor: a value to draw as a dashed line; across: what of a point is its place.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    axes = figure.add_subplot(xlabel=across, ylabel=unit)
    for name, points in lines.items():
        known = [point for point in points if point["value"] is not None]
        axes.plot([point[across] for point in known], [point["value"] for point in known], marker="o", label=name)
        if len(lines) == 1:
            _band(axes, known, across)
    every = [point[across] for points in lines.values() for point in points if point[across]]
    if across == "queries" and every and max(every) > ORDERS * min(every):
        axes.set_xscale("log")
    if floor is not None:
        axes.axhline(floor, linestyle="--", color="grey", label="floor")
    axes.legend()
    return _svg(figure)


def scatter(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], across: str, up: str
) -> str | None:  # fmt: skip
    """Draw panels side by side, each with lines through its points (x, y) by their name; None without matplotlib.

    The lines of one name look alike in all panels, and all panels have the same range of shares. A panel of fewer than
    two points is left out.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None
    panels = {title: lines for title, lines in panels.items() if sum(map(len, lines.values())) > 1}
    if not panels:
        return None
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    heights = [y for lines in panels.values() for points in lines.values() for _, y in points]
    n_rows = -(-len(panels) // PANELS_ABREAST)
    figure = Figure(figsize=(4.0 * min(len(panels), PANELS_ABREAST), 3.2 * n_rows + 1.4), layout="constrained")
    drawn: dict[str, Any] = {}
    for number, (title, lines) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(n_rows, min(len(panels), PANELS_ABREAST), number, xlabel=across, ylabel=up)
        axes.set_title(title, fontsize="medium")
        if min(heights) >= 0 and max(heights) <= 1:
            axes.set_ylim(-0.03, 1.03)
        for name, points in lines.items():
            style = names.index(name)
            (drawn[name],) = axes.plot(
                [x for x, _ in points], [y for _, y in points], marker=MARKERS[style // 10 % len(MARKERS)],
                color=f"C{style % 10}", label=name,
            )  # fmt: skip
    figure.legend(drawn.values(), drawn, loc="outside lower center", ncols=5, fontsize="small")
    return _svg(figure)


def _band(axes: Any, points: Sequence[Document], across: str) -> None:
    bounded = [point for point in points if point["low"] is not None and point["high"] is not None]
    lows, highs = ([point[side] for point in bounded] for side in ("low", "high"))
    axes.fill_between([point[across] for point in bounded], lows, highs, alpha=0.2)


def _svg(figure: Any) -> str:
    """Return the picture alone, without the document around it; the same figure gives the same text."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "micore", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    return text[text.index("<svg") :]
