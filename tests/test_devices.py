"""The pretend accelerator catches what a real one refuses, and lets everything else through unchanged."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from micore.testing.devices import DeviceMixError, pretend_accelerator

# --- programs with one planted mistake each: every one runs on the cpu ----------------------------


class _PlainAttribute(nn.Module):
    """A constant that should have been a buffer: ``.to`` leaves it behind."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = torch.ones(4)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.shift


class _ForgetfulBackward(torch.autograd.Function):
    """A custom backward pass that draws its noise on the cpu."""

    @staticmethod
    def forward(ctx, inputs):
        ctx.device_type = inputs.device.type
        return inputs.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient + torch.zeros(gradient.shape, device="cpu")


def _batch(device: torch.device) -> Tensor:
    return torch.ones(3, 4, device=device)


def _custom_backward(device: torch.device) -> None:
    _ForgetfulBackward.apply(_batch(device).requires_grad_()).sum().backward()


def _checkpointed_block(device: torch.device) -> None:
    first = iter([True])

    def block(inputs: Tensor) -> Tensor:  # right in the forward pass, wrong when it is run again
        return (inputs * torch.ones(4, device=device if next(first, False) else "cpu")).tanh()

    checkpoint(block, _batch(device).requires_grad_(), use_reentrant=False).sum().backward()


def _optimiser_state(device: torch.device) -> None:
    layer = nn.Linear(4, 2)
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    layer(torch.ones(3, 4)).sum().backward()
    optimiser.step()
    layer.to(device)
    optimiser.zero_grad()
    layer(_batch(device)).sum().backward()
    optimiser.step()


def _index_put(device: torch.device) -> None:
    _batch(device)[torch.tensor([0, 1])] = torch.zeros(2, 4)


MIXES: dict[str, Callable[[torch.device], object]] = {
    "model left behind": lambda d: nn.Linear(4, 2)(_batch(d)),
    "input left behind": lambda d: nn.Linear(4, 2).to(d)(torch.ones(3, 4)),
    "label left behind": lambda d: functional.cross_entropy(_batch(d), torch.zeros(3, dtype=torch.long)),
    "plain tensor attribute": lambda d: _PlainAttribute().to(d)(_batch(d)),
    "randn without device": lambda d: _batch(d) + torch.randn(3, 4),
    "class weights": lambda d: functional.cross_entropy(
        _batch(d), torch.zeros(3, dtype=torch.long, device=d), weight=torch.ones(4)
    ),
    "cat": lambda d: torch.cat([_batch(d), torch.ones(3, 4)]),
    "stack of scalars": lambda d: torch.stack([torch.tensor(1.0, device=d), torch.tensor(1.0)]),
    "from_numpy": lambda d: _batch(d) * torch.from_numpy(np.ones((3, 4), dtype=np.float32)),
    "embedding index": lambda d: nn.Embedding(5, 2).to(d)(torch.tensor([1, 2])),
    "gather index": lambda d: _batch(d).gather(1, torch.zeros(3, 1, dtype=torch.long)),
    "where": lambda d: torch.where(_batch(d) > 0, torch.zeros(3, 4), _batch(d)),
    "index_put values": _index_put,
    "accelerator index into a cpu tensor": lambda d: torch.ones(4)[torch.tensor([0], device=d)],
    "cpu generator for an accelerator draw": lambda d: torch.randn(3, device=d, generator=torch.Generator()),
    "cpu generator in place": lambda d: _batch(d).normal_(generator=torch.Generator()),
    "accelerator generator for a cpu draw": lambda d: torch.randn(3, generator=torch.Generator(device=d)),
    "numpy of an accelerator tensor": lambda d: _batch(d).numpy(),
    "numpy.asarray of an accelerator tensor": lambda d: np.asarray(_batch(d)),
    "moving average through .data": lambda d: torch.ones(4).data.mul_(0.9).add_(_batch(d)[0].data),
    "stft window": lambda d: torch.stft(torch.ones(64, device=d), 16, window=torch.ones(16), return_complex=True),
    "optimiser built before the move": _optimiser_state,
    "custom backward pass": _custom_backward,
    "checkpointed block": _checkpointed_block,
    "sparse matrix left behind": lambda d: torch.sparse.mm(torch.eye(3).to_sparse(), _batch(d)),
    "a second accelerator": lambda d: torch.ones(3, device="cuda:1"),
    "another vendor's device": lambda d: torch.ones(3).to("mps"),
}


@pytest.mark.parametrize("name", MIXES)
def test_a_planted_mix_is_caught(name: str) -> None:
    with pretend_accelerator() as device, pytest.raises(DeviceMixError):
        MIXES[name](device)


def test_two_accelerators_do_not_mix() -> None:
    with pretend_accelerator(count=2):
        assert torch.cuda.device_count() == 2
        with pytest.raises(DeviceMixError, match="cuda:0 and cuda:1"):
            torch.ones(3, device="cuda:0") + torch.ones(3, device="cuda:1")


def test_a_mix_is_a_runtime_error_as_on_a_real_accelerator() -> None:
    assert issubclass(DeviceMixError, RuntimeError)


# --- clean programs: the same bits as on the cpu --------------------------------------------------


def _classifier() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 5)
    )


def _training(device: torch.device, _folder: Path) -> list[Tensor]:
    model = _classifier().to(device)
    average = copy.deepcopy(model)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(3):
        images = torch.rand(4, 3, 8, 8, device=device)
        labels = torch.randint(0, 5, (4,), device=device)
        loss = functional.cross_entropy(model(images), labels)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        for old, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
            old.copy_(new)
        assert loss.item() > 0
    average.eval()
    return [*model.parameters(), average(torch.rand(2, 3, 8, 8, device=device))]


def _double_backward(device: torch.device, _folder: Path) -> list[Tensor]:
    critic = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).to(device)
    inputs = torch.randn(6, 4, device=device, requires_grad=True)
    (gradient,) = torch.autograd.grad(critic(inputs).sum(), inputs, create_graph=True)
    ((gradient.norm(2, dim=1) - 1) ** 2).mean().backward()
    return [parameter.grad for parameter in critic.parameters() if parameter.grad is not None]


def _bundle(device: torch.device, folder: Path) -> list[Tensor]:
    model, file = _classifier().to(device), folder / "model.safetensors"
    save_file({name: value.cpu() for name, value in model.state_dict().items()}, file)
    fresh = _classifier().to(device)
    fresh.load_state_dict(load_file(file, device=str(device)))
    fresh.load_state_dict(load_file(file))
    return list(fresh.eval().parameters())


def _spectral_gan(device: torch.device, _folder: Path) -> list[Tensor]:
    generator = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4)).to(device)
    critic = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 8)), nn.ReLU(), nn.Linear(8, 1))
    critic.to(device)
    optimisers = [torch.optim.Adam(model.parameters(), lr=0.01) for model in (critic, generator)]
    real, draws = torch.rand(6, 4, device=device), torch.Generator(device=device).manual_seed(3)
    for _ in range(2):
        fake = generator(torch.randn(6, 3, device=device, generator=draws))
        losses = functional.relu(1 - critic(real)).mean() + functional.relu(1 + critic(fake.detach())).mean()
        for optimiser, loss in zip(optimisers, (losses, -critic(fake).mean()), strict=True):
            optimiser.zero_grad()
            loss.backward(retain_graph=True)
        for optimiser in optimisers:
            optimiser.step()
    return [*critic.parameters(), *generator.parameters()]


def _warp(device: torch.device, _folder: Path) -> list[Tensor]:
    images = torch.rand(2, 3, 6, 6, device=device, requires_grad=True)
    theta = torch.tensor([[0.9, 0.1, 0.0], [0.0, 1.1, 0.1]], device=device).expand(2, 2, 3)
    grid = functional.affine_grid(theta, [2, 3, 5, 5], align_corners=False)
    views = functional.grid_sample(images, grid, align_corners=False)
    views.square().sum().backward()
    assert images.grad is not None
    return [views, images.grad]


def _moving(device: torch.device, _folder: Path) -> list[Tensor]:
    model = nn.Linear(4, 2)
    assert model.to(device) is model
    assert {p.device for p in model.parameters()} == {device}
    there = torch.ones(3, 4).to(device, torch.float64).to(model.weight)
    assert there.device == device
    assert there.dtype == torch.float32
    assert there.to(device) is there
    inputs = torch.ones(3, 4, requires_grad=True)  # the gradient travels back to the cpu
    model(inputs.to(device)).sum().backward()
    assert inputs.grad is not None
    assert inputs.grad.device == torch.device("cpu")
    inputs.grad.numpy()
    return [model(there), inputs.grad, *model.cpu().parameters()]


def _allowed_mixes(device: torch.device, _folder: Path) -> list[Tensor]:
    table = torch.arange(12.0, device=device).reshape(4, 3)
    table[0] = torch.zeros(3)  # copies may cross
    table[torch.tensor([1, 2])] = torch.tensor(5.0)  # cpu indices and 0-dim values
    picked = table[torch.tensor([True, False, True, False])] * torch.tensor(2.0)
    torch._foreach_copy_([torch.zeros(3)], [table[0]])
    moved = torch.as_tensor(np.ones(3, dtype=np.float32), device=device) + torch.tensor([1.0, 2, 3], device=device)
    return [table, picked, moved, torch.zeros_like(table).new_ones(2), table.new_tensor([1.0])]


def _functional_transforms(device: torch.device, _folder: Path) -> list[Tensor]:
    weights, inputs = torch.randn(3, device=device), torch.randn(5, 3, device=device)
    per_row = torch.func.vmap(torch.func.grad(lambda w, x: torch.tanh(w @ x)), in_dims=(None, 0))
    return [per_row(weights, inputs)]


def _sparse(device: torch.device, _folder: Path) -> list[Tensor]:
    edges = torch.tensor([[0, 1, 2], [1, 2, 0]], device=device)
    features = torch.rand(3, 2, device=device, requires_grad=True)
    with torch.sparse.check_sparse_tensor_invariants():  # torch 2.11 warns unless told
        graph = torch.sparse_coo_tensor(edges, torch.rand(3, device=device), (3, 3))
        torch.sparse.mm(graph.coalesce(), features).square().sum().backward()
        identity = torch.eye(3).to_sparse().to(device)
    assert features.grad is not None
    return [features.grad, graph.to_dense(), identity.to_dense()]


def _recurrent(device: torch.device, _folder: Path) -> list[Tensor]:
    layer = nn.GRU(3, 4, batch_first=True).to(device)
    packed = nn.utils.rnn.pack_padded_sequence(torch.rand(2, 5, 3, device=device), torch.tensor([5, 3]), True)
    layer(packed)[1].sum().backward()
    return [parameter.grad for parameter in layer.parameters() if parameter.grad is not None]


def _recomputed(device: torch.device, _folder: Path) -> list[Tensor]:
    layer = nn.Linear(4, 4).to(device)
    inputs = torch.randn(3, 4, device=device, requires_grad=True)

    def block(values: Tensor) -> Tensor:
        return functional.dropout(layer(values), 0.5) + torch.ones(4, device=values.device)

    checkpoint(block, inputs, use_reentrant=False).square().sum().backward()
    assert inputs.grad is not None
    return [inputs.grad]


CLEAN = {
    "training step": _training,
    "double backward": _double_backward,
    "safetensors": _bundle,
    "spectral-norm GAN": _spectral_gan,
    "grid_sample": _warp,
    "moving": _moving,
    "mixes that are allowed": _allowed_mixes,
    "vmap of grad": _functional_transforms,
    "checkpoint": _recomputed,
    "sparse graph": _sparse,
    "recurrent layer": _recurrent,
}


@pytest.mark.parametrize("name", CLEAN)
def test_a_clean_program_gives_the_bits_of_a_cpu_run(name: str, tmp_path: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        expected = [tensor.detach().clone() for tensor in CLEAN[name](torch.device("cpu"), tmp_path)]
        torch.manual_seed(0)
        with pretend_accelerator() as device:
            found = CLEAN[name](device, tmp_path)
            if name != "moving":
                assert {tensor.device for tensor in found} == {device}
            found = [tensor.detach().cpu() for tensor in found]
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


# --- what Python sees -----------------------------------------------------------------------------


def test_devices_answer_as_a_real_accelerator_would() -> None:
    with pretend_accelerator() as device:
        there = torch.zeros(2, device="cuda")
        assert device == torch.device("cuda", 0)
        assert there.device == device
        assert there.is_cuda
        assert not there.is_cpu
        assert there.get_device() == 0
        assert torch.zeros(2).get_device() == -1
        assert torch.zeros(2).is_cpu
        assert torch.cuda.is_available()
        assert torch.accelerator.current_accelerator() == torch.device("cuda")
        assert there.view(1, 2).device == there.detach().device == there.data.device == device
        assert there.cpu().device.type == "cpu"
        assert there.cuda() is there
        assert torch.zeros(2).cuda(0).device == device
        assert torch.zeros(2, device=0).device == device
        assert torch.rand(2, device=0, generator=torch.Generator(0)).get_device() == 0
        assert there.to("cpu", copy=True).tolist() == [0.0, 0.0]
        assert torch.empty(2, device="meta").device.type == "meta"
        assert torch.Generator(device="cuda").device == device
        assert isinstance(torch.Generator(), torch.Generator)
        with torch.device(device):
            assert torch.ones(3).device == device
        with torch.random.fork_rng():
            torch.cuda.manual_seed(1)


def test_a_module_may_be_built_on_meta_first() -> None:
    with pretend_accelerator() as device:
        layer = nn.Linear(3, 2, device="meta").to_empty(device=device)
        nn.init.ones_(layer.weight)
        nn.init.zeros_(layer.bias)
        assert layer(torch.ones(1, 3, device=device)).tolist() == [[3.0, 3.0]]


def test_everything_is_restored_afterwards() -> None:
    before = (
        torch.Generator,
        torch.cuda.is_available,
        torch.accelerator.current_accelerator,
        torch.autograd.grad,
    )
    available = torch.cuda.is_available()
    with pytest.raises(KeyError), pretend_accelerator():
        raise KeyError
    assert before == (
        torch.Generator,
        torch.cuda.is_available,
        torch.accelerator.current_accelerator,
        torch.autograd.grad,
    )
    assert torch.cuda.is_available() == available
    assert torch.zeros(2).device == torch.device("cpu")


def test_many_dead_tensors_leave_no_tags_behind() -> None:
    with pretend_accelerator() as device:
        kept = torch.zeros(1, device=device)
        for _ in range(5000):
            torch.zeros(1).to(device)
        assert kept.device == device
        assert torch.zeros(1).device == torch.device("cpu")


def test_there_must_be_at_least_one_device() -> None:
    with pytest.raises(ValueError, match="at least 1"), pretend_accelerator(count=0):
        pass
