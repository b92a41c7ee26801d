"""The repository keeps its own architecture: layout, names, direction of imports, declared dependencies, style."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from micore.known_plugins import KNOWN

ROOT = Path(__file__).resolve().parent.parent
CORE = ROOT / "micore"
PLUGINS = sorted(file.parent for file in ROOT.glob("plugins/*/*/pyproject.toml"))
KINDS = {
    "attacks": "attack", "defenses": "defense", "evaluators": "evaluator", "modalities": "modality", "models": "model",
    "trackers": "tracker",
}  # fmt: skip
DISTRIBUTIONS = {
    "PIL": "pillow", "sklearn": "scikit-learn", "markupsafe": "jinja2", "pydantic_core": "pydantic",
    "mlflow": "mlflow-skinny",
}  # fmt: skip
"""Of imports that are called otherwise, or that another distribution's interface consists of."""

THROUGH = {"torch.utils.tensorboard": "tensorboard"}
"""Modules that need another distribution beside their own."""

HEAVY = {"torch", "numpy", "pydantic", "PIL", "safetensors", "accelerate", "jinja2", "mlflow", "tensorboard"}
START = {"micore.hookspecs", "micore.specs", "micore.threat"}
"""All that a plugin.py may import of the core."""

BROAD = {
    "micore/cli/seam.py": 1,  # the top of the command line
    "micore/discovery.py": 1,  # loading a plugin
    "micore/registry.py": 3,  # loading a plugin, calling an observer
    "micore/runs/sitting.py": 1,  # an attack's own fault is a row
    "micore/testing/attack_bench.py": 1,  # a plugin under check may do anything
    "micore/testing/report.py": 1,
    "plugins/models/exported/src/mi_model_exported/loading.py": 2,  # reading and trying a foreign network
    "plugins/models/onnx/src/mi_model_onnx/loading.py": 1,  # a library whose errors have no base
}
"""How many handlers of any exception a file may have that do not raise it again."""

CONTROL = "prior-samples"
"""The core's own word for a subject that it judges beside every attack; one attack is called after it."""

OF_ONE_MODALITY = re.compile(r"\b(images?|pixels?|gans?)\b")
NAMES_ALLOWED = {
    "micore/known_plugins.py": "the generated table",
    "micore/cli/quickstart.py": "the defaults of the demonstration",
    "micore/cli/new.py": "the modalities that there are templates for",
    "micore/cli/new_words.py": "what the templates say of each modality",
}

each_plugin = pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: f"{folder.parent.name}-{folder.name}")


@cache
def project(folder):
    return tomllib.loads((folder / "pyproject.toml").read_text())["project"]


def kind_of(folder):
    return KINDS[folder.parent.name]


def distribution_of(folder):
    kind = kind_of(folder)
    return f"mi-{folder.name}" if kind == "modality" else f"mi-{kind}-{folder.name}"


OWN = {distribution_of(folder): kind_of(folder) for folder in PLUGINS} | {"micore": "core"}


def source(folder):
    return folder / "src" / distribution_of(folder).replace("-", "_")


@cache
def tree(path):
    return ast.parse(path.read_text())


def imports(path, node=None):
    """Every module that a file imports, at its top and inside of functions."""
    for item in ast.walk(node or tree(path)):
        if isinstance(item, ast.Import):
            yield from (alias.name for alias in item.names)
        elif isinstance(item, ast.ImportFrom):
            assert item.level == 0, f"{path}: relative import"
            yield item.module


def distributions(directory):
    """The distributions that the files of a package import, without itself and the standard library."""
    modules = {name for path in directory.rglob("*.py") for name in imports(path)}
    names = {name.partition(".")[0] for name in modules} | {THROUGH[name] for name in modules & THROUGH.keys()}
    found = {DISTRIBUTIONS.get(name, name.replace("_", "-")) for name in names - sys.stdlib_module_names}
    return found - {directory.name.replace("_", "-")}


def requirement_names(texts):
    return {Requirement(text).name for text in texts}


def extras(folder):
    lists = project(folder).get("optional-dependencies", {}).values()
    return requirement_names(text for texts in lists for text in texts)


def files():
    """All files that belong to the repository: nothing made by tools."""
    for directory, folders, names in os.walk(ROOT):
        top = Path(directory) == ROOT
        made = {"runs", "build", "dist"} if top else set()
        folders[:] = [
            name for name in folders
            if name == ".ci" or not (name.startswith(".") or name == "__pycache__" or name in made)
        ]  # fmt: skip
        yield from (Path(directory, name) for name in names if not name.startswith(".coverage"))


def sources():
    return [*CORE.rglob("*.py"), *(path for folder in PLUGINS for path in source(folder).rglob("*.py"))]


def relative(path):
    return path.relative_to(ROOT).as_posix()


# layout and names -----------------------------------------------------------------------------------------


def test_every_folder_of_plugins_is_a_package_of_a_known_kind():
    folders = [path for path in ROOT.glob("plugins/*/*") if path.is_dir() and any(path.iterdir())]
    assert sorted(folders) == PLUGINS
    assert {folder.parent.name for folder in folders} <= KINDS.keys()


@each_plugin
def test_folder_is_complete(folder):
    package = source(folder)
    wanted = [folder / "README.md", *(package / name for name in ("__init__.py", "plugin.py", "py.typed"))]
    assert [relative(path) for path in wanted if not path.is_file()] == []
    assert [path.name for path in (folder / "src").iterdir() if path.is_dir()] == [package.name]
    assert list((folder / "tests").glob("test_*.py")), "no tests"


@each_plugin
def test_names_follow_the_folder(folder):
    name = distribution_of(folder)
    assert project(folder)["name"] == name
    points = {name.removeprefix("mi-"): f"{name.replace('-', '_')}.plugin"}
    assert project(folder)["entry-points"] == {"micore": points}


@pytest.mark.parametrize("folder", [ROOT, *PLUGINS], ids=lambda folder: folder.name)
def test_metadata_is_uniform(folder):
    text = (folder / "pyproject.toml").read_text()
    assert tomllib.loads(text)["build-system"] == {"requires": ["uv_build>=0.8,<1"], "build-backend": "uv_build"}
    about, core = project(folder), project(ROOT)
    for key in ("license", "requires-python", "readme", "classifiers"):
        assert about[key] == core[key], key
    assert about["description"]
    assert "model inversion" in about["keywords"]


def test_requirements_install_everything():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    editable = [line.removeprefix("-e ") for line in lines if line.startswith("-e ")]
    assert sorted(editable) == sorted([".", *(f"./{relative(folder)}" for folder in PLUGINS)])
    assert "-c constraints.txt" in lines


def test_constraints_pin_what_the_packages_and_the_tools_need():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line)] == []
    tools = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if re.match(r"\w", line)]
    declared = [text for folder in (ROOT, *PLUGINS) for text in project(folder)["dependencies"]]
    assert requirement_names([*tools, *declared]) - OWN.keys() - requirement_names(pins) == set()


def test_git_ignores_no_source():
    patterns = (ROOT / ".gitignore").read_text().split()
    anywhere = {pattern.rstrip("/") for pattern in patterns if not pattern.startswith("/")}
    assert [relative(path) for path in files() if anywhere & set(path.relative_to(ROOT).parts)] == []


def test_no_file_names_a_place_on_one_machine():
    place = re.compile(r"(?<![\w.~}])/(?:home|root|work|Users|opt|tmp|mnt)/\w")
    texts = {".py", ".md", ".toml", ".txt", ".ini", ".tmpl", ".j2", ".css", ""}
    found = [path for path in files() if path.suffix in texts and place.search(path.read_text(errors="replace"))]
    assert [relative(path) for path in found] == []


# dependencies ---------------------------------------------------------------------------------------------


def test_core_imports_no_plugin():
    assert distributions(CORE) & OWN.keys() == set()
    assert requirement_names(project(ROOT)["dependencies"]) & OWN.keys() == set()


@each_plugin
def test_dependencies_run_one_way(folder):
    allowed = {"core"} if kind_of(folder) == "modality" else {"core", "modality"}
    used = distributions(source(folder)) | requirement_names(project(folder)["dependencies"]) | extras(folder)
    assert {name for name in used & OWN.keys() if OWN[name] not in allowed} == set()


@each_plugin
def test_family_is_required_in_this_series(folder):
    family = [text for text in project(folder)["dependencies"] if Requirement(text).name in OWN]
    assert "micore>=0.1,<0.2" in family
    assert [text for text in family if not text.endswith(">=0.1,<0.2")] == []


@pytest.mark.parametrize("folder", [ROOT, *PLUGINS], ids=lambda folder: folder.name)
def test_what_is_imported_is_declared_and_nothing_else(folder):
    used = distributions(CORE if folder == ROOT else source(folder))
    declared = requirement_names(project(folder)["dependencies"])
    assert used - declared - extras(folder) == set(), "imported, not declared"
    assert (declared | extras(folder)) - used == set(), "declared, not imported"


# start-up -------------------------------------------------------------------------------------------------


@each_plugin
def test_plugin_module_imports_only_descriptions(folder):
    plugin = source(folder) / "plugin.py"
    # the hooks of a tracker do something, which stands elsewhere in the package and is imported when it is done
    own = {source(folder).name} if kind_of(folder) == "tracker" else set()
    at_the_top = {
        name for item in tree(plugin).body if isinstance(item, ast.ImportFrom) for name in imports(plugin, item)
    }
    assert set(imports(plugin)) - START - {"__future__", "collections.abc"} - own == set()
    assert at_the_top & own == set()
    assert set(imports(source(folder) / "__init__.py")) - {"__future__"} == set()


def test_start_up_loads_nothing_heavy():
    code = f"""
import json, runpy, sys
sys.argv = ["mi", "list-plugins", "--json"]
try:
    runpy.run_module("micore", run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps(sorted({HEAVY!r} & sys.modules.keys())), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stderr.splitlines()[-1]) == []
    listed = {plugin["distribution"] for plugin in json.loads(done.stdout)["plugins"]}
    assert OWN.keys() - {"micore"} <= listed


# the core knows no plugin ---------------------------------------------------------------------------------


def words(path):
    """Identifiers and strings of a file that are not documentation, in lower case and with spaces."""
    statements = [node.value for node in ast.walk(tree(path)) if isinstance(node, ast.Expr)]
    documentation = {value for value in statements if isinstance(value, ast.Constant)}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in documentation:
            yield node.value.lower()
        for field in ("name", "id", "attr", "arg"):
            name = getattr(node, field, None)
            if isinstance(name, str):
                yield re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", name).lower()


COMMON_WORDS = {"top-k"}
"""Names of plugins that are words of the core too: what any interface may show, and figures among the first k."""


def own_names():
    """Names that can only mean a plugin: of packages, attacks and defenses, and of others if they have a hyphen."""
    names = {name for kind, name in KNOWN if kind in ("attack", "defense") or "-" in name}
    return (names | OWN.keys()) - {"micore", CONTROL, *COMMON_WORDS}


def test_core_names_no_plugin():
    names = re.compile(r"(?<![\w-])(" + "|".join(map(re.escape, sorted(own_names()))) + r")(?![\w-])")
    texts = {(relative(path), text) for path in CORE.rglob("*.py") for text in words(path)}
    found = {(place, text) for place, text in texts if names.search(text) or names.search(text.replace(" ", "-"))}
    assert {(place, text) for place, text in found if place not in NAMES_ALLOWED} == set()


def test_core_knows_no_modality():
    texts = {(relative(path), text) for path in CORE.rglob("*.py") for text in words(path)}
    found = {(place, text) for place, text in texts if OF_ONE_MODALITY.search(text)}
    assert {(place, text) for place, text in found if place not in NAMES_ALLOWED} == set()


# style ----------------------------------------------------------------------------------------------------


def test_files_are_short():
    limits = {path: 400 if path.is_relative_to(CORE) else 300 for path in sources()}
    lengths = {path: len(path.read_text().splitlines()) for path in limits}
    assert {relative(path): lengths[path] for path in limits if lengths[path] > limits[path]} == {}


def test_nothing_is_printed():
    calls = [(path, node.func) for path, node in nodes(ast.Call)]
    assert [relative(path) for path, function in calls if getattr(function, "id", None) == "print"] == []


def nodes(kind):
    return [(path, node) for path in sources() for node in ast.walk(tree(path)) if isinstance(node, kind)]


def is_broad(handler):
    caught = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
    raised_again = any(isinstance(node, ast.Raise) and node.exc is None for node in handler.body)
    return bool(caught & {"Exception", "BaseException"}) and not raised_again


def test_any_exception_is_caught_only_at_the_seams():
    handlers = nodes(ast.ExceptHandler)
    assert [relative(path) for path, handler in handlers if handler.type is None] == []
    broad = Counter(relative(path) for path, handler in handlers if is_broad(handler))
    assert {name: count for name, count in broad.items() if count > BROAD.get(name, 0)} == {}
    assert {name for name in BROAD if not broad[name]} == set(), "a seam that is no more"


@pytest.mark.parametrize("stem", ["utils", "helpers", "common", "misc"])
def test_files_say_what_they_are_about(stem):
    assert [relative(path) for path in sources() if path.stem == stem] == []
