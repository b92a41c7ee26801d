"""``mi new``: the package of a plugin of one's own."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

import click

from micore import __version__
from micore.cli.app import App
from micore.cli.new_words import wording
from micore.errors import StorageError, UsageError
from micore.specs import NAME

SUFFIX = ".tmpl"
Parts = tuple[str, ...]

MODALITIES = ("image", "audio", "text", "graph", "tabular")
CONTINUOUS = {"image": ("0.0", "1.0"), "audio": ("-1.0", "1.0")}
"""Modalities whose samples are tensors of numbers, and their ranges."""

TEMPLATES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "attack": {name: ("attack", *(() if name == "image" else (f"attack-{name}",))) for name in MODALITIES},
    "defense": dict.fromkeys(MODALITIES, ("defense",)),
    "evaluator": {
        name: ("evaluator",) if name in CONTINUOUS else ("evaluator-truth", f"evaluator-{name}") for name in MODALITIES
    },
    "model": {name: ("model", f"model-{name}") for name in MODALITIES},
    "dataset": {
        name: ("dataset", *(("dataset-samples",) if name in CONTINUOUS else ()), f"dataset-{name}")
        for name in MODALITIES
    },
    "modality": {"": ("modality",)},
    "tracker": {"": ("tracker",)},
}
"""The folders of templates for each kind and modality; of files with one name the last counts."""

BUILT_ON = {
    "text": ("attack", "evaluator", "model", "dataset"),
    "graph": ("attack", "evaluator", "model", "dataset"),
    "tabular": ("attack", "evaluator", "dataset"),
}
"""What imports the package of its modality; the others need torch alone."""


@click.command()
@click.argument("kind", type=click.Choice(list(TEMPLATES)))
@click.argument("name")
@click.option("--directory", type=click.Path(path_type=Path), default=Path(), help="Where to make the folder NAME.")
@click.option(
    "--modality", type=click.Choice(MODALITIES), default="image",
    help="What it works on; not for a modality or a tracker.",
)  # fmt: skip
@click.pass_obj
def command(app: App, *, kind: str, name: str, directory: Path, modality: str) -> None:
    """Write an installable package with a working plugin called NAME.

    KIND: attack, defense, evaluator, model, dataset, modality or tracker.
    """
    place = create(kind, name, directory, modality)
    app.result(str(place))
    app.say(f"next: pip install -e {shlex.quote(str(place))} && mi check {name}")


def create(kind: str, name: str, directory: Path, modality: str = "image") -> Path:
    """Write the package to ``directory/name``, whole or not at all, and return its path.

    Raises: UsageError for a bad name, a place that is taken, or a modality without a template; StorageError.
    """
    folders = _folders(kind, modality)
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot be a plugin's name", hint="it must be like my-name")
    place = directory / name
    if place.exists():
        raise UsageError(f"{place} already exists", hint="choose another name or --directory")
    unfinished = directory / f".{name}.part"
    try:
        _write(unfinished, folders, words(kind, name, modality))
        unfinished.rename(place)
    except OSError as error:
        message = f"cannot write {place}: {error.strerror or error}"
        raise StorageError(message, hint="choose another --directory") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return place


def _folders(kind: str, modality: str) -> tuple[str, ...]:
    """Return the folders of templates that a package is made of, beside the shared one."""
    offered = TEMPLATES[kind]
    if "" in offered:
        return offered[""]
    if modality not in offered:
        raise UsageError(f"mi new {kind} has no template for {modality}", hint=f"it has: {', '.join(offered)}")
    return offered[modality]


def words(kind: str, name: str, modality: str) -> dict[str, str]:
    """Return what the templates' placeholders stand for."""
    class_name = "".join(part.capitalize() for part in name.split("-"))
    if not class_name[0].isalpha():
        class_name = kind.capitalize() + class_name
    low, high = CONTINUOUS.get(modality, ("", ""))
    is_modality = kind == "modality"
    entry_point = name if is_modality else f"{kind}-{name}"
    return {
        "kind": kind, "name": name, "modality": modality, "low": low, "high": high,
        "distribution": f"mi-{entry_point}", "package": f"mi_{entry_point}".replace("-", "_"),
        "entry_point": entry_point, "title": name.replace("-", " ").capitalize(),
        "class_name": class_name, "config_name": f"{class_name}Config",
        "variable": f"MI_{name.upper().replace('-', '_')}_FILE",
        **wording(kind, modality), **_dependencies(kind, modality),
    }  # fmt: skip


def _dependencies(kind: str, modality: str) -> dict[str, str]:
    """Return what the package needs, and its tests need: the checks run on the toy problem of its modality."""
    core, own = _requirement("micore", __version__), _requirement(f"mi-{modality}", __version__)
    if kind == "tracker":
        return {"dependencies": _quoted([core]), "test_dependencies": _quoted(["pytest>=8"])}
    uses_modality = kind in BUILT_ON.get(modality, ())
    needs_pydantic = kind != "model" and (kind, modality) != ("dataset", "tabular")
    needed = [core, *([own] if uses_modality else []), *(["pydantic>=2.7"] if needs_pydantic else []), "torch>=2.11"]
    tests = ["pytest>=8", *([] if uses_modality or kind == "modality" else [own])]
    return {"dependencies": _quoted(needed), "test_dependencies": _quoted(tests)}


def _quoted(texts: Iterable[str]) -> str:
    return ", ".join(f'"{text}"' for text in texts)


def _requirement(name: str, version: str) -> str:
    """Return a package with the range of versions with this one's interface, such as ``micore>=0.1,<0.2``."""
    major, minor = (int(part) for part in re.findall(r"\d+", version)[:2])
    return f"{name}>={major}.{minor},<{major}.{minor + 1}" if major == 0 else f"{name}>={major},<{major + 1}"


def _write(place: Path, folders: Iterable[str], values: Mapping[str, str]) -> None:
    for folder in ("shared", *folders):
        for parts, template in _templates(files("micore") / "templates" / folder):
            path = place.joinpath(*(values["package"] if part == "package" else part for part in parts))
            path.parent.mkdir(parents=True, exist_ok=True)
            text = Template(template.read_text(encoding="utf-8")).substitute(values)
            path.with_name(path.name.removesuffix(SUFFIX)).write_text(text, encoding="utf-8")


def _templates(folder: Traversable, parts: Parts = ()) -> Iterator[tuple[Parts, Traversable]]:
    for item in folder.iterdir():
        if item.is_dir():
            yield from _templates(item, (*parts, item.name))
        elif item.name.endswith(SUFFIX):
            yield (*parts, item.name), item
