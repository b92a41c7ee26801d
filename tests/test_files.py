"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from micore import files
from micore.errors import RunError, StorageError
from micore.files import (
    atomic_path,
    digest,
    file_digest,
    read_json,
    require_writable,
    safe_name,
    write_json,
    write_text,
)

NAMES = st.text(max_size=80)


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
@pytest.mark.parametrize("old", ["old", None])
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, where, old):
    path = tmp_path / "deep" / "file.txt"
    if old is not None:
        write_text(path, old)
    owner, name = {"write": (Path, "write_text"), "fsync": (os, "fsync"), "replace": (Path, "replace")}[where]
    with monkeypatch.context() as broken:
        broken.setattr(owner, name, no_space)
        with pytest.raises(StorageError, match="No space left") as caught:
            write_text(path, "new")
    assert "free space" in caught.value.hint
    assert str(path) in caught.value.message
    left = [entry.name for entry in tmp_path.rglob("*")]
    assert left == ([] if old is None else ["deep", "file.txt"]), "not even a new directory"
    assert old is None or path.read_text() == old


def test_a_write_that_breaks_half_way_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(StorageError, match="cannot write"), atomic_path(path) as temporary:  # noqa: PT012
        temporary.write_bytes(b"ne")
        raise OSError(errno.EIO, "I/O error")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_other_errors_and_interruptions_pass_and_leave_nothing(tmp_path):
    for error in (ValueError("mine"), KeyboardInterrupt()):
        with pytest.raises(type(error)), atomic_path(tmp_path / "file") as temporary:  # noqa: PT012
            temporary.write_bytes(b"half")
            raise error
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="cannot write") as caught:
        write_text(tmp_path / "file" / "below", "text")
    assert "choose a place" in caught.value.hint
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_read_only_directory_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")
    tmp_path.chmod(0o500)
    try:
        if os.access(tmp_path, os.W_OK):  # root may write anywhere: say no in the kernel's stead

            def denied(*_, **__):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

            monkeypatch.setattr(Path, "write_text", denied)
        with pytest.raises(StorageError, match="Permission denied") as caught:
            write_text(path, "new")
    finally:
        tmp_path.chmod(0o700)
    assert "choose a place" in caught.value.hint
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_an_error_without_a_text_still_says_something(tmp_path):
    with pytest.raises(StorageError, match="odd"), atomic_path(tmp_path / "file"):
        raise OSError("odd")


def test_a_place_can_be_checked_before_long_work(tmp_path, monkeypatch):
    require_writable(tmp_path / "deep" / "er" / "file")
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="is not a directory"):
        require_writable(tmp_path / "file" / "below")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(StorageError, match="is not writable"):
        require_writable(tmp_path / "new")


def test_json_round_trip(tmp_path):
    path = tmp_path / "a" / "b.json"
    write_json(path, {"text": "ä", "list": [1, None]})
    assert read_json(path) == {"text": "ä", "list": [1, None]}
    assert "ä" in path.read_text(encoding="utf-8")


def test_json_that_is_none_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "file", float("nan"))
    assert os.listdir(tmp_path) == []


def test_unreadable_json_is_a_run_error(tmp_path):
    with pytest.raises(RunError, match="does not exist"):
        read_json(tmp_path / "none")
    for content in (b"{", b"\xff\xfe"):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(RunError, match="cannot be read as JSON"):
            read_json(tmp_path / "file")
    with pytest.raises(RunError, match="cannot be read as JSON"):
        read_json(tmp_path)


def test_a_file_digest_is_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    assert file_digest(tmp_path / "file") == hashlib.sha256(b"content").hexdigest()


@given(st.lists(st.one_of(st.binary(max_size=5), st.text(max_size=5), st.integers()), max_size=4))
def test_a_digest_tells_parts_apart(parts):
    assert digest(*parts) == digest(*parts)
    assert digest(*parts) != digest(*parts, "")
    assert digest("ab", *parts) != digest("a", "b", *parts)


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest(Path("x")) == digest("x")


@given(NAMES)
def test_safe_names_are_safe(text):
    name = safe_name(text)
    assert name
    assert name not in (".", "..")
    assert not set(name) & set("/\\\0:. \n")
    assert len(name.encode()) <= 70


@given(NAMES, NAMES)
def test_safe_names_keep_names_apart(one, other):
    assert one == other or safe_name(one) != safe_name(other)


def test_a_plain_name_stays():
    assert safe_name("class-3") == "class-3"
    assert safe_name("../../etc").endswith(digest("../../etc")[:8])


def test_nothing_is_flushed_without_being_closed(tmp_path, monkeypatch):
    opened, closed = [], []
    real_open, real_close = os.open, os.close
    monkeypatch.setattr(files.os, "open", lambda *args: opened.append(real_open(*args)) or opened[-1])
    monkeypatch.setattr(files.os, "close", lambda fd: (closed.append(fd), real_close(fd))[1])
    monkeypatch.setattr(files.os, "fsync", no_space)
    with pytest.raises(StorageError):
        write_text(tmp_path / "file", "x")
    assert opened
    assert set(opened) <= set(closed)
