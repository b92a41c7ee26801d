"""The tool that checks wheels finds what is wrong with them."""

from __future__ import annotations

import importlib.util
import sys
import zipfile
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parent.parent / "tools" / "check_wheels.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("check_wheels", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_wheels"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["check_wheels"]


@pytest.fixture
def wheel(tmp_path):
    def make(files, requires=(), name="mi-toy"):
        module = name.replace("-", "_")
        path = tmp_path / f"{module}-1-py3-none-any.whl"
        needs = "".join(f"Requires-Dist: {text}\n" for text in requires)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{module}-1.dist-info/METADATA", f"Name: {name}\n{needs}\nRequires-Dist: no header\n")
            for file, content in files.items():
                archive.writestr(file, content)
        return path

    return make


SOUND = {"mi_toy/__init__.py": "", "mi_toy/py.typed": "", "mi_toy/templates/tests/test_it.py.tmpl": ""}


def test_sound_wheel_has_no_faults(tool, wheel):
    assert list(tool.faults_of(wheel(SOUND), "mi_toy")) == []


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("mi_toy/tests/cases.py", "", "holds"),
        ("mi_toy/test_it.py", "", "holds"),
        ("mi_toy/__pycache__/a.pyc", "", "holds"),
        (".pytest_cache/a", "", "holds"),
        ("mi_toy/weights.bin", b"0" * 1_100_000, "has 1.1 MB"),
    ],
)
def test_what_does_not_belong_into_a_wheel_is_found(tool, wheel, name, content, fault):
    (found,) = tool.faults_of(wheel({**SOUND, name: content}), "mi_toy")
    assert fault in found


def test_untyped_wheel_is_found(tool, wheel):
    assert list(tool.faults_of(wheel({}), "mi_toy")) == ["has no py.typed"]


def test_requirements_of_extras_and_other_platforms_are_left_out(tool, wheel):
    texts = ["click>=8", 'rich; extra == "nice"', 'numpy; python_version < "3"']
    assert [need.name for need in tool.requirements(wheel({}, texts))] == ["click"]


def test_family_follows_requirements_among_the_wheels(tool, wheel):
    wheels = {
        "mi-a": wheel({}, ["mi-b>=0.1", "click"], "mi-a"), "mi-b": wheel({}, ["micore"], "mi-b"),
        "mi-c": wheel({}, [], "mi-c"), "micore": wheel({}, [], "micore"),
    }  # fmt: skip
    assert list(tool.family("mi-a", wheels)) == ["mi-a", "mi-b", "micore"]


def test_third_party_packages_are_found_with_what_they_need(tool, wheel):
    found = tool.third_party([wheel({}, ["rich>=13", "mi-b"])], ["mi-b"])
    assert {"rich", "pygments", "markdown-it-py"} <= found.keys()
    assert "torch" not in found


@pytest.mark.parametrize("text", ["rich>=1000", "no-such-distribution-anywhere"])
def test_requirement_that_is_not_met_is_an_error(tool, wheel, text):
    with pytest.raises(tool.WheelError, match=r"rich|no-such"):
        tool.third_party([wheel({}, [text])], [])


def test_only_declared_distributions_are_linked(tool, wheel, tmp_path):
    place = tmp_path / "third-party"
    tool.link(tool.third_party([wheel({}, ["packaging"])], []).values(), place)
    assert "packaging" in {path.name for path in place.iterdir()}
    assert not (place / "click").exists()
