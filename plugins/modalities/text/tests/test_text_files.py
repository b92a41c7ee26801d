"""Files of the user's own: what is read, who gets which text, and an error for each fault that names its place."""

import csv
import gzip
import json

import pytest
import torch

from mi_text.datasets.files import open_csv, open_jsonl, open_txt
from micore.errors import DataError

TOPICS = ("sea", "air", "land")


def rows(n=60, start=0):
    return [(TOPICS[index % 3], f"text {index}, of the {TOPICS[index % 3]}") for index in range(start, start + n)]


def write_csv(path, table, header=("topic", "text"), **form):
    with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w", newline="") as stream:
        csv.writer(stream, **form).writerows([header, *table] if header else table)
    return str(path)


def write_jsonl(path, table):
    path.write_text("".join(json.dumps({"topic": topic, "text": text}) + "\n" for topic, text in table))
    return str(path)


def write_txt(path, texts):
    path.write_text("\n".join(texts))
    return str(path)


def splits(dataset):
    found = {}
    for name in ("private", "holdout", "public"):
        try:
            found[name] = dataset.split(name).texts
        except DataError:
            continue
    return found


def sizes(dataset):
    return {name: len(texts) for name, texts in splits(dataset).items()}


# what is read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.tsv", "a.tsv.gz"])
def test_csv(tmp_path, name):
    form = {"delimiter": "\t"} if ".tsv" in name else {}
    dataset = open_csv(write_csv(tmp_path / name, rows(), **form), label="topic", public=0.5)
    assert dataset.classes == ("air", "land", "sea")
    assert sizes(dataset) == {"private": 24, "holdout": 6, "public": 30}
    for split in ("private", "holdout"):
        part = dataset.split(split)
        assert len(set(torch.bincount(part.labels).tolist())) == 1
        assert all(dataset.classes[label] in text for text, label in zip(part.texts, part.labels.tolist(), strict=True))
    assert dataset.split("public").labels is None
    assert dataset.input.shape == (64,)
    assert {text for texts in splits(dataset).values() for text in texts} == {text for _, text in rows()}


def test_csv_without_header_and_with_numbers_for_classes(tmp_path):
    table = [(str(index % 11 + 1), "title", f"a text, and\nits second line {index}") for index in range(44)]
    path = write_csv(tmp_path / "a.csv", table, header=None)
    dataset = open_csv(path, columns="label, title, text", label="label")
    assert dataset.classes == tuple(str(n) for n in range(1, 12))
    assert sizes(dataset) == {"private": 33, "holdout": 11}
    assert "\n" in dataset.split("private").texts[0]


def test_jsonl(tmp_path):
    path = tmp_path / "a.jsonl"
    write_jsonl(path, rows())
    path.write_text("\ufeff" + path.read_text() + "\n\n")  # blank lines are passed over
    dataset = open_jsonl(str(path), label="topic")
    assert dataset.classes == ("air", "land", "sea")
    assert sizes(dataset) == {"private": 54, "holdout": 6}
    integers = tmp_path / "b.jsonl"
    integers.write_text("".join(json.dumps({"t": f"text {n}", "k": n % 2}) + "\n" for n in range(20)))
    assert open_jsonl(str(integers), text="t", label="k").classes == ("0", "1")


@pytest.mark.parametrize("packed", [False, True])
def test_txt(tmp_path, packed):
    content = b"\xef\xbb\xbfone\r\n\r\n  two \nthree\nf\xc3\xbcnf\n"
    path = tmp_path / ("a.txt.gz" if packed else "a.txt")
    path.write_bytes(gzip.compress(content) if packed else content)
    dataset = open_txt(str(path), holdout=0.25)
    assert dataset.classes == ("text",)
    assert dataset.split("private").labels.tolist() == [0, 0, 0]
    assert sorted(dataset.split("private").texts + dataset.split("holdout").texts) == ["fünf", "one", "three", "two"]
    assert dataset.name == f"txt:{path}"


def test_data_root_is_no_part_of_the_options(tmp_path):
    path = write_txt(tmp_path / "a.txt", "abcdefghij")
    dataset = open_txt(path, data_root=str(tmp_path))
    assert dataset.options == {"vocabulary": 2048, "max_tokens": 64, "seed": 0, "public": "none", "holdout": 0.1}
    assert open_txt(path, **dataset.options).fingerprint == dataset.fingerprint


# who gets which text --------------------------------------------------------------------------------------


def test_repeated_texts_stay_together(tmp_path):
    texts = [f"text {index % 20}" for index in range(200)]
    dataset = open_txt(write_txt(tmp_path / "a.txt", texts), holdout=0.2, public=0.3)
    assert sizes(dataset) == {"private": 100, "holdout": 40, "public": 60}
    found = [set(part) for part in splits(dataset).values()]
    assert sum(map(len, found)) == len(set.union(*found)) == 20


def test_texts_keep_the_order_of_the_file(tmp_path):
    texts = [f"text {index:03d}" for index in range(100)]
    for part in splits(open_txt(write_txt(tmp_path / "a.txt", texts), public=0.3)).values():
        assert list(part) == sorted(part)


def test_the_seed_draws_the_splits(tmp_path):
    path = write_txt(tmp_path / "a.txt", [f"text {index}" for index in range(100)])
    assert open_txt(path).fingerprint == open_txt(path, seed=0).fingerprint != open_txt(path, seed=1).fingerprint


def test_holdout_may_be_left_out(tmp_path):
    path = write_txt(tmp_path / "a.txt", ["one", "two"])
    assert sizes(open_txt(path, holdout=0)) == {"private": 2}
    assert sizes(open_txt(path, holdout=0, public=0)) == {"private": 2}


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_public_file_has_no_private_text_and_may_have_further_classes(tmp_path, kind):
    write, opened = {"csv": (write_csv, open_csv), "jsonl": (write_jsonl, open_jsonl)}[kind]
    path = write(tmp_path / f"a.{kind}", rows())
    further = [("space", f"text {index} of space") for index in range(10)]
    other = write(tmp_path / f"b.{kind}", [*rows(90), *further])
    dataset = opened(path, label="topic", public=tmp_path / f"b.{kind}")
    assert sizes(dataset) == {"private": 54, "holdout": 6, "public": 40}
    assert not set(dataset.split("public").texts) & {text for _, text in rows()}
    assert dataset.split("public").labels is None
    judged, classes = dataset.judging()
    assert classes == ("air", "land", "sea", "space")
    assert torch.bincount(judged.labels).tolist() == [18, 18, 18, 8]
    assert all("space" in text for text in judged.texts[54:])
    assert dataset.options["public"] == other


def test_public_file_needs_no_labels(tmp_path):
    path = write_csv(tmp_path / "a.csv", rows())
    other = write_csv(tmp_path / "b.csv", [(text,) for _, text in rows(10, 100)], header=("text",))
    dataset = open_csv(path, label="topic", public=other)
    assert sizes(dataset)["public"] == 10
    assert dataset.judging() == (dataset.split("private"), dataset.classes)


def test_text_of_two_classes_lies_in_one_split(tmp_path):
    table = [*rows(), *[("sea", text) for _, text in rows()]]
    dataset = open_csv(write_csv(tmp_path / "a.csv", table), label="topic", holdout=0.3)
    private, holdout = dataset.split("private"), dataset.split("holdout")
    assert not set(private.texts) & set(holdout.texts)
    assert len(private) + len(holdout) == 120


# faults ---------------------------------------------------------------------------------------------------

CSV_FAULTS = {
    "empty file": ("", {}, "a.csv has no texts"),
    "header only": ("text\n", {}, "a.csv has no texts"),
    "column": ("texts,b\nx,y\n", {}, "a.csv has no column 'text' (did you mean text=texts?)"),
    "far column": ("a,b\nx,y\n", {}, "a.csv has no column 'text' (text=..., one of a, b)"),
    "label": ("text,topics\nx,y\n", {"label": "topic"}, "no column 'topic' (did you mean label=topics?)"),
    "empty text": ('text,b\n"x\nx",y\n  ,y\n', {}, "a.csv, line 4: 'text' is empty"),
    "empty label": ("text,b\nx,\n", {"label": "b"}, "a.csv, line 2: 'b' is empty"),
    "cells": ("text,b\nx,y\nx,y,z\n", {}, "a.csv, line 3: 3 cells in a row of 2 columns"),
    "quotes": ('text\nx\n"y\n', {}, "a.csv, line 3: unexpected end of data"),
    "named columns": ("x,y\n", {"columns": "a,b"}, "no column 'text'"),
    "few": ("text\nx\nx\n", {}, "class 'text' has too few different texts (1) for private, holdout"),
    "few of a class": (
        "text,b\nx,1\ny,1\nz,1\nv,2\nw,2\n",
        {"label": "b", "public": 0.1},
        "class '2' has too few different texts (2) for private, holdout, public",
    ),
    "share": ("text\nx\ny\n", {"public": 1.5}, "public=1.5 is no share"),
    "shares": ("text\nx\ny\nz\n", {"public": 0.6, "holdout": 0.5}, "too few different texts (3)"),
    "holdout": ("text\nx\ny\n", {"holdout": 1}, "option holdout=1: Input should be less than 1"),
    "option": ("text\nx\ny\n", {"column": "a"}, "csv: unknown option 'column', did you mean columns?"),
    "public": ("text\nx\ny\n", {"public": "nowhere.csv"}, "nowhere.csv does not exist"),
}


@pytest.mark.parametrize(("content", "options", "words"), CSV_FAULTS.values(), ids=CSV_FAULTS)
def test_faults_of_tables(tmp_path, content, options, words):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError) as caught:
        open_csv(str(tmp_path / "a.csv"), **options)
    assert words in str(caught.value)


JSONL_FAULTS = {
    "empty file": ("\n\n", {}, "a.jsonl has no texts"),
    "json": ('{"text": "x"}\n{"text": \n', {}, "a.jsonl, line 2: no JSON"),
    "object": ('{"text": "x"}\n["x"]\n', {}, "a.jsonl, line 2: no JSON object"),
    "deep": ("[" * 100_000, {}, "a.jsonl, line 1: no JSON"),
    "field": ('{"text": "x"}\n\n{"txt": "x"}\n', {}, "a.jsonl, line 3 has no column 'text' (did you mean text=txt?)"),
    "type": ('{"text": 3}\n', {}, "a.jsonl, line 1: 'text' is int, not a text"),
    "empty": ('{"text": " "}\n', {}, "a.jsonl, line 1: 'text' is empty"),
    "half": ('{"text": "\\ud83d"}\n', {}, "a.jsonl, line 1: 'text' has half of a character"),
    "no label": ('{"text": "x", "k": "a"}\n{"text": "y"}\n', {"label": "k"}, "a.jsonl, line 2 has no column 'k'"),
    "label": ('{"text": "x", "k": 0.5}\n', {"label": "k"}, "a.jsonl, line 1: 'k' is float, not a text"),
}


@pytest.mark.parametrize(("content", "options", "words"), JSONL_FAULTS.values(), ids=JSONL_FAULTS)
def test_faults_of_json_lines(tmp_path, content, options, words):
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(DataError) as caught:
        open_jsonl(str(tmp_path / "a.jsonl"), **options)
    assert words in str(caught.value)


@pytest.mark.parametrize("opened", [open_csv, open_jsonl, open_txt])
def test_files_that_cannot_be_read(tmp_path, opened):
    kind = opened.__name__.removeprefix("open_")
    with pytest.raises(DataError, match=f"{kind} needs a file .{kind}:PATH"):
        opened(None)
    with pytest.raises(DataError, match=r"nothing\.txt does not exist"):
        opened(str(tmp_path / "nothing.txt"))
    with pytest.raises(DataError, match=r"cannot be read: .*directory"):
        opened(str(tmp_path))
    (tmp_path / "a.gz").write_bytes(b"not packed")
    with pytest.raises(DataError, match=r"a\.gz cannot be read"):
        opened(str(tmp_path / "a.gz"))
    (tmp_path / "b.gz").write_bytes(gzip.compress(b'{"text": "x"}\n' * 1000)[:-12])
    with pytest.raises(DataError, match=r"b\.gz cannot be read"):
        opened(str(tmp_path / "b.gz"), **({"columns": "text"} if opened is open_csv else {}))


def test_other_encodings_are_named_by_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("one\ntwo\nfünf\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"a\.txt, line 3: not UTF-8"):
        open_txt(str(path))


def test_public_file_of_the_same_texts(tmp_path):
    path = write_txt(tmp_path / "a.txt", ["one", "two", "three"])
    with pytest.raises(DataError, match=r"a\.txt: no text is left for public"):
        open_txt(path, public=path)
