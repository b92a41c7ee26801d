"""Reports in a real browser: quiet, self-contained, readable on a telephone and in the dark, sortable."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from micore.contracts import Case, Reconstruction, Snapshot
from micore.models import load_modality
from micore.registry import Registry
from micore.report import render
from micore.runs import Run
from tests.report.browser import CONTRASTS, NAMELESS, Browser, column, find, launched, press
from tests.run_directories import figures, make_run, manifest, measurement

PROGRAM = find()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium to look at reports with")

MODALITIES = ("image", "text", "graph", "audio")
SCHEMES = pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
PHONE = 400


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert PROGRAM is not None
    with launched(PROGRAM, tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def samples(modality: str, value: float) -> Any:
    """Return two samples of a modality, other ones for each value."""
    rng = torch.Generator().manual_seed(int(value) + 1)
    if modality == "image":
        return torch.rand(2, 1, 16, 16, generator=rng)
    if modality == "text":
        return [f"Person {value:.0f} <b>lives</b> in a street with a {'very' * 60} long name", "line\nbreak"]
    if modality == "audio":
        return torch.rand(2, 8000, generator=rng) - 0.5
    from mi_graph.batch import Graphs
    from mi_graph.graphs import Graph

    return Graphs.whole([Graph(torch.rand(6, 2, generator=rng), torch.tensor([[0, 1, 2], [1, 2, 5]]))] * 2)


def odd_run(directory: Path, modality: str) -> Run:
    """Make a run with much to show: long names, failed cases, figures without value, earlier stands."""
    content = manifest(12)
    content["ledger"]["total"]["queries"] = 700
    content["attack"]["modality"] = modality
    content["target"]["card"]["classes"][0] = "a-class-with-a-name-" * 8
    content["cases"][11] |= {"status": "failed", "error": "RuntimeError: " + "no-gradient-" * 20}
    per_case = {f"class-{label}": (label * 5 % 11) / 12 for label in range(10)}
    found = [
        *figures(per_case=per_case), *figures("down", per_case={"class-0": math.nan}),
        measurement(name="a-figure-with-a-long-name-" * 3, value=12345.678), measurement(name="lost", value=math.nan),
    ]  # fmt: skip
    found += [measurement(f"snapshot-{step}", 0.2 + step / 10, (0.1, 0.4)) for step in range(3)]
    implementation = load_modality(Registry.discover(), modality)
    run = make_run(
        directory, content, found, modality=implementation, samples=lambda value: samples(modality, value)
    )  # fmt: skip
    for label, row in enumerate(list(run.rows().values())):
        stands = [Snapshot(queries=10 * step, samples=samples(modality, 50.0)) for step in range(1, 4)]
        item = Reconstruction(
            case=Case(id=row["id"], goal="class", label=label), samples=samples(modality, label), scores=torch.zeros(2),
            snapshots=stands, history={"loss-" * 12: [9.5 - label, 4.25, 1 / (label + 1)]},
        )  # fmt: skip
        kept = None if row["status"] == "failed" else item
        run.write_case({**row, "spending": {"queries": 50, "gradients": 0}}, kept, implementation)
    return run


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The addresses of one report for each modality."""
    place, found = tmp_path_factory.mktemp("reports"), {}
    for modality in MODALITIES:
        run = odd_run(place / modality, modality)
        path = place / f"{modality}.html"
        path.write_text(render(run, "html", modality=load_modality(Registry.discover(), modality)), encoding="utf-8")
        found[modality] = path.as_uri()
    return found


@pytest.mark.parametrize("modality", MODALITIES)
@SCHEMES
def test_a_report_is_quiet_self_contained_and_named(browser: Browser, pages, modality, dark) -> None:
    with browser.open(pages[modality], dark=dark) as page:
        assert page.evaluate("document.querySelectorAll('.gallery figure').length") == 11
        assert page.evaluate("document.querySelectorAll('img, svg').length") >= 5
        assert page.evaluate("document.querySelectorAll('.curve svg').length") == 2  # what was judged, and a loss
        assert page.evaluate(NAMELESS) == []
        assert page.evaluate("[...document.images].every((image) => image.naturalWidth > 0)") is True
        asked = [address for address in page.requests() if not address.startswith("data:")]
        assert asked == [pages[modality]]
        assert page.complaints() == []


@pytest.mark.parametrize("modality", MODALITIES)
def test_blurred_samples_are_named_and_fit(browser: Browser, tmp_path: Path, modality) -> None:
    implementation = load_modality(Registry.discover(), modality)
    path = tmp_path / "blurred.html"
    run = odd_run(tmp_path / "run", modality)
    path.write_text(render(run, "html", modality=implementation, blurred=True), encoding="utf-8")
    with browser.open(path.as_uri(), width=PHONE) as page:
        assert page.evaluate("document.querySelectorAll('.gallery figure').length") == 11
        assert page.evaluate("document.querySelectorAll('audio').length") == 0
        assert page.evaluate("[...document.images].every((image) => image.naturalWidth <= 8)") is True
        assert page.evaluate(NAMELESS) == []
        assert page.overflow() <= 0
        assert page.complaints() == []


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("width", [PHONE, 700, 1200])
def test_a_report_fits_its_window(browser: Browser, pages, modality, width) -> None:
    with browser.open(pages[modality], width=width) as page:
        assert page.evaluate("window.innerWidth") == width
        assert page.overflow() <= 0
        assert page.evaluate("parseFloat(getComputedStyle(document.body).fontSize)") >= 16


@SCHEMES
def test_text_can_be_read(browser: Browser, pages, dark) -> None:
    with browser.open(pages["text"], dark=dark) as page:
        found = page.evaluate(CONTRASTS)
        assert len(found) > 200
        assert [item for item in found if item[0] < 4.5] == []


def test_dark_and_light_differ(browser: Browser, pages) -> None:
    colours = []
    for dark in (False, True):
        with browser.open(pages["image"], dark=dark) as page:
            colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(247, 247, 245)", "rgb(20, 24, 27)"]


def test_tables_are_sorted_by_their_heads(browser: Browser, pages) -> None:
    table = '[aria-label="Figures by case"] table'
    with browser.open(pages["image"]) as page:
        before = column(page, table, 3)
        assert press(page, table, 3) == "ascending"
        rising = column(page, table, 3)
        assert rising == [*sorted(before[:10], key=float), "n/a", "n/a"]
        assert press(page, table, 3) == "descending"
        assert column(page, table, 3) == [*sorted(before[:10], key=float, reverse=True), "n/a", "n/a"]
        assert press(page, table, 0) == "ascending"
        assert column(page, table, 0) == [f"class-{label}" for label in range(12)]  # by number, not by letter
        assert page.evaluate("document.querySelectorAll('[aria-sort]').length") == 1
        assert page.complaints() == []


def test_every_table_can_be_sorted_but_for_its_drawings(browser: Browser, pages) -> None:
    with browser.open(pages["image"]) as page:
        plain = "[...document.querySelectorAll('thead th')].filter((head) => !head.querySelector('button'))"
        assert page.evaluate(f"{plain}.map((head) => head.textContent)") == ["position"]


def test_a_bad_page_is_found_out(browser: Browser, tmp_path: Path, pages) -> None:
    """What the tests above rely on: each fault shows."""
    text = Path(pages["image"].removeprefix("file://")).read_text(encoding="utf-8")
    bad = '<img src="missing.png"><script>alert(1)</script><div style="width: 900px">x</div></main>'
    path = tmp_path / "bad.html"
    path.write_text(text.replace("</main>", bad), encoding="utf-8")
    with browser.open(path.as_uri(), width=PHONE) as page:
        complaints = " ".join(page.complaints())
        assert "script" in complaints
        assert "missing.png" in complaints
        assert page.overflow() > 0
        assert len(page.evaluate(NAMELESS)) == 1
    open_policy = text.replace("default-src 'none';", "").replace("img-src data:;", "")
    path.write_text(open_policy.replace("</main>", bad), encoding="utf-8")
    with browser.open(path.as_uri()) as page:
        assert any(address.endswith("missing.png") for address in page.requests())
