"""Data sets of tables: what is wrong with a file is said with its name and line; parts are as they were asked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from mi_tabular.datasets import files
from mi_tabular.datasets.files import open_csv_table
from mi_tabular.datasets.made import open_made_people
from mi_tabular.overlap import measure_overlap
from micore.errors import DataError

GOOD = [f"{20 + row},{'ab'[row % 2]},{'xyz'[row % 3]},{'no' if row % 4 else 'yes'}" for row in range(40)]
HEADER = "age,place,kind,cost"
OPTIONS = {"label": "cost", "sensitive": "kind"}


def written(path: Path, rows: list[str], header: str = HEADER) -> str:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return str(path)


def changed(row: int, text: str) -> list[str]:
    return [*GOOD[:row], text, *GOOD[row + 1 :]]


def test_a_table_is_divided_and_says_what_it_said(tmp_path: Path) -> None:
    data = open_csv_table(written(tmp_path / "t.csv", GOOD), **OPTIONS)
    assert [len(data.split(name)) for name in ("private", "holdout", "public")] == [16, 12, 12]
    found = [
        f"{record['age']:.0f},{record['place']},{record['kind']},{data.classes[label]}"
        for name in ("private", "holdout", "public")
        for record, label in zip(data.split(name).table.records(), data.split(name).labels.tolist(), strict=True)
    ]
    assert sorted(found) == sorted(GOOD)
    counts = data.public.table.values().bincount(minlength=3) + 1
    torch.testing.assert_close(data.frequencies, counts / counts.sum(), check_dtype=False)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (GOOD, {"label": "price"}, "t.csv, line 1: no column 'price'"),
        (GOOD, {"sensitive": "gender"}, "t.csv, line 1: no column 'gender'"),
        (GOOD, {"drop": "name"}, "t.csv, line 1: no column 'name'"),
        (changed(3, "23,nan,x,no"), {}, r"t.csv, line 5: column 'place' has no value \('nan'\)"),
        (changed(3, "23,,x,no"), {}, "t.csv, line 5: column 'place' has no value"),
        (changed(3, "23,a,x"), {}, "t.csv, line 5: 3 cells, the first line has 4"),
        ([row.replace("b", "a") for row in GOOD], {}, "t.csv: column 'place' is always 'a'"),
        (changed(7, "old,b,y,no") + [f"{row},a,x,no" for row in range(90, 130)], {}, r"t.csv, line 9: .*holds 'old'"),
        (GOOD, {"sensitive": "age"}, "t.csv, line 2: column 'age' holds '20' and has 40 values"),
        (GOOD, {"sensitive": "cost"}, "cannot be both"),
        (GOOD[:12], {}, "12 rows are too few"),
        ([], {}, "no rows"),
        (GOOD, {"private": 30, "holdout": 20}, "40 rows are too few for parts of 30 and 20"),
    ],
)
def test_bad_tables_are_named_with_file_and_line(
    tmp_path: Path, rows: list[str], options: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        open_csv_table(written(tmp_path / "t.csv", rows), **{**OPTIONS, **options})


def test_a_category_that_only_the_public_file_has_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", GOOD)
    other = written(tmp_path / "other.csv", changed(5, "25,c,x,no"))
    with pytest.raises(DataError, match=r"other\.csv, line 7: column 'place' holds 'c', which is none of its values"):
        open_csv_table(path, public_file=other, **OPTIONS)
    assert len(open_csv_table(path, public_file=path, **OPTIONS).public) == len(GOOD)


def test_missing_cells_are_kept_or_left_out_when_asked(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", changed(3, "23,?,x,no"))
    kept = open_csv_table(path, missing="category", **OPTIONS)
    assert "(missing)" in kept.schema.columns[1].categories
    left = open_csv_table(path, missing="drop", **OPTIONS)
    assert sum(len(left.split(name)) for name in ("private", "holdout", "public")) == len(GOOD) - 1


def test_the_adversary_may_know_frequencies_alone() -> None:
    whole, bare = (open_made_people(None, known=known) for known in ("rows", "frequencies"))
    assert bool((bare.public.table.values() == -1).all())
    torch.testing.assert_close(bare.frequencies, whole.frequencies)
    assert torch.equal(
        whole.schema.known(whole.public.table.rows), bare.schema.known(bare.public.table.rows)
    )  # fmt: skip


def test_overlap_counts_rows_that_are_equal() -> None:
    data = open_made_people(None, private=50, holdout=50, public=50)
    assert measure_overlap(data)["public"] == {"n": 50, "equal": 0, "equal_known": 0}


real = pytest.mark.skipif(
    not (Path(os.environ.get("MI_DATA_ROOT", "no-such-place")) / "tabular").is_dir(), reason="needs the data root"
)


@real
@pytest.mark.parametrize(
    ("opener", "n", "values"),
    [
        (files.open_adult, 48842, ("married", "single")), (files.open_steak, 331, ("No", "Yes")),
        (files.open_warfarin, 3524, ("A/A", "A/G", "G/G")), (files.open_happy, 34823, ("married", "not married")),
    ],
)  # fmt: skip
def test_known_tables_have_all_their_rows(opener: object, n: int, values: tuple[str, ...]) -> None:
    data = opener(None)  # type: ignore[operator]
    assert sum(len(data.split(name)) for name in ("private", "holdout", "public")) == n
    assert data.schema.values == values
    assert data.schema.sensitive not in {column.name for column in data.schema.columns} - {data.schema.sensitive}
