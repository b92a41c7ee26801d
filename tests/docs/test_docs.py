"""The documentation says what the code does: names, options, links and examples are checked here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
from click.testing import Result

from micore import api, errors, specs
from micore.cli import main
from micore.hookspecs import OBSERVER_HOOKS, SPEC_HOOKS
from micore.known_plugins import KNOWN
from micore.registry import Registry
from tests.docs.pages import ROOT, blocks, commands

DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md"), *ROOT.glob("plugins/*/*/README.md")])
PACKAGES = sorted(file.parent for file in ROOT.glob("plugins/*/*/pyproject.toml"))
WHOLE = DOCS / "how-to" / "audit-your-model.md"
"""The page that tests/e2e/test_audit.py follows from its first line to its last."""
EXECUTED = [page for page in PAGES if "plugins" not in page.relative_to(ROOT).parts and page != WHOLE]
SECTIONS = ("What", "Paper", "Install", "Use", "Access", "Cost", "Fidelity notes", "Limits", "Licence")
MODALITY_SECTIONS = ("What", "Install", "Use", "Cost", "Limits", "Licence")
QUICK = ("list-plugins", "show")
UNKNOWN = "my-attack"
"""The plugin that a reader writes."""
MACHINES = re.compile(r"(?<![\w.])/(work|root|home|tmp|Users|mnt|opt)/|\b[A-Z]:\\")
WRITERS = re.compile(r"\b(ai|machine|model)[- ](generated|written)\b|\bcopilot\b|\bchatbot\b", re.IGNORECASE)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _headings(page: Path) -> list[str]:
    return re.findall(r"^#+ (.+)$", _without_code(page), flags=re.MULTILINE)


def _without_code(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


# hooks and errors -----------------------------------------------------------------------------------------


def test_every_hook_has_a_heading() -> None:
    headings = _headings(DOCS / "reference" / "hooks.md")
    assert [text for text in headings if text.startswith("mi_")] == [*SPEC_HOOKS, *OBSERVER_HOOKS]


def test_every_field_of_a_spec_is_described() -> None:
    for kind in (specs.Spec, *specs.KINDS.values()):
        inherited = {field.name for field in fields(specs.Spec)} if kind is not specs.Spec else set()
        own = {field.name for field in fields(kind)} - inherited
        assert _generator().attributes(kind).keys() == own, kind


def test_every_error_has_a_row_with_its_code() -> None:
    text = (DOCS / "reference" / "exit-codes.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", text, flags=re.MULTILINE)
    classes = [item for item in vars(errors).values() if isinstance(item, type)]
    codes = {item.__name__: item.exit_code for item in classes if issubclass(item, errors.MiError)}
    assert {name: int(code) for code, name in rows} == codes


def test_internal_errors_have_a_row() -> None:
    from micore.cli.seam import INTERNAL_ERROR

    assert f"\n| {INTERNAL_ERROR} | |" in (DOCS / "reference" / "exit-codes.md").read_text(encoding="utf-8")


# pages ----------------------------------------------------------------------------------------------------


def _generator() -> ModuleType:
    spec = spec_from_file_location("generate_docs", ROOT / "tools" / "generate_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_are_up_to_date() -> None:
    pages: dict[Path, str] = _generator().pages()
    stale = [_name(page) for page, text in pages.items() if not page.is_file() or page.read_text() != text]
    assert not stale, "run `python tools/generate_docs.py`"


def test_index_links_every_page() -> None:
    index = DOCS / "index.md"
    linked = {(DOCS / link).resolve() for link in _links(index)}
    assert [_name(page) for page in DOCS.rglob("*.md") if page != index and page not in linked] == []


def _links(page: Path) -> Iterator[str]:
    for link in re.findall(r"\]\(([^)\s]+)\)", _without_code(page)):
        if not re.match(r"[a-z]+:", link):
            yield link


def _anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of the headings."""
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in _headings(page)}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_relative_links_resolve(page: Path) -> None:
    for link in _links(page):
        path, _, anchor = link.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), link
        assert not anchor or anchor in _anchors(place), link


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_pages_speak_of_the_project_alone(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not MACHINES.findall(text)
    assert not WRITERS.findall(text)


@pytest.mark.parametrize("package", PACKAGES, ids=_name)
def test_every_package_has_a_readme_and_a_page(package: Path) -> None:
    kind = {"modalities": "modality"}.get(package.parent.name, package.parent.name.removesuffix("s"))
    sections = MODALITY_SECTIONS if kind == "modality" else SECTIONS
    headings = _headings(package / "README.md")
    assert [section for section in sections if section not in headings] == []
    offered = [name for (of, name), whose in KNOWN.items() if of == kind and whose.endswith(f"-{package.name}")]
    for name in offered if kind in ("attack", "defense", "evaluator") else [package.name]:
        assert (DOCS / "plugins" / f"{kind}-{name}.md").is_file(), name


# console examples -----------------------------------------------------------------------------------------


CONSOLE = [(page, arguments) for page in PAGES for arguments in commands(page)]


def _parsed(arguments: list[str]) -> dict[str, Any]:
    """Let click read a command line without running it."""
    top = click.Context(main, info_name="mi", auto_envvar_prefix="MI")
    command = main.get_command(top, arguments[0])
    assert command is not None, arguments[0]
    return command.make_context(arguments[0], arguments[1:], parent=top).params


@pytest.mark.parametrize(
    ("page", "arguments"), CONSOLE, ids=[f"{_name(page)}: {' '.join(line)[:60]}" for page, line in CONSOLE]
)
def test_console_examples_parse_and_name_real_plugins(
    page: Path, arguments: list[str], mi: Callable[..., Result]
) -> None:
    parameters = _parsed(arguments)
    registry = Registry.discover()
    named = [("attack", parameters.get("plugin")), ("dataset", parameters.get("data"))]
    named += [("defense", use) for use in parameters.get("defenses") or ()]
    named += [("evaluator", use) for use in parameters.get("evaluators") or ()]
    named += [("model", parameters["model"])] if arguments[0] in ("train", "import") else []
    for kind, use in named:
        if use and UNKNOWN not in use:
            registry.find(kind, use.partition(":")[0])
    if arguments[0] in QUICK and UNKNOWN not in arguments:
        result = mi(*arguments)
        assert result.exit_code == 0, result.output


# Python examples ------------------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Make examples quick: one epoch and the smoke preset, in a directory of its own."""
    from micore.kit.training import TrainingConfig
    from micore.runs import judges

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(judges, "judge_training", lambda n: TrainingConfig(epochs=1, augment="strong"))
    monkeypatch.setattr(api, "train", partial(_with, api.train, {"training": {"epochs": 1}}))
    monkeypatch.setattr(api, "attack", partial(_with, api.attack, {"preset": "smoke", "device": "cpu"}))
    return tmp_path


def _with(function: Callable[..., Any], changes: dict[str, Any], /, *arguments: Any, **others: Any) -> Any:
    return function(*arguments, **{**others, **changes})


@pytest.mark.parametrize("page", [page for page in EXECUTED if blocks(page, "python")], ids=_name)
def test_python_examples_run(page: Path, quick: Path) -> None:
    namespace: dict[str, Any] = {"__name__": "example"}
    for block in blocks(page, "python"):
        exec(compile(block, _name(page), "exec"), namespace)
    for manifest in quick.rglob("run.json"):
        _check_manifest(json.loads(manifest.read_text(encoding="utf-8")))


def test_attack_of_the_tutorial_is_that_of_the_example() -> None:
    attack = DOCS / "examples" / "third-party" / "src" / "acme_inversion" / "attack.py"
    text = attack.read_text(encoding="utf-8")
    assert text in blocks(DOCS / "tutorial" / "write-an-attack.md", "python")
    assert len(text.splitlines()) <= 60


def _check_manifest(manifest: dict[str, Any]) -> None:
    """Every field of a manifest, and of its larger parts, has a place in its reference page."""
    text = (DOCS / "reference" / "run-directory.md").read_text(encoding="utf-8")
    inner = ("attack", "hardware", "preparation", "ledger", "access")
    parts = [manifest, *(manifest[name] for name in inner)]
    fields = {name for part in (*parts, *manifest["cases"]) for name in part}
    assert [name for name in sorted(fields) if f"`{name}`" not in text] == []
