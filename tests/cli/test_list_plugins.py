"""``mi list-plugins`` and ``mi show``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from click.testing import Result

from micore.plugin_pages import described
from micore.spec_texts import status_of
from micore.specs import AttackSpec, CommandSpec, TrackerSpec
from micore.threat import Access

Mi = Callable[..., Result]

CONFIGURED = """
from micore.hookspecs import hookimpl
from micore.specs import AttackSpec, CommandSpec, DatasetSpec, DefenseSpec, SourceSpec
from micore.threat import Access

@hookimpl
def mi_attacks():
    return [AttackSpec(name="toy", target="{module}_impl:Toy", summary="A toy", paper="Doe 2020",
                       modality="image", goal="class", access=Access.WHITE_BOX, needs=("public",))]

@hookimpl
def mi_defenses():
    return [DefenseSpec(name=name, target="{module}_impl:Plain", summary="Guards", stages=("training",))
            for name in ("toy-defense", "twin")]

@hookimpl
def mi_sources():
    return [SourceSpec(name="toy-hub", target="no_such:x", summary="Hub", scheme="hub")]

@hookimpl
def mi_commands():
    return [CommandSpec(name="toy-command", target="no_such:x", summary="Does")]

@hookimpl
def mi_datasets():
    return [DatasetSpec(name="twin", target="no_such:x", summary="Data", modality="text", licence="CC0")]
"""

IMPLEMENTATION = """
from enum import Enum
from typing import Literal
from pydantic import Field
from micore.contracts import Config, NoConfig

class Mode(str, Enum):
    FAST = "fast"
    SLOW = "slow"

class ToyConfig(Config):
    mode: Mode = Field(Mode.FAST, description="Which way")
    seeds: list[int] = Field(default_factory=list, description="Seeds")
    kept: Literal["always"] = Field("always", description="One choice")
    steps: int = Field(70, ge=1, le=100, description="Steps of the search")
    loss: Literal["max-margin", "poincare"] = Field("poincare", description="Loss")
    rate: float | None = Field(None, gt=0, description="Step size")
    sizes: tuple[int, ...] = Field((1, 2), description="Sizes")
    path: str = Field(description="A path")

class Toy:
    Config = ToyConfig
    PRESETS = {"default": {}, "smoke": {"steps": 2}}

class Plain:
    Config = NoConfig
"""


@pytest.fixture
def toys(site: Any) -> Any:
    """A site with an attack, two defenses and a data set; two of one name."""
    module = site.install("mi-toys", CONFIGURED)
    (site.path / f"{module}_impl.py").write_text(IMPLEMENTATION)
    return site


def test_table(mi: Mi, toys: Any) -> None:
    result = mi("list-plugins")
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert lines[0] == "kind name modality aim access package summary"
    assert "attack toy image class white-box mi-toys 1.0 A toy" in lines
    assert "defense twin any training mi-toys 1.0 Guards" in lines
    assert "source toy-hub any hub: mi-toys 1.0 Hub" in lines
    assert "command toy-command any mi-toys 1.0 Does" in lines


def test_filters(mi: Mi, toys: Any) -> None:
    assert "toy-defense" not in mi("list-plugins", "--kind", "attack").stdout
    texts = json.loads(mi("list-plugins", "--modality", "text", "--json").stdout)["plugins"]
    ours = [(item["kind"], item["name"]) for item in texts if item["distribution"] == "mi-toys"]
    assert ours[0] == ("dataset", "twin")
    assert [name for kind, name in ours if kind == "defense"] == ["toy-defense", "twin"]
    assert "attack" not in dict(ours)
    assert mi("list-plugins", "--kind", "bogus").exit_code == 2


def test_json(mi: Mi, toys: Any) -> None:
    toys.install("mi-attack-raises", "1 / 0")
    result = mi("list-plugins", "--json")
    document = json.loads(result.stdout)
    assert document["schema"] == "micore.plugins/1"
    item = next(item for item in document["plugins"] if item["name"] == "toy")
    assert item == {
        "kind": "attack", "name": "toy", "target": "mi_toys_impl:Toy", "summary": "A toy",
        "paper": "Doe 2020", "status": "experimental", "modality": "image", "goal": "class",
        "access": "white-box", "needs": ["public"], "roles": ["classifier"], "control": False, "below_floors": False,
        "distribution": "mi-toys", "version": "1.0",
    }  # fmt: skip
    broken = [item for item in document["broken"] if item["distribution"] == "mi-attack-raises"]
    assert broken == [
        {
            "name": "attack-raises", "distribution": "mi-attack-raises", "version": "1.0", "status": "broken",
            "reason": "ZeroDivisionError: division by zero",
        }
    ]  # fmt: skip


def test_broken_plugins_are_warned_of(mi: Mi, toys: Any) -> None:
    toys.install("mi-attack-raises", "1 / 0")
    toys.install("mi-attack-old", "", requires=["micore>=99"])
    result = mi("list-plugins")
    assert result.exit_code == 0
    warning = "warning: plugin mi-attack-raises 1.0 (attack-raises) is broken: ZeroDivisionError: division by zero"
    assert warning in result.stderr.splitlines()
    assert "mi-attack-old 1.0 (attack-old) is incompatible: needs micore>=99" in result.stderr
    only = mi("list-plugins", "--broken")
    assert "mi-attack-raises" in only.stdout
    assert "toy" not in only.stdout
    assert "Traceback" in mi("-v", "list-plugins").stderr


def test_show_attack(mi: Mi, toys: Any) -> None:
    result = mi("show", "toy")
    assert result.exit_code == 0, result.stderr
    for text in ("toy (attack)", "Doe 2020", "white-box", "public", "mi-toys 1.0", "preset smoke: steps=2"):
        assert text in result.stdout
    rows = [line.split("  ") for line in result.stdout.splitlines() if line.startswith(("steps", "rate", "sizes"))]
    assert [[cell.strip() for cell in row if cell] for row in rows] == [
        ["steps", "integer", "70", ">= 1, <= 100", "Steps of the search"],
        ["rate", "number or none", "none", "> 0", "Step size"],
        ["sizes", "list of integer", "[1, 2]", "Sizes"],
    ]
    assert "max-margin, poincare" in result.stdout
    assert "mode choice fast fast, slow Which way" in [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "required" in result.stdout


def test_an_attack_that_gains_nothing_is_listed_as_such() -> None:
    spec = AttackSpec(
        name="x", target="a:b", summary="X", modality="graph", goal="structure", access=Access.LABEL, below_floors=True
    )
    assert status_of(spec) == "experimental, recovers no more than its evidence gives without a target"
    assert status_of(replace(spec, below_floors=False)) == "experimental"


def test_show_json(mi: Mi, toys: Any) -> None:
    document = json.loads(mi("show", "toy", "--json").stdout)
    assert document["schema"] == "micore.plugin/1"
    assert document["presets"] == {"default": {}, "smoke": {"steps": 2}}
    assert document["config"]["properties"]["steps"]["maximum"] == 100


def test_markdown(mi: Mi, toys: Any) -> None:
    catalogue = mi("list-plugins", "--markdown", "--kind", "attack").stdout
    assert catalogue.startswith("# Catalogue\n\n## Attacks\n\n| name | what | modality | goal |")
    assert "| `toy` |" in catalogue
    assert "## Defenses" not in catalogue
    page = mi("show", "toy", "--markdown").stdout
    assert page.startswith("# Attack toy\n")
    assert "| `steps` | integer |" in page
    assert "| `smoke` | `steps=2` |" in page
    for arguments in (("list-plugins", "--broken"), ("list-plugins", "--json"), ("show", "toy", "--json")):
        result = mi(*arguments, "--markdown")
        assert result.exit_code == 2, arguments
        assert "--markdown" in result.stderr


def test_page_of_a_command_is_its_help_and_of_a_tracker_what_its_hook_says() -> None:
    def hook(run: object) -> None:
        """Watch ``runs``."""

    import click

    command = click.Command("x", help="Do it.")
    assert described(CommandSpec(name="x", target="json:loads", summary="X"), command) == "Do it."
    assert described(TrackerSpec(name="x", target="json:loads", summary="X"), hook) == "Watch `runs`."


def test_show_without_settings(mi: Mi, toys: Any) -> None:
    assert "field" not in mi("show", "toy-defense").stdout
    assert "CC0" in mi("show", "twin", "--kind", "dataset").stdout


def test_show_ambiguous_and_unknown_names(mi: Mi, toys: Any) -> None:
    ambiguous = mi("show", "twin")
    assert ambiguous.exit_code == 2
    assert ambiguous.stderr == "error: 'twin' names dataset and defense\nhint: pick one, such as --kind dataset\n"
    assert mi("show", "mi-toys:toy").exit_code == 0
    unknown = mi("show", "toyy")
    assert unknown.exit_code == 4
    assert "did you mean toy?" in unknown.stderr
    assert "`mi list-plugins` shows what there is" in mi("show", "zzzzzz").stderr


def test_show_broken_plugin(mi: Mi, site: Any) -> None:
    site.install("mi-attack-raises", "1 / 0")
    result = mi("show", "raises")
    assert result.exit_code == 4
    assert "division by zero" in result.stderr
