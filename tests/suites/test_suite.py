"""Suite files: what they may say, and one clear line for what they may not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from micore.errors import ConfigError, MiError, UsageError
from micore.suites import load_suite
from micore.suites.checks import check_suite
from micore.suites.rows import Precision, differences, plan_rows, select
from tests import toys

ROOT = Path(__file__).resolve().parents[2]

PLUGIN = 'plugin = "scripted"'
MODEL = 'model = "conv"'
NAME = 'name = "small"'

SMALL = """
name = "small"
[[target]]
name = "grids"
data = "grids"
model = "conv"
[[attack]]
plugin = "scripted"
"""

FULL = """
name = "full"
seeds = [0, 1]
judges = 2
figures = ["mean"]
[[target]]
name = "a"
data = "grids"
data_options = { size = 4 }
model = "conv:width=4"
training = { epochs = 2 }
precision = "bf16"
[[target]]
name = "b"
data = "grids"
model = "mlp"
[[defense]]
name = "none"
[[defense]]
name = "both"
uses = ["half:factor=0.9", "tail"]
[[attack]]
plugin = "scripted"
options = { steps = 3 }
[[attack]]
name = "few"
plugin = "by-label"
preset = "smoke"
classes = "0-1"
access = "scores"
precision = "bf16"
targets = ["b"]
defenses = ["none"]
seeds = [7]
evaluators = ["judged", "mean"]
"""


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "suite.toml"


def test_the_smallest_suite(file: Path) -> None:
    suite = load_suite(written(file, SMALL))
    (row,) = plan_rows(suite)
    assert row.name == "grids/none/scripted/0"
    assert row.target.settings["defenses"] == []
    assert row.judging == {"judges": 1, "evaluators": None}


def test_rows_are_the_product_of_what_is_asked_for(file: Path) -> None:
    rows = plan_rows(load_suite(written(file, FULL)), Precision(name="fp16", compiled=True))
    assert [row.name for row in rows] == [
        "a/none/scripted/0", "a/none/scripted/1", "a/both/scripted/0", "a/both/scripted/1",
        "b/none/scripted/0", "b/none/scripted/1", "b/none/few/7", "b/both/scripted/0", "b/both/scripted/1",
    ]  # fmt: skip
    assert rows[0].target.settings == {
        "data": "grids", "data_options": {"size": 4}, "model": "conv:width=4", "training": {"epochs": 2},
        "defenses": [], "seed": 0, "precision": "bf16", "compiled": True,
    }  # fmt: skip
    assert rows[2].target.settings["defenses"] == ["half:factor=0.9", "tail"]
    assert (rows[0].settings["precision"], rows[0].settings["options"]) == ("fp16", {"steps": 3})
    few = rows[6]
    assert (few.settings["precision"], few.settings["classes"], few.target.settings["precision"]) == (
        "bf16", "0-1", "fp16",
    )  # fmt: skip
    assert few.judging == {"judges": 2, "evaluators": ["judged", "mean"]}
    assert len({row.folder(Path("x")) for row in rows}) == len(rows)
    assert len({row.target.file(Path("x")) for row in rows}) == 9


PATTERNS = """
name = "patterns"
[[target]]
name = "a"
data = "grids"
model = "conv"
[[target]]
name = "b"
data = "grids"
model = "conv"
[[defense]]
name = "none"
[[defense]]
name = "half (a)"
uses = ["half"]
family = "halves"
[[defense]]
name = "tail"
uses = ["tail"]
targets = ["b"]
[[attack]]
plugin = "scripted"
defenses = ["half*", "tail"]
"""


def test_attacks_and_defenses_are_restricted_by_names_or_patterns(file: Path) -> None:
    suite = load_suite(written(file, PATTERNS))
    assert [row.name for row in plan_rows(suite)] == [
        "a/half (a)/scripted/0", "b/half (a)/scripted/0", "b/tail/scripted/0",
    ]  # fmt: skip
    assert suite.defenses[1].family == "halves"
    with pytest.raises(ConfigError, match=r"\[\[defense\]\] 'tail': there is no target 'c'"):
        load_suite(written(file, PATTERNS.replace('targets = ["b"]', 'targets = ["c"]')))


def test_a_row_is_chosen_by_its_name_or_a_part_of_it(file: Path) -> None:
    rows = plan_rows(load_suite(written(file, FULL)))
    assert [row.name for row in select(rows, ["few"])] == ["b/none/few/7"]
    assert [row.name for row in select(rows, ["a/*/0", "fe?"])] == [
        "a/none/scripted/0", "a/both/scripted/0", "b/none/few/7",
    ]  # fmt: skip
    assert len(select(rows, ["both"])) == 4
    assert select(rows, []) == rows
    with pytest.raises(UsageError, match="no row fits --only 'plmi'") as caught:
        select(rows, ["few", "plmi"])
    assert "a/none/scripted/0" in (caught.value.hint or "")


def test_differences_are_named() -> None:
    old = {"attack": {"options": {"steps": 3, "gone": 1}, "seed": 0}}
    new = {"attack": {"options": {"steps": 4}, "seed": 0}}
    assert differences(old, old) == []
    assert differences(old, new) == ["attack.options.steps 3 -> 4", "attack.options.gone 1 -> None"]


# bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        ("[[target]]", "[[target]", "is no TOML file: ", None),
        (NAME, "", ": 'name' is missing", None),
        (NAME, 'name = "Sm all"', ": 'name': string should match pattern", None),
        (NAME, f'{NAME}\nseed = [1]', ": there is no field 'seed'", "did you mean 'seeds'?"),
        (NAME, f'{NAME}\nseeds = []', ": 'seeds': ", None),
        (NAME, f'{NAME}\nseeds = ["1"]', ": 'seeds.0': input should be a valid integer", None),
        (NAME, f'{NAME}\njudges = 0', ": 'judges': input should be greater than or equal to 1", None),
        (MODEL, "", ", [[target]] 'grids': 'model' is missing", None),
        ('name = "grids"', "", ", [[target]] number 1: 'name' is missing", None),
        ('name = "grids"', 'name = "a/b"', ", [[target]] 'a/b': 'name': a name has letters", None),
        (MODEL, 'modle = "conv"\nmodel = "conv"', ", [[target]] 'grids': there is no field 'modle'",
         "did you mean 'model'?"),
        (MODEL, "model = 3", ", [[target]] 'grids': 'model': input should be a valid string (got 3)", None),
        (PLUGIN, "", ", [[attack]] number 1: 'plugin' is missing", None),
        (PLUGIN, f'{PLUGIN}\nzzz = 3', ", [[attack]] 'scripted': there is no field 'zzz'",
         "fields: name, plugin"),
        (PLUGIN, f'{PLUGIN}\noptions = {{ d = 2020-01-01 }}', "'options': a value is", None),
        (PLUGIN, f'{PLUGIN}\ntargets = ["grid"]', ": there is no target 'grid'", "targets: grids"),
        (PLUGIN, f'{PLUGIN}\ndefenses = ["x"]', ": there is no defense 'x'", "defenses: none"),
        (PLUGIN, f'{PLUGIN}\n[[attack]]\n{PLUGIN}', "the name stands twice", "give each"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_in_a_line(file: Path, old: str, new: str, message: str, hint: str | None) -> None:
    written(file, SMALL.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        load_suite(file)
    assert str(file) in caught.value.message
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    if hint:
        assert hint in (caught.value.hint or "")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape("no.toml cannot be read: No such file")):
        load_suite(tmp_path / "no.toml")
    with pytest.raises(ConfigError, match="Is a directory"):
        load_suite(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is no TOML file"):
        load_suite(tmp_path / "binary.toml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('data = "grids"', 'data = "gridz"', "[[target]] 'grids': "),
        (MODEL, 'model = "konv"', "[[target]] 'grids': "),
        (MODEL, f'{MODEL}\ntraining = {{ epoch = 3 }}', "[[target]] 'grids': training has no option 'epoch'"),
        (MODEL, f'{MODEL}\nprecision = "fp8"', "[[target]] 'grids': unknown precision 'fp8'"),
        (PLUGIN, 'plugin = "skripted"', "[[attack]] 'skripted': "),
        (PLUGIN, f'{PLUGIN}\npreset = "quick"', "[[attack]] 'scripted': attack 'scripted' has no preset"),
        (PLUGIN, f'{PLUGIN}\noptions = {{ step = 3 }}', "attack 'scripted' has no option 'step'"),
        (PLUGIN, f'{PLUGIN}\naccess = "label"', "needs white-box access, not label"),
        (PLUGIN, f'{PLUGIN}\naccess = "all"', "[[attack]] 'scripted': "),
        (PLUGIN, f'{PLUGIN}\nprecision = "fp8"', "[[attack]] 'scripted': unknown precision"),
        (PLUGIN, f'{PLUGIN}\nevaluators = ["stranger"]', "does not judge goal 'class'"),
        (PLUGIN, f'{PLUGIN}\nevaluators = ["panel"]', "with at least 3 evaluator models together"),
        (PLUGIN, 'plugin = "elsewhere"', "is for modality other; target 'grids' is toy"),
        ("[[attack]]", '[[defense]]\nname = "d"\nuses = ["halve"]\n[[attack]]', "[[defense]] 'd': "),
        ("[[attack]]", '[[defense]]\nname = "d"\nuses = ["half:factor=-1"]\n[[attack]]', "'d': defense 'half'"),
    ],
)  # fmt: skip
def test_what_no_plugin_offers_is_told_before_anything_runs(file: Path, old: str, new: str, message: str) -> None:
    suite = load_suite(written(file, SMALL.replace(old, new, 1)))
    with pytest.raises(MiError) as caught:
        check_suite(toys.registry(), file, suite)
    assert caught.value.message.startswith(f"{file}, [[")
    assert message in caught.value.message


def test_a_sound_suite_passes(file: Path) -> None:
    check_suite(toys.registry(), file, load_suite(written(file, FULL)))


# suites of this repository ------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.toml")), ids=lambda path: path.name)
def test_our_suites_are_sound(path: Path) -> None:
    from micore.registry import Registry

    suite = load_suite(path)
    check_suite(Registry.discover(), path, suite)
    assert suite.name == path.stem
    assert f"<!-- {suite.name}: begin -->" in (ROOT / "docs" / "benchmarks.md").read_text()


def test_the_documented_suite_is_sound(file: Path) -> None:
    from micore.registry import Registry

    text = (ROOT / "docs" / "how-to" / "run-a-benchmark.md").read_text()
    (block,) = re.findall(r"^```toml\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    suite = load_suite(written(file, block))
    check_suite(Registry.discover(), file, suite)
    assert len(plan_rows(suite)) == 7


def test_every_field_is_documented() -> None:
    from micore.suites.suite import AttackEntry, DefenseEntry, Suite, TargetEntry

    text = (ROOT / "docs" / "how-to" / "run-a-benchmark.md").read_text()
    for kind in (Suite, TargetEntry, DefenseEntry, AttackEntry):
        for name, info in kind.model_fields.items():
            assert f"`{name}`" in text or f"`[[{info.alias}]]`" in text, name
