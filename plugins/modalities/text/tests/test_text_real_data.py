"""Real texts under MI_DATA_ROOT: counts, classes, disjoint splits. Skipped where there are none."""

import os
from pathlib import Path

import pytest
import torch

from mi_text.datasets.files import open_csv, open_txt

ROOT = Path(os.environ.get("MI_DATA_ROOT", ""))
NEWS, PLAYS = ROOT / "text/ag_news/test.csv.gz", ROOT / "text/tinyshakespeare/input.txt.gz"
needs_news = pytest.mark.skipif(not NEWS.is_file(), reason="MI_DATA_ROOT has no text/ag_news")
needs_plays = pytest.mark.skipif(not PLAYS.is_file(), reason="MI_DATA_ROOT has no text/tinyshakespeare")


@needs_news
def test_news_of_four_classes():
    dataset = open_csv(str(NEWS), columns="topic,title,text", label="topic", public=0.5)
    assert dataset.classes == ("1", "2", "3", "4")
    private, holdout, public = (dataset.split(name) for name in ("private", "holdout", "public"))
    assert len(private) + len(holdout) + len(public) == 7600
    for split, share in ((private, 0.4), (holdout, 0.1)):
        assert torch.bincount(split.labels).tolist() == pytest.approx([1900 * share] * 4, rel=0.02)
    assert not set(private.texts) & {*holdout.texts, *public.texts}
    assert not set(holdout.texts) & set(public.texts)


@needs_plays
def test_lines_of_plays():
    dataset = open_txt(str(PLAYS), public=0.3)
    parts = [dataset.split(name).texts for name in ("private", "holdout", "public")]
    assert sum(map(len, parts)) == 32_777  # 40,000 lines, of which 7,223 are blank
    found = [set(part) for part in parts]
    assert sum(map(len, found)) == len(set.union(*found))
    assert max(parts[0].count(text) for text in ("ROMEO:", "GLOUCESTER:", "First Citizen:")) > 10
