"""Test device discipline on a machine without an accelerator.

Most device bugs are a tensor left behind: a label on the cpu, a ``torch.randn`` without ``device=``, a
buffer kept as a plain attribute. They never show on a cpu and always show on the first GPU run.
:func:`pretend_accelerator` makes them show anywhere::

    with pretend_accelerator() as device:
        train(model.to(device), ...)     # raises DeviceMixError where a real GPU would refuse

Every tensor is a real cpu tensor, so the numbers are those of a cpu run with the same seed, bit for bit,
and ``.item()``, data-dependent branches, samplers and double backward all work. Each storage carries a
pretend device beside it. Two torch modes keep that up: one answers Python questions (``.device``, ``.to``,
``device=``), one checks every operation.

What it cannot see: kernels, precisions, memory and asynchrony of real devices; mixes inside one torch
call; user code that torch calls back from within an operator (hooks, custom backward passes and checkpointed
blocks are seen). Nested tensors carry no device, autocast changes nothing, ``torch.compile`` and other
processes are not checked, unpickling (``torch.load``) gives cpu tensors. One false alarm is known:
``ctc_loss`` with a mean and lengths on the cpu. ``from torch import Generator`` before entry keeps the real
class. Tensors lose their pretend device at the exit: finish with them before. On a machine with a GPU, bring
no real GPU tensors in.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import torch
import torch.utils.checkpoint
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from micore.testing._device_tags import CPU, DeviceMixError, DeviceTags, result_devices, tensors_in

__all__ = ["DeviceMixError", "pretend_accelerator"]

PRETEND_NAME = "pretend accelerator"
PRETEND_MEMORY_BYTES = 8 << 30
SILENT_CALLS = (  # of torch.cuda: do nothing while pretending
    "synchronize",
    "empty_cache",
    "set_device",
    "reset_peak_memory_stats",
    "_lazy_init",
    "manual_seed",
    "manual_seed_all",
)

Kwargs = dict[str, Any]
Torch = Callable[..., Any]


@contextlib.contextmanager
def pretend_accelerator(count: int = 1) -> Iterator[torch.device]:
    """Make this process believe in ``count`` CUDA devices, and yield the first of them.

    Inside, ``torch.cuda.is_available()`` is true, tensors moved to ``"cuda"`` say so, and an operation that
    mixes devices raises :class:`DeviceMixError` (a RuntimeError, as torch's own). Draws on the pretend
    device use the cpu's generator, so a seed gives the numbers that it gives on the cpu. Works with torch
    2.11 to 2.14; see the module for its limits.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    world = _World(count)
    answers = _Answers(world)
    with contextlib.ExitStack() as stack:
        for module, name, replacement in _replacements(world, answers):
            if hasattr(module, name):
                stack.enter_context(mock.patch.object(module, name, replacement))
        stack.enter_context(_Checks(world))
        stack.enter_context(answers)
        yield torch.device("cuda", 0)


class _World:
    """What both modes share: the tags, the devices that exist, where an operator's own tensors go."""

    def __init__(self, count: int) -> None:
        self.tags = DeviceTags()
        self.count = count
        self.home: torch.device | None = None
        self.generator_type = _pretend_generator(self)

    def device(self, spec: Any) -> torch.device:
        """Return ``spec`` as a device with an index; refuse one that does not exist."""
        device = torch.device("cuda", spec) if isinstance(spec, int) else torch.device(spec)
        if device.type in ("cpu", "meta"):
            return torch.device(device.type)
        if device.type != "cuda" or (device.index or 0) >= self.count:
            raise DeviceMixError(f"no device '{device}' here, only cpu and {self.count} pretend cuda device(s)")
        return torch.device("cuda", device.index or 0)

    def run(self, func: Torch, args: Sequence[Any], kwargs: Kwargs) -> Any:
        """Run an operator; helper tensors that torch makes inside it live with the operator's inputs."""
        devices = {self.tags.get(tensor) for tensor in tensors_in((args, kwargs))} - {CPU}
        before, self.home = self.home, devices.pop() if len(devices) == 1 else self.home
        try:
            return func(*args, **kwargs)
        finally:
            self.home = before

    def move(self, tensor: Tensor, device: torch.device) -> Tensor:
        """Return ``tensor`` on ``device``: itself if it is there, else a differentiable copy."""
        if self.tags.get(tensor) == device:
            return tensor
        if device.type == "meta":
            return tensor.to(device)
        moved: Tensor = _Move.apply(tensor, self.tags, device)
        return moved


class _Move(torch.autograd.Function):
    """Copy to another pretend device; the gradient travels back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, tags: DeviceTags, device: torch.device) -> Tensor:
        ctx.tags, ctx.source = tags, tags.get(tensor)
        moved = tensor.detach().clone()
        tags.set(moved, device)
        return moved

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        returned = gradients[0].clone()
        ctx.tags.set(returned, ctx.source)
        return returned, None, None


def _pretend_generator(world: _World) -> type[torch.Generator]:
    """Return a ``torch.Generator`` that draws on the cpu and remembers the device it was asked for."""

    class PretendGenerator(torch.Generator):
        def __new__(cls, device: Any = "cpu") -> PretendGenerator:
            return super().__new__(cls, device="cpu")  # type: ignore[call-arg]

        def __init__(self, device: Any = "cpu") -> None:
            self._pretend_device = world.device(device)

        @property
        def device(self) -> torch.device:  # type: ignore[override]
            return self._pretend_device

    return PretendGenerator


class _Checks(TorchDispatchMode):
    """Check the devices of every operation's inputs and tag its outputs."""

    def __init__(self, world: _World) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._world = world

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, tags = dict(kwargs or {}), self._world.tags
        if kwargs.get("pin_memory"):
            kwargs["pin_memory"] = False  # a build without CUDA cannot pin
        with torch._C.DisableTorchFunction():  # the answers, which backward passes have on, would look at all this too
            devices = result_devices(func, args, kwargs, tags, self._world.home or CPU)
        result = func(*args, **kwargs)
        with torch._C.DisableTorchFunction():
            inputs = tensors_in((args, kwargs))
            for position, output in enumerate(tensors_in(result)):
                if output.device == CPU and not tags.share_storage(output, inputs):
                    tags.set(output, devices[min(position, len(devices) - 1)])
        return result


class _Answers(TorchFunctionMode):
    """Answer what Python code asks about devices, and turn moves and factories into cpu work with a tag."""

    def __init__(self, world: _World) -> None:
        super().__init__()
        self._world, self._tags = world, world.tags
        self._special: dict[Any, Torch] = {
            Tensor.get_device: self._index,
            Tensor.cpu: lambda _func, tensor, **_: world.move(tensor, CPU),
            Tensor.cuda: self._cuda,
            Tensor.to: self._to,
            Tensor.pin_memory: lambda _func, tensor, *_, **__: tensor,
            Tensor.new_tensor: self._new_tensor,
            Tensor.numpy: self._numpy,
            Tensor.__array__: self._numpy,
            Tensor.__deepcopy__: self._deepcopy,
        }
        self._properties: dict[int, Callable[[torch.device], Any]] = {
            id(Tensor.device): lambda device: device,
            id(Tensor.is_cuda): lambda device: device.type == "cuda",
            id(Tensor.is_cpu): lambda device: device.type == "cpu",
        }

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        answer = self._properties.get(id(getattr(func, "__self__", None)))
        if answer is not None:
            return answer(self._tags.get(args[0]))
        special = self._special.get(func)
        if special is not None:
            return special(func, *args, **kwargs)
        self._check_generator(args, kwargs)
        if kwargs.get("device") is not None and self._world.device(kwargs["device"]).type != "meta":
            return self._make(func, args, kwargs)
        return self._world.run(func, args, kwargs)

    def _index(self, _func: Torch, tensor: Tensor) -> int:
        device = self._tags.get(tensor)
        return -1 if device.index is None else device.index

    def _cuda(self, _func: Torch, tensor: Tensor, device: Any = None, *_: Any, **__: Any) -> Tensor:
        return self._world.move(tensor, self._world.device("cuda" if device is None else device))

    def _to(self, func: Torch, tensor: Tensor, *args: Any, copy: bool = False, **kwargs: Any) -> Tensor:
        device, dtype, _, layout = torch._C._nn._parse_to(*args, **kwargs)
        like = next((arg for arg in (*args, kwargs.get("other")) if isinstance(arg, Tensor)), None)
        device = device if like is None else self._tags.get(like)
        result = tensor
        if dtype is not None or layout is not None:
            asked = {"dtype": dtype, "memory_format": layout}
            result = self._world.run(func, (tensor,), {k: v for k, v in asked.items() if v is not None})
        if device is not None:
            result = self._world.move(result, self._world.device(device))
        return result.clone() if copy and result is tensor else result

    def _new_tensor(self, func: Torch, tensor: Tensor, data: Any, **kwargs: Any) -> Any:
        """Tag the result: torch fills it below every operation."""
        if kwargs.get("device") is None:
            kwargs["device"] = self._tags.get(tensor)
        return self._make(func, (tensor, data), kwargs)

    def _numpy(self, func: Torch, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        device = self._tags.get(tensor)
        if device != CPU:
            raise DeviceMixError(f"can't convert a tensor on {device} to numpy. Use Tensor.cpu() first.")
        return func(tensor, *args, **kwargs)

    def _deepcopy(self, func: Torch, tensor: Tensor, memo: Any) -> Any:
        """Tag the copy: torch copies the storage itself, below every operation."""
        copied = self._world.run(func, (tensor, memo), {})
        self._tags.set(copied, self._tags.get(tensor))
        return copied

    def _make(self, func: Torch, args: Sequence[Any], kwargs: Kwargs) -> Any:
        """Run a function that takes ``device=`` on the cpu and put what it made on that device."""
        device, inputs = self._world.device(kwargs["device"]), tensors_in(args)
        result = self._world.run(func, args, {**kwargs, "device": CPU})
        for output in tensors_in(result):
            if not self._tags.share_storage(output, inputs):
                self._tags.set(output, device)
            elif self._tags.get(output) != device:  # as_tensor and asarray may move
                return self._world.move(output, device)
        return result

    def _check_generator(self, args: Sequence[Any], kwargs: Kwargs) -> None:
        if kwargs.get("generator") is None:
            return
        mine = getattr(kwargs["generator"], "_pretend_device", CPU)
        inputs = tensors_in(args)
        asked = kwargs.get("device")
        if asked is None:
            asked = self._tags.get(inputs[0]) if inputs else CPU
        if self._world.device(asked) != mine:
            raise DeviceMixError(f"Expected a '{asked}' device type for generator but found '{mine}'")


def _engine_with_answers(answers: _Answers) -> Torch:
    """Return autograd's engine with the Python answers switched back on.

    ``backward()`` is itself an answered call, within which torch switches the answers off; hooks, custom
    backward passes and checkpointed blocks that run in it would see bare cpu tensors.
    """
    engine = torch.autograd._engine_run_backward  # type: ignore[attr-defined]

    def run(*args: Any, **kwargs: Any) -> Any:
        before, answers._world.home = answers._world.home, None
        try:
            with answers:
                return engine(*args, **kwargs)
        finally:
            answers._world.home = before

    return run


def _checkpoint_metadata(world: _World) -> dict[str, Torch]:
    """Return checkpoint's comparison of saved and recomputed tensors, reading tags.

    Torch saves within an operator, where the answers are off, and compares outside, where they are on.
    """
    return {
        "default": lambda tensor: (tensor.shape, tensor.dtype, world.tags.get(tensor)),
        "none": lambda _tensor: None,
    }


def _replacements(world: _World, answers: _Answers) -> Iterator[tuple[ModuleType, str, Any]]:
    """Yield what to replace while pretending: (module, name, replacement)."""
    yield torch, "Generator", world.generator_type
    yield torch.autograd, "_engine_run_backward", _engine_with_answers(answers)
    yield torch.utils.checkpoint, "_allowed_determinism_checks_to_fns", _checkpoint_metadata(world)
    facts = {
        "is_available": True,
        "device_count": world.count,
        "current_device": 0,
        "is_initialized": True,
        "is_bf16_supported": True,
        "get_device_name": PRETEND_NAME,
        "get_device_capability": (8, 0),
        "get_device_properties": SimpleNamespace(
            name=PRETEND_NAME, total_memory=PRETEND_MEMORY_BYTES, major=8, minor=0
        ),
        "mem_get_info": (PRETEND_MEMORY_BYTES, PRETEND_MEMORY_BYTES),
        "memory_allocated": 0,
        "max_memory_allocated": 0,
        "is_current_stream_capturing": False,
    }
    for name, fact in {**facts, **dict.fromkeys(SILENT_CALLS)}.items():
        yield torch.cuda, name, _always(fact)
    # Draws on the pretend device come from the cpu's generator, which fork_rng and checkpoint save anyway.
    yield torch.cuda, "get_rng_state", lambda device="cuda": torch.get_rng_state()
    yield torch.cuda, "set_rng_state", lambda state, device="cuda": torch.set_rng_state(state)
    yield torch.backends.cudnn, "is_acceptable", _always(False)  # recurrent layers would call cuDNN
    yield torch.accelerator, "is_available", _always(True)
    yield torch.accelerator, "device_count", _always(world.count)
    yield torch.accelerator, "current_accelerator", _always(torch.device("cuda"))
    yield torch.accelerator, "current_device_index", _always(0)
    yield torch.accelerator, "synchronize", _always(None)
    yield torch.accelerator, "current_stream", _always(SimpleNamespace(is_capturing=lambda: False))


def _always(value: Any) -> Torch:
    return lambda *_args, **_kwargs: value
