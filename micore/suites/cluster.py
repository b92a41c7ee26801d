"""Rows on a Ray cluster: a task for each command, files through its object store, lost workers made good."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from micore.errors import Interrupted, RuntimeUnavailable, StorageError
from micore.files import file_digest, read_json, write_json
from micore.home import cache
from micore.suites.commands import Machine
from micore.suites.launchers import Job, Launch
from micore.suites.parcels import Parcel, pack, unpack, write
from micore.suites.processes import Outcome
from micore.suites.workplace import Delivery, Order, Reference, clean, here, work

RETRIES = 3
"""How often a command is begun anew whose worker or machine was lost."""
CLEANING_S = 20.0

WIDTH = 256

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is told to anybody unless the user wants it
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",  # rows are what this machine is there for, as without Ray
}
"""Settings of a cluster that is started here, unless the user's environment says otherwise."""


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Join a Ray cluster, or start one on this machine that ends with the block; give the module ``ray``.

    Raises: RuntimeUnavailable.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():  # the caller's own, which stays
        yield ray
        return
    where = address or os.environ.get("RAY_ADDRESS") or "local"
    options = {"include_dashboard": False} if where == "local" else {}
    try:
        with _own_signals():
            ray.init(address=where, log_to_driver=False, logging_level="error", **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise RuntimeUnavailable(
            f"no Ray cluster at {where!r}: {error}", hint="`ray start --head`, or leave --address out"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Leave SIGTERM what it was: Ray would end the process with it, where we stop cleanly."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Cluster:
    """Runs commands on workers. What they make comes to the benchmark's directory, what they share to the cache.

    Commands wait here until there is room, not in the cluster's queue: each is sent what others have made by then.

    Raises: RuntimeUnavailable when no machine has room for a row.
    """

    width = WIDTH

    def __init__(self, ray: Any, launch: Launch, machine: Machine, place: Path) -> None:
        self._ray = ray
        self._bench = uuid.uuid4().hex
        self._stock = _Stock(ray, place / "shared.json")
        self._stopped = threading.Event()
        self._running: set[Any] = set()
        gpus = _gpus(ray, machine.device)
        self._room = threading.Semaphore(_room(ray, launch.cpus, gpus))
        self._task = ray.remote(num_cpus=launch.cpus, num_gpus=gpus, max_retries=RETRIES)(_work)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clean()

    def call(self, job: Job) -> Outcome:
        """Run a command on a worker; when that is lost, on another one, from the start.

        Raises: Interrupted after `stop`; StorageError.
        """
        started = time.monotonic()
        try:
            with self._room:
                delivery = self._delivered(job)
        except self._ray.exceptions.RayError as error:
            self._check_going()
            return Outcome(code=1, seconds=round(time.monotonic() - started, 2), error=_lost(self._ray, error))
        unpack(delivery.made, job.makes)
        _append(delivery.log, job.log)
        self._stock.take(delivery.cached, job.target)
        return delivery.outcome

    def _delivered(self, job: Job) -> Delivery:
        self._check_going()
        task = self._task.remote(self._order(job))
        self._running.add(task)
        try:
            delivery: Delivery = self._ray.get(task)
        finally:
            self._running.discard(task)
        return delivery

    def _check_going(self) -> None:
        if self._stopped.is_set():
            raise Interrupted("the benchmark was stopped")

    def stop(self) -> None:
        """Interrupt what is at work; it is made anew the next time."""
        self._stopped.set()
        for task in list(self._running):
            with suppress(self._ray.exceptions.RayError, TypeError):
                self._ray.cancel(task)

    def _order(self, job: Job) -> Order:
        bundle = None
        if job.bundle is not None:
            bundle = (job.bundle.relative_to(job.place).as_posix(), self._stock.bundle(job.bundle))
        return Order(
            bench=self._bench, arguments=tuple(job.arguments), place=str(job.place), directory=str(Path.cwd()),
            makes=job.makes.relative_to(job.place).as_posix(), log=job.log.relative_to(job.place).as_posix(),
            begun=pack(job.makes), bundle=bundle, cached=self._stock.cached(job.target), home=here(),
        )  # fmt: skip

    def _clean(self) -> None:
        """Let every machine remove what this benchmark has left there."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        sweep = self._ray.remote(num_cpus=0, max_retries=0)(clean)
        nodes = [node["NodeID"] for node in self._ray.nodes() if node["Alive"]]
        with suppress(self._ray.exceptions.RayError):
            tasks = [
                sweep.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=True)).remote(self._bench)
                for node in nodes
            ]
            self._ray.wait(tasks, num_returns=len(tasks), timeout=CLEANING_S)


class _Stock:
    """The files that commands share: each has one object in the cluster's store, made when it is first wanted."""

    def __init__(self, ray: Any, note: Path) -> None:
        self._ray = ray
        self._note = note
        self._lock = threading.Lock()
        self._objects: dict[tuple[str, str], Reference] = {}
        self._owners: dict[str, str | None] = dict(read_json(note)) if note.exists() else {}

    def bundle(self, path: Path) -> Reference:
        """Return the object of a target's bundle."""
        with self._lock:
            return self._object(path, file_digest(path))

    def cached(self, target: str) -> Mapping[str, Reference]:
        """Return the objects of what earlier rows have added to the cache and rows on this target may use."""
        with self._lock:
            names = [name for name, owner in self._owners.items() if owner in (None, target)]
            return {name: self._object(cache() / name, "") for name in names if (cache() / name).exists()}

    def take(self, parcel: Parcel, target: str) -> None:
        """Keep what a row has added to the cache, and note its name; prepared attacks are those of one target.

        Raises: StorageError.
        """
        if not parcel:
            return
        with self._lock:
            for name, content in parcel.items():
                if not (cache() / name).exists():
                    write(content, cache() / name)
                self._owners[name] = target if name.startswith("prepared/") else None
            write_json(self._note, self._owners)

    def _object(self, path: Path, digest: str) -> Reference:
        key = (str(path), digest)
        if key not in self._objects:
            self._objects[key] = self._ray.put(np.fromfile(path, dtype=np.uint8))
        return self._objects[key]


def _work(order: Order) -> Any:
    """Carry an order out, on a worker."""
    import ray

    return work(order, ray.get)


def _gpus(ray: Any, device: str) -> int:
    """Return how many GPUs a row takes: one where it shall use any, or may and the cluster has some."""
    some = device == "auto" and ray.cluster_resources().get("GPU", 0) > 0
    return int(device == "cuda" or some)


def _room(ray: Any, cpus: int, gpus: int) -> int:
    """Return how many rows the machines of the cluster can run at once."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    needs = {name: count for name, count in (("CPU", cpus), ("GPU", gpus)) if count}
    room = sum(min(int(has.get(name, 0) // count) for name, count in needs.items()) for has in machines)
    if not room:
        wanted = " and ".join(f"{count} {name}s" for name, count in needs.items())
        raise RuntimeUnavailable(
            f"no machine of the Ray cluster has {wanted} for a row",
            hint="a smaller --launcher-cpus, or another --device",
        )
    return room


def _lost(ray: Any, error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if isinstance(error, ray.exceptions.RayTaskError):
        return f"its worker failed: {lines[-1]}"
    return f"its worker was lost {RETRIES + 1} times: {type(error).__name__}: {lines[0]}"


def _append(parcel: Parcel, log: Path) -> None:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            for content in parcel.values():
                stream.write(content.tobytes())
    except OSError as error:
        raise StorageError(f"cannot write {log}: {error.strerror}", hint="choose another -o") from error
