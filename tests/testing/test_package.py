"""Checks that need a plugin which is really installed: a package in a directory of its own."""

from __future__ import annotations

import sys

import pytest
from toy_plugins import good_registry

from micore.registry import Registry
from micore.testing.check import check_plugin

PLUGIN = """
{line}
from micore.hookspecs import hookimpl
from micore.specs import DefenseSpec

@hookimpl
def mi_defenses():
    target = "mi_toy_package:Nothing"
    return [DefenseSpec(name="toy-package", target=target, summary="Does nothing at all", stages=("data",))]

class Nothing:
    "No paper."
"""
CHECK = "plugin-imports-without-torch"


COMMAND = """
from micore.hookspecs import hookimpl
from micore.specs import CommandSpec

@hookimpl
def mi_commands():
    return [CommandSpec(name="toy-command", target="mi_toy_command:command", summary="Do nothing at all")]
"""
CLICK = """
{line}
import click

@click.command()
def command():
    "Do nothing at all."
"""


def row_of(report, check=CHECK):
    return next(row for row in report.rows if row.check == check)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    def install(line):
        info = tmp_path / "mi_toy_package-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mi-toy-package\nVersion: 1\n")
        (info / "entry_points.txt").write_text("[micore]\ntoy = mi_toy_package\n")
        (tmp_path / "mi_toy_package.py").write_text(PLUGIN.format(line=line))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "mi_toy_package", raising=False)
        return Registry.discover()

    yield install
    sys.modules.pop("mi_toy_package", None)


@pytest.fixture
def installed_command(installed, tmp_path):
    def install(line):
        (tmp_path / "mi_toy_command.py").write_text(CLICK.format(line=line))
        registry = installed("import json")
        (tmp_path / "mi_toy_package.py").write_text(COMMAND)
        sys.modules.pop("mi_toy_package", None)
        return type(registry).discover()

    yield install
    sys.modules.pop("mi_toy_command", None)


def test_command_that_is_quick_to_explain_is_accepted(installed_command):
    report = check_plugin("command", "toy-command", registry=installed_command("import json"))
    assert [row.status for row in report.rows] == ["passed"] * len(report.rows), report.text()


def test_command_that_imports_torch_for_its_help_is_rejected(installed_command):
    report = check_plugin("command", "toy-command", registry=installed_command("import torch"))
    row = row_of(report, "help-loads-no-torch")
    assert (row.status, row.reason) == ("failed", "mi toy-command --help loads torch")


def test_light_plugin_is_accepted(installed):
    row = row_of(check_plugin("defense", "toy-package", registry=installed("import json")))
    assert row.status == "passed", row


def test_plugin_that_imports_torch_is_rejected(installed):
    row = row_of(check_plugin("defense", "toy-package", registry=installed("import torch")))
    assert (row.status, row.reason) == ("failed", "importing mi_toy_package imports torch")


def test_plugin_that_is_no_package_is_skipped(lab):
    row = row_of(check_plugin("dataset", "toy", registry=good_registry(), lab=lab))
    assert row.status == "skipped"
