"""The most memory that a run held at any moment."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import torch

PeakMemory = Mapping[str, int | None]
"""Bytes: of the ``process``, and allocated on the ``accelerator``; None where that is not known."""

STATUS = Path("/proc/self/status")
WITH_STATISTICS = ("cuda", "xpu")


def peak_memory(device: torch.device) -> dict[str, int | None]:
    """Return the peaks since this process began and since `forget_peak`, in bytes."""
    has_statistics = device.type in WITH_STATISTICS
    return {
        "process": _process_peak(),
        "accelerator": torch.accelerator.max_memory_allocated(device) if has_statistics else None,
    }


def forget_peak(device: torch.device) -> None:
    """Begin to measure anew on an accelerator; what the process held cannot be forgotten."""
    if device.type in WITH_STATISTICS:
        torch.accelerator.reset_peak_memory_stats(device)


def highest(*peaks: PeakMemory | None) -> dict[str, int | None]:
    """Return the higher of several peaks, each kind by itself."""
    known = [peak for peak in peaks if peak is not None]
    return {
        kind: max((value for peak in known if (value := peak.get(kind)) is not None), default=None)
        for kind in ("process", "accelerator")
    }


def _process_peak() -> int | None:
    """Ask Linux itself first: the peak of `getrusage` begins with that of the process that started this one."""
    if STATUS.exists():
        for line in STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return _by_usage()


def _by_usage() -> int | None:
    try:
        import resource
    except ImportError:  # not everywhere
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
