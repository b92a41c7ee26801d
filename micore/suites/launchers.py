"""Where the rows of a suite run: here, one after another, or on the workers of a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from micore.errors import RuntimeUnavailable, UsageError
from micore.runtime import Runtime
from micore.suites.checks import check_precision
from micore.suites.commands import Machine
from micore.suites.processes import Outcome, call
from micore.suites.rows import Precision

LAUNCHERS = ("local", "ray")


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What the command line says of where rows run.

    address: of a Ray cluster that is there; None starts one on this machine. cpus: that each row takes, of those that
    Ray counts.
    """

    name: str = "local"
    address: str | None = None
    cpus: int = 1


@dataclass(frozen=True, kw_only=True)
class Job:
    """One ``mi`` command, and the files that go with it; all lie below ``place``, the benchmark's directory.

    makes: file or folder that the command makes or goes on with. target: name of the target that is trained or
    attacked; bundle: its file, for those that attack it.
    """

    arguments: Sequence[str]
    place: Path
    log: Path
    makes: Path
    target: str
    bundle: Path | None = None


class Launcher(Protocol):
    """Runs the commands of rows. width: how many rows may be begun at once."""

    width: int

    def call(self, job: Job) -> Outcome:
        """Run a command; what it makes and says is in the benchmark's directory when this returns."""

    def stop(self) -> None:
        """End what other threads wait for in `call`."""


class Local:
    """Runs one command at a time, in a process of its own on this machine."""

    width = 1

    def __init__(self, held: int | None) -> None:
        self._held = held

    def call(self, job: Job) -> Outcome:
        """Run the command where its files are."""
        return call(job.arguments, job.log, self._held)

    def stop(self) -> None:
        """Do nothing: whoever is interrupted here waits in `call` itself."""


def check_launch(launch: Launch, machine: Machine, arithmetic: Precision) -> None:
    """Check that rows can run there, as far as this machine knows.

    Raises: UsageError; RuntimeUnavailable, when Ray, the device or the precision is not there.
    """
    if launch.name not in LAUNCHERS:
        raise UsageError(f"unknown launcher {launch.name!r}", hint="one of " + ", ".join(LAUNCHERS))
    if launch.name == "local":
        if launch.address is not None or launch.cpus != 1:
            raise UsageError("--address and --launcher-cpus are for --launcher ray")
        Runtime.create(machine.device, arithmetic.name)
        return
    check_precision(arithmetic.name)
    if ":" in machine.device:
        raise UsageError(f"--launcher ray gives every row its device; {machine.device} names one", hint="--device cuda")
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise RuntimeUnavailable("--launcher ray needs Ray", hint='pip install "micore[ray]"') from error


@contextmanager
def launcher(launch: Launch, machine: Machine, place: Path, held: int | None) -> Iterator[Launcher]:
    """Give what runs the rows; a cluster that it starts for them ends with the block.

    Raises: RuntimeUnavailable when there is no cluster at the address.
    """
    if launch.name == "local":
        yield Local(held)
        return
    from micore.suites.cluster import Cluster, connected

    with connected(launch.address) as ray, Cluster(ray, launch, machine, place) as cluster:
        yield cluster
