"""Every error that micore raises on purpose, each with its exit code.

A message says what is wrong and where; the hint says how to mend it. The table of exit codes in
``docs/reference/exit-codes.md`` is checked against this module by a test.
"""

from __future__ import annotations

from collections.abc import Mapping


class MiError(Exception):
    """Base of all errors that a user can mend."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(MiError):
    """The command line or the arguments of a function contradict themselves."""

    exit_code = 2


class ConfigError(MiError):
    """A config field is unknown or its value is out of range."""

    exit_code = 3


class PluginError(MiError):
    """A plugin is broken or cannot be used."""

    exit_code = 4


class UnknownNameError(PluginError):
    """No plugin of this kind has the name."""


class NameClashError(PluginError):
    """Two installed plugins offer the same name."""


class IncompatiblePluginError(PluginError):
    """The plugin needs another version of micore."""


class ModelError(MiError):
    """A model cannot be loaded or does not fit (architecture, input, number of classes)."""

    exit_code = 5


class AccessDenied(MiError):  # noqa: N818 - the name of the threat model's rule
    """The adversary asked for more than the run grants."""

    exit_code = 6


class BudgetExceeded(MiError):  # noqa: N818
    """The next query would overspend the budget; everything before it is kept."""

    exit_code = 7


class DataError(MiError):
    """A data set is missing, unreadable, empty or does not fit."""

    exit_code = 8


class CaseFailed(MiError):  # noqa: N818
    """Some cases failed; the others are valid and kept.

    An attack may first give back the cases that went well and raise this at the end. reasons: why a case
    failed, by its id; these are recorded as failed. Others that are left are attacked again, one by one.
    """

    exit_code = 9

    def __init__(self, message: str, *, hint: str | None = None, reasons: Mapping[str, str] | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reasons: Mapping[str, str] = dict(reasons or {})


class RunError(MiError):
    """A run directory is missing, damaged, or does not match what it should continue."""

    exit_code = 10


class StorageError(MiError):
    """A file could not be written (no space, no permission); nothing is left half-written."""

    exit_code = 11


class RuntimeUnavailable(MiError):  # noqa: N818
    """The device or precision that was asked for is not there."""

    exit_code = 12


class ConformanceError(MiError):
    """A plugin failed its conformance checks."""

    exit_code = 13


class TargetError(MiError):
    """The target did not answer, or not in a way that can be used; what was done before is kept."""

    exit_code = 14


class GateFailed(MiError):  # noqa: N818 - it is the model under test that is at fault
    """A gate of ``mi report --fail-if`` was not passed; the report is written all the same."""

    exit_code = 15


class Interrupted(MiError):  # noqa: N818
    """The user stopped the run; what is done is kept and ``mi resume`` continues."""

    exit_code = 130
