"""What a conformance check says: passed, failed or skipped, and why."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, NoReturn

SCHEMA = "micore.check/1"
Status = Literal["passed", "failed", "skipped"]
Check = Callable[[Any], str | None]
"""A check takes its bench and returns a remark or None; it raises CheckFailed or CheckSkipped."""


class CheckFailed(Exception):  # noqa: N818 - an outcome
    """The plugin does not keep its contract."""


class CheckSkipped(Exception):  # noqa: N818 - an outcome
    """The check says nothing about this plugin."""


def require(condition: bool, reason: str) -> None:
    """Fail the check unless the condition holds."""
    if not condition:
        raise CheckFailed(reason)


def skip(reason: str) -> NoReturn:
    """Leave the check out, for a stated reason."""
    raise CheckSkipped(reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRow:
    """The outcome of one check; ``why`` is the check's purpose."""

    check: str
    status: Status
    reason: str | None
    seconds: float
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """The outcome of all checks of one plugin."""

    kind: str
    name: str
    rows: tuple[CheckRow, ...]

    @property
    def passed(self) -> bool:
        """Tell whether no check failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[CheckRow, ...]:
        """The rows of failed checks."""
        return tuple(row for row in self.rows if row.status == "failed")

    def text(self) -> str:
        """Return one line for each check, and a summary."""
        width = max((len(row.check) for row in self.rows), default=0)
        lines = [f"{row.status:<8}{row.check:<{width}}  {row.reason or ''}".rstrip() for row in self.rows]
        return "\n".join([*lines, self.summary()])

    def summary(self) -> str:
        """Return the counts in a line."""
        counts = Counter(row.status for row in self.rows)
        parts = [f"{counts[status]} {status}" for status in ("passed", "failed", "skipped") if counts[status]]
        seconds = sum(row.seconds for row in self.rows)
        return f"{self.kind} {self.name}: {', '.join(parts) or 'no checks'} in {seconds:.1f} s"

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        rows = [asdict(row) for row in self.rows]
        return {"schema": SCHEMA, "kind": self.kind, "name": self.name, "passed": self.passed, "checks": rows}


def check_name(check: Check) -> str:
    """Return the name that a report gives a check."""
    return check.__name__.replace("_", "-")


def run_checks(checks: Iterable[Check], bench: Any) -> tuple[CheckRow, ...]:
    """Run checks one after another; what one raises does not stop the others."""
    return tuple(run_check(check, bench) for check in checks)


def run_check(check: Check, bench: Any) -> CheckRow:
    """Run one check. Whatever it raises is its outcome: an error inside the plugin is a failure."""
    started = time.perf_counter()
    status: Status = "passed"
    reason: str | None
    try:
        reason = check(bench)
    except CheckSkipped as outcome:
        status, reason = "skipped", str(outcome)
    except CheckFailed as outcome:
        status, reason = "failed", str(outcome)
    except Exception as error:  # seam: a plugin under check may do anything
        status, reason = "failed", " ".join(f"{type(error).__name__}: {error}".split())
    seconds = round(time.perf_counter() - started, 3)
    why = (check.__doc__ or "").strip().partition("\n")[0]
    return CheckRow(check=check_name(check), status=status, reason=reason, seconds=seconds, why=why)
