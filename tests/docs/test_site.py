"""The documentation site: its navigation, its links, and a strict build where mkdocs is installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
HAS_MKDOCS = find_spec("mkdocs") is not None and find_spec("material") is not None


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = spec_from_file_location("site_hooks", ROOT / "tools" / "site_hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_navigation_follows_the_index(hooks: ModuleType) -> None:
    index = "# D\n\n[out](../README.md)\n\n## One\n\n- [A](a.md): b\n- [Out](../x.md)\n\n## Two\n\n"
    index += "- Kinds: [b](p/b.md),\n  [c](p/c.md)\n"
    two = [{"Kinds": [{"b": "p/b.md"}, {"c": "p/c.md"}]}]
    assert hooks.navigation(index) == [{"Start": "index.md"}, {"One": [{"A": "a.md"}]}, {"Two": two}]


def test_links_that_leave_the_site(hooks: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_uri="how-to/own-data.md"))
    text = "[in](../index.md) [out](../../README.md#a) [web](https://x.example)\n\n```\n[code](../../README.md)\n```\n"
    monkeypatch.delenv("MI_SOURCE_URL", raising=False)
    assert hooks.on_page_markdown(text, page=page) == text.replace("[out](../../README.md#a)", "out")
    monkeypatch.setenv("MI_SOURCE_URL", "https://forge.example/main/")
    wanted = text.replace("../../README.md#a", "https://forge.example/main/README.md#a")
    assert hooks.on_page_markdown(text, page=page) == wanted


@pytest.mark.skipif(not HAS_MKDOCS, reason="mkdocs-material is not installed")
def test_site_builds_strictly(tmp_path: Path) -> None:
    # Not --quiet: warnings that are not shown are not counted either.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_COLOR": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    pages = {path.with_name("index.html") if path.stem == "README" else path for path in pages}
    assert {path for path in pages if not (tmp_path / "site" / path).is_file()} == set()
    start = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert not re.findall(r"""<(?:script|link)[^>]+(?:src|href)=["']https?://""", start), "loads from elsewhere"
