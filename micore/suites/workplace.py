"""What a worker of a cluster does for one command: get its files, run it, and give back what it made."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from micore.errors import MiError
from micore.home import cache
from micore.suites.parcels import Parcel, files_below, moved, moved_manifest, pack, relocated, unpack, write
from micore.suites.processes import Outcome, call

SHARED = ("shelf", "evaluators", "prepared")
"""Folders of the cache whose files rows may have in common: priors, judges, prepared attacks."""

Reference = Any
"""An object of the cluster's store, fetched to a machine when it is asked for there."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """A command as it goes to a worker.

    All paths are strings: ``place`` and what lies below it are the driver's, ``makes``, ``log`` and the bundle's name
    are below it. cached: files of the cache that rows have made so far, by their path below it; home: the driver's
    machine and cache, which a worker there need not be sent anything for.
    """

    bench: str
    arguments: Sequence[str]
    place: str
    directory: str
    makes: str
    log: str
    begun: Parcel
    bundle: tuple[str, Reference] | None
    cached: Mapping[str, Reference]
    home: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What comes back: how the command ended, what it made and said, and what it added to the cache."""

    outcome: Outcome
    made: Parcel
    log: Parcel
    cached: Parcel


def here() -> tuple[str, str]:
    """Return what tells this machine and its cache from others."""
    return socket.gethostname(), str(cache())


def work(order: Order, get: Any) -> Delivery:
    """Carry an order out in a folder of its own, which is gone afterwards.

    get: fetches a `Reference`. An error of this machine (no space, no permission) is an outcome.
    """
    place = _base(order.bench) / uuid.uuid4().hex
    try:
        return _carried_out(order, place, get)
    except MiError as error:
        outcome = Outcome(code=error.exit_code, seconds=0.0, error=f"{socket.gethostname()}: {error}")
        return Delivery(outcome=outcome, made={}, log={}, cached={})
    finally:
        shutil.rmtree(place, ignore_errors=True)


def clean(bench: str) -> None:
    """Remove what a benchmark has left on this machine."""
    shutil.rmtree(_base(bench), ignore_errors=True)


def _base(bench: str) -> Path:
    return Path(tempfile.gettempdir()).resolve() / f"micore-bench-{bench}"


def _carried_out(order: Order, place: Path, get: Any) -> Delivery:
    theirs, makes, log = Path(order.place), place / order.makes, place / order.log
    unpack(moved_manifest(order.begun, theirs.resolve(), place), makes)
    if order.bundle is not None:
        _lay_out(*order.bundle, place, get)
    for name, reference in order.cached.items():
        _fetch(cache() / name, reference, get)
    before = set(_shareable())
    outcome = call(
        relocated(order.arguments, theirs, place), log,
        program=(sys.executable, "-m", "micore.tied", str(os.getpid())),
        directory=Path(order.directory) if Path(order.directory).is_dir() else None,
    )  # fmt: skip
    new = [] if here() == order.home else [name for name in _shareable() if name not in before]
    error = outcome.error and outcome.error.replace(str(place), order.place)
    return Delivery(
        outcome=replace(outcome, error=error),
        made=moved(pack(makes), place, theirs.resolve()),
        log=moved({log.name: np.fromfile(log, dtype=np.uint8)}, place, theirs),
        cached={name: np.fromfile(cache() / name, dtype=np.uint8) for name in new},
    )


def _lay_out(name: str, reference: Reference, place: Path, get: Any) -> None:
    """Put a target's bundle where the command looks for it; it is fetched to this machine once."""
    kept = place.parent / name
    _fetch(kept, reference, get)
    own = place / name
    own.parent.mkdir(parents=True, exist_ok=True)
    os.link(kept, own)


def _fetch(path: Path, reference: Reference, get: Any) -> None:
    if not path.exists():
        write(get(reference), path)


def _shareable() -> list[str]:
    """Return the finished files of the cache that rows may share."""
    found = [f"{folder}/{name}" for folder in SHARED for name in files_below(cache() / folder)]
    return [name for name in found if "checkpoint" not in Path(name).name]
