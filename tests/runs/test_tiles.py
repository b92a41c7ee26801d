"""Tiles are halved while work does not fit in memory; peaks are read from the system."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from micore.runs import memory
from micore.runs.memory import highest, peak_memory
from micore.runs.tiles import Tile

MESSAGES = (
    "CUDA out of memory. Tried to allocate 20.00 MiB.",
    "MPS backend out of memory (MPS allocated: 8 GB)",
    "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory",
)


def tried_until(tile: Tile, largest: int, message: str = MESSAGES[0]) -> list[int]:
    tried: list[int] = []

    def work(rows: int) -> str:
        tried.append(rows)
        if rows > largest:
            raise RuntimeError(message)
        return "done"

    assert tile.fit(work) == "done"
    return tried


@pytest.mark.parametrize("message", MESSAGES)
def test_a_tile_is_halved_until_it_fits_and_stays_so(message: str) -> None:
    changes: list[tuple[int, int]] = []
    tile = Tile(100, lambda before, rows: changes.append((before, rows)))
    assert tried_until(tile, 20, message) == [100, 50, 25, 12]
    assert changes == [(100, 50), (50, 25), (25, 12)]
    assert tile.rows == 12
    assert tried_until(tile, 12, message) == [12]
    assert tried_until(tile, 3, message) == [12, 6, 3]


def test_one_row_is_the_least() -> None:
    with pytest.raises(MemoryError, match="even with one row"):
        tried_until(Tile(3), 0)
    with pytest.raises(MemoryError, match="even with one row"):
        tried_until(Tile(1), 0)


def test_other_errors_are_raised_as_they_are() -> None:
    error = RuntimeError("out of luck")

    def work(rows: int) -> None:
        raise error

    tile = Tile(8)
    with pytest.raises(RuntimeError, match="out of luck") as caught:
        tile.fit(work)
    assert caught.value is error
    assert tile.rows == 8


def test_an_error_in_a_later_try_is_raised_too() -> None:
    def work(rows: int) -> None:
        raise torch.OutOfMemoryError(MESSAGES[0]) if rows > 4 else ValueError("another fault")

    with pytest.raises(ValueError, match="another fault"):
        Tile(8).fit(work)


# peaks --------------------------------------------------------------------------------------------


def test_the_peak_stays_when_memory_is_given_back() -> None:
    held = np.ones(30_000_000)
    peak = peak_memory(torch.device("cpu"))["process"]
    assert peak is not None
    assert peak > held.nbytes
    del held
    assert peak_memory(torch.device("cpu"))["process"] == pytest.approx(peak, rel=0.01)


@pytest.mark.skipif(not memory.STATUS.exists(), reason="needs /proc")
def test_a_process_does_not_inherit_the_peak_of_its_parent() -> None:
    held = np.ones(60_000_000)
    script = "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM:')][0])"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert int(out) * 1024 < held.nbytes < (peak_memory(torch.device("cpu"))["process"] or 0)


def test_without_proc_the_usage_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    known = peak_memory(torch.device("cpu"))["process"]
    monkeypatch.setattr(memory, "STATUS", memory.Path(os.devnull) / "nowhere")
    asked = peak_memory(torch.device("cpu"))["process"]
    assert known is not None
    assert asked is not None
    assert asked >= known * 0.9
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_memory(torch.device("cpu"))["process"] is None


def test_the_highest_of_several_peaks() -> None:
    one, other = {"process": 3, "accelerator": None}, {"process": 2, "accelerator": 5}
    assert highest(one, None, other) == {"process": 3, "accelerator": 5}
    assert highest(None) == {"process": None, "accelerator": None}
