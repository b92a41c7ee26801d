"""Where and how things run: device, precision, random streams, ranks, progress, checkpoints.

Everything that depends on the machine is asked of a `Runtime`; no other module names a device.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from micore.artifacts import load_state, save_state
from micore.errors import RunError, RuntimeUnavailable, UsageError
from micore.shelf import Shelf

RANK_PATIENCE = timedelta(days=7)
"""How long a rank waits for the others: the first one may train a prior for days."""

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
CHECKPOINT_VARIABLE = "MI_CHECKPOINT_SECONDS"
CHECKPOINT_INTERVAL_S = 30.0
DEVICES = "auto, cpu, cuda, cuda:1 or mps"
Module = TypeVar("Module", bound=nn.Module)


class Random:
    """A random stream of its own, drawn on the CPU and delivered on the run's device.

    The same seed gives the same numbers on every device. The global generators are never touched.
    """

    def __init__(self, seed: int, device: torch.device | None = None) -> None:
        self.device = device or torch.device("cpu")
        self._generator = torch.Generator()
        self._generator.manual_seed(seed)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Draw from N(0, 1), float32."""
        return torch.randn(tuple(shape), generator=self._generator).to(self.device, non_blocking=True)

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Draw from U[0, 1), float32."""
        return torch.rand(tuple(shape), generator=self._generator).to(self.device, non_blocking=True)

    def integers(self, high: int, shape: Sequence[int]) -> Tensor:
        """Draw uniformly from 0..high-1, int64."""
        return torch.randint(high, tuple(shape), generator=self._generator).to(self.device, non_blocking=True)

    def permutation(self, n: int) -> Tensor:
        """Draw an order of 0..n-1, int64, on the CPU: it indexes data."""
        return torch.randperm(n, generator=self._generator)

    def seed(self) -> int:
        """Draw a seed for something that wants one."""
        return int(torch.randint(2**62, (), generator=self._generator))

    def state(self) -> Tensor:
        """Return the position in the stream, uint8."""
        return self._generator.get_state()

    def load(self, state: Tensor) -> None:
        """Go to a position in the stream."""
        self._generator.set_state(state)


def derive_seed(*parts: object) -> int:
    """Turn names and numbers into a seed of 62 bits; different parts give unrelated seeds."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 2


class Progress:
    """Tells of progress; this one tells nobody. The command line draws bars instead."""

    @contextmanager
    def track(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        """Give a function that takes the number of steps done so far."""
        yield lambda done: None


class Checkpoints:
    """Keeps the state of one long piece of work on disk, so that a killed run goes on from it."""

    def __init__(self, path: Path | None = None, interval_s: float = CHECKPOINT_INTERVAL_S) -> None:
        self._path = path
        self.interval_s = interval_s
        self._last = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """Return the last saved state, or None when the work starts anew."""
        if self._path is None or not self._path.exists():
            return None
        state, _ = load_state(self._path)
        return state

    def offer(self, state: Callable[[], Mapping[str, Any]]) -> None:
        """Save ``state()`` if the last save is long enough ago; cheap to call at every step."""
        if self._path is None or time.monotonic() - self._last < self.interval_s:
            return
        save_state(self._path, state())
        self._last = time.monotonic()

    def clear(self) -> None:
        """Forget the saved state: the work is done."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """The machine as one run sees it.

    seed: of the run; all streams derive from it. rank, world: this process among all.
    tile: rows of one forward pass of a search; constant, so that a row's arithmetic does not
    depend on how many other rows there are.
    shelf: where results that need no target are kept for other attacks.
    """

    device: torch.device
    precision: str = "fp32"
    compiled: bool = False
    seed: int = 0
    rank: int = 0
    world: int = 1
    tile: int = 32
    progress: Progress = field(default_factory=Progress)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    shelf: Shelf = field(default_factory=Shelf)

    @classmethod
    def create(
        cls, device: str = "auto", precision: str = "fp32", *, compiled: bool = False, seed: int = 0, **others: Any
    ) -> Runtime:
        """Resolve what the user asked for; ranks come from the launcher.

        The environment variable ``MI_CHECKPOINT_SECONDS`` sets the time between two checkpoints.

        Raises: RuntimeUnavailable when the device or precision is not there.
        """
        others.setdefault("checkpoints", Checkpoints(interval_s=_checkpoint_interval()))
        rank, world, launched = _ranks()
        chosen = launched if launched is not None and device == "auto" else resolve_device(device)
        if precision not in PRECISIONS:
            raise RuntimeUnavailable(f"unknown precision {precision!r}", hint="one of " + ", ".join(PRECISIONS))
        if precision == "fp16" and chosen.type == "cpu":
            raise RuntimeUnavailable("precision fp16 needs an accelerator", hint="use bf16 or fp32 on a CPU")
        return cls(device=chosen, precision=precision, compiled=compiled, seed=seed, rank=rank, world=world, **others)

    def rng(self, *purpose: object) -> Random:
        """Return the random stream of a purpose, such as ``rng("latents", case.id)``."""
        return Random(derive_seed(self.seed, *purpose), self.device)

    @contextmanager
    def seeded(self, *purpose: object) -> Iterator[None]:
        """Seed the global generators inside the block and leave them as they were.

        For code that can draw from nowhere else: parameter initialisation, dropout in training.
        """
        devices = [] if self.device.type == "cpu" else [self.device]
        with torch.random.fork_rng(devices=devices, device_type=self.device.type if devices else "cuda"):
            torch.manual_seed(derive_seed(self.seed, *purpose))
            yield

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the mixed-precision context of this run."""
        dtype = PRECISIONS[self.precision]
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)

    def place(self, module: Module) -> Module:
        """Move a module to the device."""
        return module.to(self.device)

    def place_channels_last(self, module: Module) -> Module:
        """Move a module to the device, with its convolutions' weights channels last where that is quicker.

        Training a small GAN on a CPU is 1.3 to 1.6 times quicker so (docs/benchmarks.md); on accelerators it
        pays off in mixed precision. Only for networks that are known not to have strided 1x1 convolutions:
        with few channels and several threads their backward pass in this layout crashes the process
        (oneDNN in torch 2.14.1: 8 to 16 channels, 16 px, a batch of 33).
        """
        placed = self.place(module)
        if self.device.type == "cpu" or self.precision != "fp32":
            placed = placed.to(memory_format=torch.channels_last)
        return placed

    def maybe_compile(self, module: Module) -> Module:
        """Compile a module in place if the user asked for it; its state dict keeps its names."""
        if self.compiled:
            module.compile()
        return module

    def with_checkpoints(self, checkpoints: Checkpoints) -> Runtime:
        """Return this runtime with another place for checkpoints."""
        return replace(self, checkpoints=checkpoints)

    def barrier(self) -> None:
        """Wait for the other ranks.

        Raises: RunError when one has ended.
        """
        if self.world > 1:
            from accelerate import PartialState

            try:
                PartialState().wait_for_everyone()
            except RuntimeError as error:  # what the backends raise has no class in common but this
                raise RunError(
                    f"another process of this run has ended, so that rank {self.rank} waits in vain",
                    hint="what is done is kept: `mi resume` goes on",
                ) from error

    def describe(self) -> dict[str, Any]:
        """Return the hardware and settings for a manifest."""
        is_cuda = self.device.type == "cuda"
        name = torch.cuda.get_device_name(self.device) if is_cuda else self.device.type.upper()
        return {
            "device": str(self.device), "device_name": name, "precision": self.precision, "compile": self.compiled,
            "ranks": self.world, "threads": torch.get_num_threads(), "cores": os.cpu_count(), "tile": self.tile,
        }  # fmt: skip


def _checkpoint_interval() -> float:
    """Read the seconds between two checkpoints from the environment; 0 saves at every step."""
    text = os.environ.get(CHECKPOINT_VARIABLE, "").strip() or str(CHECKPOINT_INTERVAL_S)
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise UsageError(
            f"{CHECKPOINT_VARIABLE}={text} is no number of seconds", hint="such as 30; 0 saves at every step"
        )
    return seconds


def _ranks() -> tuple[int, int, torch.device | None]:
    """Ask accelerate, but only in a process that a launcher started (its import takes seconds)."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return 0, 1, None
    from accelerate import PartialState

    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "false").lower() in ("1", "true", "yes") or _best_device() == "cpu"
    state = PartialState(cpu=on_cpu, timeout=RANK_PATIENCE)
    return state.process_index, state.num_processes, state.device


def resolve_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps`` into a device that is there.

    Raises: RuntimeUnavailable with the reason.
    """
    if name == "auto":
        return torch.device(_best_device())
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RuntimeUnavailable(f"unknown device {name!r}", hint=DEVICES) from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise RuntimeUnavailable(f"device {name!r} is not supported", hint=DEVICES)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise RuntimeUnavailable("device 'cuda' asked for, but this torch sees no CUDA device", hint="--device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise RuntimeUnavailable(f"device {name!r}: only {torch.cuda.device_count()} CUDA devices are here")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise RuntimeUnavailable("device 'mps' asked for, but this torch has no MPS", hint="--device cpu")
    return device


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
