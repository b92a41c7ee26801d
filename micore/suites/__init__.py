"""Suites: attack x target x defense x seed, each row in a process of its own, and one table at the end."""

from micore.suites.bench import Options, run_suite
from micore.suites.commands import Machine
from micore.suites.launchers import Launch
from micore.suites.rows import Precision
from micore.suites.suite import Suite, load_suite

__all__ = ["Launch", "Machine", "Options", "Precision", "Suite", "load_suite", "run_suite"]
