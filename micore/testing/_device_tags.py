"""Which pretend device a tensor lives on, and which operations may mix devices.

The rules that :mod:`micore.testing.devices` enforces. A tag belongs to a *storage*, so views, ``detach()``
and ``.data`` share the device of what they look at, as on real hardware.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

__all__ = ["CPU", "DeviceMixError", "DeviceTags", "result_devices", "tensors_in"]

CPU = torch.device("cpu")
PURGE_EVERY = 4096  # tags set between two sweeps of dead storages

aten = torch.ops.aten
CROSS_DEVICE = {aten.copy_, aten._to_copy, aten.set_, aten._copy_from, aten.copy, aten._foreach_copy_}
FIRST_INPUT_DECIDES = {
    aten._pack_padded_sequence,
    aten._ctc_loss,
    aten._ctc_loss_backward,
}  # lengths live on the cpu
INDEXING = {
    aten.index,
    aten.index_put,
    aten.index_put_,
    aten._index_put_impl_,
    aten._unsafe_index,
    aten._unsafe_index_put,
}
COMPRESSED = {torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc}
SCALARS_COUNT_TOO = {aten.cat, aten.stack}  # elsewhere a 0-dim cpu tensor may join any device


class DeviceMixError(RuntimeError):
    """An operation met tensors of different devices, or a device that it cannot use."""


class DeviceTags:
    """The pretend device of every live storage; a storage without a tag is where torch says it is."""

    def __init__(self) -> None:
        # The weak reference keeps the address from being reused while its entry exists.
        self._tags: dict[int, tuple[StorageWeakRef, torch.device]] = {}
        self._writes = 0

    def get(self, tensor: Tensor) -> torch.device:
        """Return the pretend device of ``tensor``."""
        storage = _storage(tensor)
        entry = None if storage is None else self._tags.get(storage._cdata)
        return tensor.device if entry is None else entry[1]

    def set(self, tensor: Tensor, device: torch.device) -> None:
        """Say that the storage of ``tensor`` lives on ``device``."""
        storage = _storage(tensor)
        if storage is None:
            return
        if device == CPU:
            self._tags.pop(storage._cdata, None)
        else:
            self._tags[storage._cdata] = (StorageWeakRef(storage), device)
        self._writes += 1
        if self._writes % PURGE_EVERY == 0:
            self._purge()

    def _purge(self) -> None:
        alive = ((key, entry) for key, entry in self._tags.items() if not entry[0].expired())
        self._tags = dict(alive)

    def share_storage(self, one: Tensor, others: Iterable[Tensor]) -> bool:
        """Return whether ``one`` is a view of any of ``others``."""
        mine = _storage(one)
        theirs = (_storage(other) for other in others)
        return mine is not None and any(s is not None and s._cdata == mine._cdata for s in theirs)


def tensors_in(tree: Any) -> list[Tensor]:
    """Return every tensor in arguments, which may be nested lists, tuples and dicts, in order."""
    found: list[Tensor] = []
    _gather(tree, found)
    return found


def _gather(tree: Any, found: list[Tensor]) -> None:
    if isinstance(tree, Tensor):
        found.append(tree)
    elif isinstance(tree, list | tuple):
        for item in tree:
            _gather(item, found)
    elif isinstance(tree, dict):
        for item in tree.values():
            _gather(item, found)


def result_devices(
    func: Any,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    tags: DeviceTags,
    outputs_without_inputs: torch.device,
) -> list[torch.device]:
    """Return the device of each output of ``func`` (the last one stands for all further outputs).

    Raises DeviceMixError where a real accelerator would refuse the inputs. An operation without tensor
    inputs makes its outputs on ``outputs_without_inputs``.
    """
    inputs, packet = tensors_in((args, kwargs)), func.overloadpacket
    if not inputs:
        return [outputs_without_inputs]
    if packet in CROSS_DEVICE or packet in FIRST_INPUT_DECIDES:
        first = tags.get(inputs[0])
        return [first, CPU] if packet is aten._pack_padded_sequence else [first]
    if packet in INDEXING:
        return [_indexed_device(func, args, tags)]
    if packet.__name__.startswith("_foreach"):
        return _foreach_devices(func, args, kwargs, tags)
    return [_common_device(func, inputs, tags)]


def _common_device(func: Any, inputs: Iterable[Tensor], tags: DeviceTags) -> torch.device:
    common = None
    for tensor in inputs:
        device = tags.get(tensor)
        if device == CPU and tensor.dim() == 0 and func.overloadpacket not in SCALARS_COUNT_TOO:
            continue
        if common is not None and device != common:
            raise _mix(func, common, device)
        common = device
    return common or CPU


def _indexed_device(func: Any, args: Sequence[Any], tags: DeviceTags) -> torch.device:
    """Check ``tensor[indices]`` and ``tensor[indices] = values``: cpu indices are welcome on every device."""
    mine = tags.get(args[0])
    for index in tensors_in(args[1]):
        if tags.get(index) not in (mine, CPU):
            raise _mix(func, mine, tags.get(index))
    for value in tensors_in(args[2:]):
        if tags.get(value) != mine and not (tags.get(value) == CPU and value.dim() == 0):
            raise _mix(func, mine, tags.get(value))
    return mine


def _foreach_devices(func: Any, args: Sequence[Any], kwargs: dict[str, Any], tags: DeviceTags) -> list[torch.device]:
    """Check list operations (optimisers): the i-th entries must agree, a list may span devices."""
    lists = [arg for arg in args if isinstance(arg, list | tuple) and arg and isinstance(arg[0], Tensor)]
    shared = tensors_in([arg for arg in args if isinstance(arg, Tensor)]) + tensors_in(kwargs)
    return [_common_device(func, [*entry, *shared], tags) for entry in zip(*lists, strict=True)]


def _mix(func: Any, one: torch.device, other: torch.device) -> DeviceMixError:
    return DeviceMixError(
        f"Expected all tensors to be on the same device, but found {one} and {other} (in {func}). "
        "Move one with .to(other.device) where the two meet."
    )


def _storage(tensor: Tensor) -> torch.UntypedStorage | None:
    """Return the storage (of a sparse tensor: of its values) below any functorch wrapper, or None."""
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        tensor = functorch.get_unwrapped(tensor)
    try:
        if tensor.layout == torch.sparse_coo:
            tensor = tensor._values()
        elif tensor.layout in COMPRESSED:
            tensor = tensor.values()
        return tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return None
