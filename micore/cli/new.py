"""``mi new``: the package of a plugin of one's own."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

import click

from micore import __version__
from micore.cli.app import App
from micore.errors import StorageError, UsageError
from micore.specs import NAME

RANGES = {"image": ("0.0", "1.0"), "audio": ("-1.0", "1.0")}
SUFFIX = ".tmpl"
Parts = tuple[str, ...]


@click.command()
@click.argument("kind", type=click.Choice(["attack", "defense", "evaluator"]))
@click.argument("name")
@click.option("--directory", type=click.Path(path_type=Path), default=Path(), help="Where to make the folder NAME.")
@click.option("--modality", type=click.Choice(list(RANGES)), default="image", help="What it works on.")
@click.pass_obj
def command(app: App, *, kind: str, name: str, directory: Path, modality: str) -> None:
    """Write an installable package with a working attack, defense or evaluator called NAME."""
    place = create(kind, name, directory, modality)
    app.result(str(place))
    app.say(f"next: pip install -e {shlex.quote(str(place))} && mi check {name}")


def create(kind: str, name: str, directory: Path, modality: str = "image") -> Path:
    """Write the package to ``directory/name``, whole or not at all, and return its path.

    Raises: UsageError for a bad name or a place that is taken; StorageError.
    """
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot be a plugin's name", hint="it must be like my-name")
    place = directory / name
    if place.exists():
        raise UsageError(f"{place} already exists", hint="choose another name or --directory")
    unfinished = directory / f".{name}.part"
    try:
        _write(unfinished, kind, words(kind, name, modality))
        unfinished.rename(place)
    except OSError as error:
        message = f"cannot write {place}: {error.strerror or error}"
        raise StorageError(message, hint="choose another --directory") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return place


def words(kind: str, name: str, modality: str) -> dict[str, str]:
    """Return what the templates' placeholders stand for."""
    class_name = "".join(part.capitalize() for part in name.split("-"))
    if not class_name[0].isalpha():
        class_name = kind.capitalize() + class_name
    low, high = RANGES[modality]
    distribution = f"mi-{kind}-{name}"
    return {
        "kind": kind, "name": name, "modality": modality, "low": low, "high": high,
        "distribution": distribution, "package": distribution.replace("-", "_"),
        "title": name.replace("-", " ").capitalize(),
        "class_name": class_name, "config_name": f"{class_name}Config",
        "core_requirement": _requirement(__version__),
    }  # fmt: skip


def _requirement(version: str) -> str:
    """Return the range of versions with this one's interface, such as ``micore>=0.1,<0.2``."""
    major, minor = (int(part) for part in re.findall(r"\d+", version)[:2])
    return f"micore>={major}.{minor},<{major}.{minor + 1}" if major == 0 else f"micore>={major},<{major + 1}"


def _write(place: Path, kind: str, values: Mapping[str, str]) -> None:
    for folder in ("shared", kind):
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
