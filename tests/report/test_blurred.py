"""Blurred samples: too coarse to recognise anybody, and nothing finer is in the page."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from micore.contracts import ShowsBlurred
from micore.models import load_modality
from micore.registry import Registry
from micore.report import render
from micore.runs import Run
from micore.showing import masked
from tests.run_directories import figures, make_run, manifest

TEXTS = ["Zoë Quill, born 1984-02-29, pays 5,000 € to ZQ@example.org", "secret\tword: p@ss!"]
URIS = re.compile(r"data:([a-z]+)/[a-z]+;base64,([A-Za-z0-9+/=]+)")


def samples(modality: str, seed: int) -> Any:
    """Return two samples of a modality, other ones for each seed."""
    rng = torch.Generator().manual_seed(seed + 2)
    if modality == "image":
        return torch.rand(2, 3, 40, 24, generator=rng)
    if modality == "audio":
        return torch.rand(2, 8000, generator=rng) - 0.5
    if modality == "text":
        return TEXTS
    if modality == "graph":
        from mi_graph.batch import Graphs
        from mi_graph.graphs import Graph

        return Graphs.whole([Graph(torch.rand(6, 2, generator=rng), torch.tensor([[0, 1, 2], [1, 2, 5]]))] * 2)
    from mi_tabular.schema import Column, Schema
    from mi_tabular.table import Table

    columns = (Column("job", ("quillmaker", "other")), Column("ill", ("yes", "no")))
    schema = Schema(columns, "ill")
    return Table(torch.tensor([[1.0, 0, 1, 0]] * 2), schema)


def implementation(modality: str) -> Any:
    return load_modality(Registry.discover(), modality)


def run_of(directory: Path, modality: str) -> Run:
    content = manifest(2)
    content["attack"]["modality"] = modality
    return make_run(
        directory, content, figures(), modality=implementation(modality),
        samples=lambda value: samples(modality, int(value)),
    )  # fmt: skip


def page_of(directory: Path, modality: str, *, blurred: bool) -> str:
    run = run_of(directory / str(blurred), modality)
    return render(run, "html", modality=implementation(modality), blurred=blurred)


def embedded(page: str) -> list[tuple[str, bytes]]:
    return [(kind, base64.b64decode(data)) for kind, data in URIS.findall(page)]


def test_a_text_keeps_its_shape_and_none_of_its_characters() -> None:
    assert masked("Zoë Quill,\n1984 €") == "Xxx Xxxxx. 0000 ."
    for text in TEXTS:
        hidden = masked(text)
        assert len(hidden) == len(text)
        assert [len(word) for word in hidden.split()] == [len(word) for word in text.split()]
        assert set(hidden) <= set("Xx0. ")


def test_no_word_of_a_text_is_in_the_page(tmp_path: Path) -> None:
    full, page = (page_of(tmp_path, "text", blurred=blurred) for blurred in (False, True))
    words = [word for text in TEXTS for word in re.findall(r"[\w@-]{4,}", text)]
    assert len(words) >= 8
    assert all(word in full for word in words)
    assert [word for word in words if word in page] == []
    assert masked(TEXTS[0]) in page


def test_images_of_a_page_have_a_few_pixels(tmp_path: Path) -> None:
    def sizes(*, blurred: bool) -> list[tuple[int, int]]:
        page = page_of(tmp_path, "image", blurred=blurred)
        return [Image.open(io.BytesIO(data)).size for _, data in embedded(page)]

    assert sizes(blurred=False) == [(24, 40)] * 8  # two samples of two cases and their control
    assert sizes(blurred=True) == [(2, 4)] * 8


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (8, 8), (64, 64), (200, 30)])
def test_images_of_every_size_are_coarser_than_they_were(size: tuple[int, int]) -> None:
    images = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(0))
    page = implementation("image").show_blurred(images, 1)
    ((_, data),) = embedded(page)
    width, height = Image.open(io.BytesIO(data)).size
    assert max(width, height) <= max(1, min(4, max(size) // 2))


def test_what_lies_within_a_part_of_an_image_does_not_matter() -> None:
    """The page depends on means alone: nothing finer can be found in it, whoever looks."""
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255
    turned = images.unflatten(2, (4, 4)).flip(3).flatten(2, 3)  # each part upside down
    show = implementation("image").show_blurred
    assert not torch.equal(images, turned)
    assert show(images, 1) == show(turned, 1)


def test_a_blurred_clip_has_no_sound(tmp_path: Path) -> None:
    full, page = (page_of(tmp_path, "audio", blurred=blurred) for blurred in (False, True))
    assert "audio" in {kind for kind, _ in embedded(full)}
    assert "<audio" not in page
    kinds = embedded(page)
    assert len(kinds) == 8
    assert {(kind, Image.open(io.BytesIO(data)).size) for kind, data in kinds} == {("image", (8, 4))}
    assert masked("one two") in implementation("audio").show_blurred(["one two"], 1)


def test_a_blurred_graph_is_its_size(tmp_path: Path) -> None:
    full, page = (page_of(tmp_path, "graph", blurred=blurred) for blurred in (False, True))
    assert 'aria-label="graph of' in full
    assert 'aria-label="graph of' not in page
    assert "about 6 nodes and 3 edges" in page


def test_tables_are_left_out_with_a_sentence(tmp_path: Path) -> None:
    full, page = (page_of(tmp_path, "tabular", blurred=blurred) for blurred in (False, True))
    assert not isinstance(implementation("tabular"), ShowsBlurred)
    assert "quillmaker" in full
    assert "quillmaker" not in page
    assert "this modality cannot show them blurred" in page


def test_a_blurred_page_has_no_evidence_and_nothing_private(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", "text")
    modality = implementation("text")
    run.write_controls("evidence", run.reconstructions(modality), modality)
    page = render(run, "html", modality=modality, blurred=True)
    assert "<span>recovered</span>" in page
    assert "<span>prior-samples</span>" in page
    assert "<span>evidence</span>" not in page
