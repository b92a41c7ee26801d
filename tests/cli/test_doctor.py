"""``mi doctor``, and the directories it tells of."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from micore.home import cache, home

Mi = Callable[..., Result]


def test_json(mi: Mi, site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("mi-attack-raises", "1 / 0")
    site.install_attack("mi-attack-fine", "fine")
    monkeypatch.setenv("MI_HOME", str(tmp_path / "not" / "yet"))
    result = mi("doctor", "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert set(document) == {
        "schema", "micore", "python", "platform", "torch", "packages", "home", "cache", "plugins", "broken",
    }  # fmt: skip
    assert document["schema"] == "micore.doctor/1"
    assert document["torch"]["devices"][0] == "cpu"
    assert document["home"] == str(tmp_path / "not" / "yet")
    assert document["cache"]["writable"] is True
    assert document["cache"]["free_bytes"] > 0
    assert document["plugins"]["ok"] >= 1
    assert "mi-attack-raises" in [item["distribution"] for item in document["broken"]]
    assert not (tmp_path / "not").exists()


def test_text(mi: Mi, site: Any) -> None:
    site.install("mi-attack-raises", "1 / 0")
    result = mi("doctor")
    assert result.exit_code == 0
    for text in ("python", "torch", "devices", "cache", "GiB free"):
        assert text in result.stdout
    assert "division by zero" in result.stderr


def test_what_is_missing_is_a_finding(mi: Mi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr("micore.cli.doctor.PACKAGES", ("no-such-package",))
    (tmp_path / "file").touch()
    monkeypatch.setenv("MI_HOME", str(tmp_path / "file"))
    result = mi("--no-plugins", "doctor")
    assert result.exit_code == 0
    assert "torch cannot be imported" in result.stdout
    assert "no-such-package MISSING" in result.stdout
    assert "CANNOT BE WRITTEN" in result.stdout


def test_home_and_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MI_HOME", str(tmp_path))
    assert (home(), cache()) == (tmp_path, tmp_path / "cache")
    monkeypatch.delenv("MI_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert (home(), cache()) == (Path("/data/micore"), Path("/cache/micore"))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", "/users/me")
    assert (home(), cache()) == (Path("/users/me/.local/share/micore"), Path("/users/me/.cache/micore"))
