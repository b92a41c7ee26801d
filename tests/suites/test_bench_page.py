"""The page of a benchmark in a real browser: quiet, readable on a telephone and in the dark, sortable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.report.browser import CONTRASTS, NAMELESS, Browser, Page, column, find, launched, press
from tests.suites.conftest import Pretended

PROGRAM = find()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium to look at benchmarks with")

SUITE = """
name = "toy"
seeds = [0, 1, 2]
[[target]]
name = "grids-with-a-name-that-is-long-enough-to-be-a-nuisance"
data = "grids"
data_options = { size = 4 }
model = "conv"
[[defense]]
name = "none"
[[defense]]
name = "half"
uses = ["half"]
[[attack]]
plugin = "scripted"
[[attack]]
plugin = "by-label"
budget_queries = [50, 1000]
defenses = ["none"]
seeds = [0]
"""
ROWS = '[aria-label="Table of rows"] table'


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert PROGRAM is not None
    with launched(PROGRAM, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def address(
    suite: Path, run_suite: Callable[..., dict[str, Any]], pretended: Pretended, tmp_path: Path
) -> str:  # fmt: skip
    """The address of a benchmark of rows, seeds, budgets and defenses, one of which failed."""
    suite.write_text(SUITE)
    pretended.errors = {"--budget-queries 50 ": "<b>no|good</b>, " + "no-gradient-" * 20}
    found = run_suite()
    assert [row["status"] for row in found["rows"]].count("failed") == 1
    return (tmp_path / "out" / "bench.html").as_uri()


def check_reading(page: Page, address: str, width: int) -> None:
    assert page.evaluate("window.innerWidth") == width
    assert page.overflow() <= 0
    assert page.evaluate("parseFloat(getComputedStyle(document.body).fontSize)") >= 16
    assert page.evaluate(NAMELESS) == []
    found = page.evaluate(CONTRASTS)
    assert len(found) > 100
    assert [item for item in found if item[0] < 4.5] == []
    assert [asked for asked in page.requests() if not asked.startswith("data:")] == [address]
    assert page.complaints() == []


def test_the_page_of_a_benchmark_is_quiet_readable_and_sortable(browser: Browser, address: str) -> None:
    colours = []
    for dark in (False, True):
        for width in (400, 1200):
            with browser.open(address, width=width, dark=dark) as page:
                check_reading(page, address, width)
                colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(247, 247, 245)"] * 2 + ["rgb(20, 24, 27)"] * 2
    with browser.open(address) as page:
        assert page.evaluate("document.querySelectorAll('table').length") >= 5
        unsorted = "[...document.querySelectorAll('thead th')].filter((head) => !head.querySelector('button')).length"
        assert page.evaluate(unsorted) == 0
        check_sorting(page)
        assert page.complaints() == []


def check_sorting(page: Page) -> None:
    before = column(page, ROWS, 5)
    known = sorted((float(cell.split()[0]) for cell in before if cell), reverse=True)
    assert len(known) < len(before), "a row without a figure"
    assert len(set(known)) > 1
    assert press(page, ROWS, 5) == "ascending"
    assert press(page, ROWS, 5) == "descending"
    after = column(page, ROWS, 5)
    assert [float(cell.split()[0]) for cell in after[: len(known)]] == known
    assert set(after[len(known) :]) == {""}
    assert press(page, ROWS, 3) == "ascending"
    assert column(page, ROWS, 3) == sorted(column(page, ROWS, 3))
    assert page.evaluate("document.querySelectorAll('[aria-sort]').length") == 1


def test_cells_of_every_table_are_sorted_as_numbers(browser: Browser, address: str) -> None:
    """A tenth is more than a twentieth, however it is written."""
    with browser.open(address) as page:
        table = "main section[aria-labelledby=curves] table"
        count = page.evaluate(f"document.querySelectorAll('{table}').length")
        assert count >= 2
        keys = f"[...document.querySelectorAll('{table} tbody td')].map((cell) => cell.dataset.value)"
        found = page.evaluate(keys)
        assert sum(key not in ("", "none", "failed") and float(key) >= 0 for key in found) > 5
