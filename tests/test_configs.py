"""A user's texts become a checked config, or an error that helps."""

from __future__ import annotations

import pytest
from pydantic import Field

from micore.configs import make_config, parse_assignments, parse_use, preset_config
from micore.contracts import Config
from micore.errors import ConfigError


class Nested(Config):
    depth: int = 1


class Settings(Config):
    steps: int = Field(3, ge=1, description="steps")
    loss: str = "mse"
    nested: Nested = Nested()


class Plugin:
    Config = Settings
    PRESETS = {"default": {}, "smoke": {"steps": 1, "loss": "quick"}}  # noqa: RUF012


def test_assignments_are_json_where_it_parses():
    texts = ["steps=7", "rate=1e-3", "flag=true", "names=[1, 2]", "loss=poincare", "a-b= x=y "]
    assert parse_assignments(texts) == {
        "steps": 7, "rate": 1e-3, "flag": True, "names": [1, 2], "loss": "poincare", "a_b": "x=y",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["steps", "=3", ""])
def test_an_assignment_needs_key_and_value(text):
    with pytest.raises(ConfigError, match="not of the form key=value"):
        parse_assignments([text])


def test_a_use_has_a_name_and_perhaps_a_config():
    assert parse_use("half") == ("half", {})
    assert parse_use("half:") == ("half", {})
    assert parse_use("half:factor=0.5,mode=a") == ("half", {"factor": 0.5, "mode": "a"})
    with pytest.raises(ConfigError, match="'factor' is not"):
        parse_use("half:mode=a,factor")
    assert parse_use("mi-defense-half:half") == ("mi-defense-half:half", {})
    assert parse_use("mi-defense-half:half:factor=[1,2],b={}") == ("mi-defense-half:half", {"factor": [1, 2], "b": {}})


def test_a_config_is_built():
    assert make_config(Settings, {"steps": 5}, "attack 'x'") == Settings(steps=5)


@pytest.mark.parametrize(
    ("values", "message", "hint"),
    [
        ({"stepz": 1}, "attack 'x' has no option 'stepz'", "did you mean steps?"),
        ({"wholly_other": 1}, "has no option 'wholly_other'", "options: steps, loss, nested"),
        ({"steps": 0}, "option 'steps': .*greater than or equal to 1 .got 0", None),
        ({"steps": "many"}, "option 'steps': .*got 'many'", None),
        ({"nested": {"depth": "deep"}}, "option 'nested.depth'", None),
        ({"nested": {"dept": 1}}, "has no option 'nested.dept'", None),
    ],
)
def test_a_wrong_option_is_named(values, message, hint):
    with pytest.raises(ConfigError, match=message) as caught:
        make_config(Settings, values, "attack 'x'")
    assert hint is None or hint in caught.value.hint


def test_the_users_values_go_over_the_preset():
    assert preset_config(Plugin, "smoke", {"steps": 9}, "p") == Settings(steps=9, loss="quick")


@pytest.mark.parametrize(("preset", "hint"), [("smok", "did you mean smoke? "), ("zzz", "presets: default, smoke")])
def test_an_unknown_preset_is_named(preset, hint):
    with pytest.raises(ConfigError, match=f"p has no preset '{preset}'") as caught:
        preset_config(Plugin, preset, {}, "p")
    assert hint in caught.value.hint
    assert "default, smoke" in caught.value.hint
