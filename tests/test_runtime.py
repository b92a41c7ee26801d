"""Devices, random streams of one's own, checkpoints."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from micore import runtime as module
from micore.errors import RunError, RuntimeUnavailable, UsageError
from micore.runtime import Checkpoints, Progress, Random, Runtime, derive_seed, resolve_device
from micore.testing.devices import pretend_accelerator

DRAWS = {
    "normal": lambda rng: rng.normal((3, 2)),
    "uniform": lambda rng: rng.uniform((3, 2)),
    "integers": lambda rng: rng.integers(10, (5,)),
    "permutation": lambda rng: rng.permutation(7),
    "seed": lambda rng: torch.tensor(rng.seed()),
}


@pytest.fixture
def global_stream():
    """Protect the global stream and return its state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        yield torch.get_rng_state()


@pytest.mark.parametrize("name", DRAWS)
def test_a_stream_ignores_and_leaves_the_global_one(name, global_stream):
    draw = DRAWS[name]
    first = draw(Random(5))
    assert torch.equal(torch.get_rng_state(), global_stream)
    torch.manual_seed(99)
    assert torch.equal(draw(Random(5)), first)
    assert not torch.equal(draw(Random(6)), first)


@pytest.mark.parametrize("name", DRAWS)
def test_a_stream_gives_the_same_numbers_on_another_device(name):
    here = DRAWS[name](Random(5))
    with pretend_accelerator() as device:
        there = DRAWS[name](Runtime.create("cuda", seed=1).rng("x")).device.type
        drawn = DRAWS[name](Random(5, device))
        assert torch.equal(drawn.cpu(), here)
        on_cpu = name in ("permutation", "seed")
        assert drawn.device.type == there == ("cpu" if on_cpu else "cuda")


def test_a_stream_can_be_left_and_taken_up():
    rng = Random(1)
    rng.normal((4,))
    state = rng.state()
    expected = rng.normal((4,))
    rng.load(state)
    assert torch.equal(rng.normal((4,)), expected)
    other = Random(2)
    other.load(state)
    assert torch.equal(other.normal((4,)), expected)


@given(st.lists(st.one_of(st.integers(), st.text(alphabet="abc/", max_size=4)), max_size=4))
def test_seeds_are_stable_and_tell_parts_apart(parts):
    seed = derive_seed(*parts)
    assert 0 <= seed < 2**62
    assert seed == derive_seed(*parts)
    assert seed != derive_seed(*parts, "more")
    assert derive_seed("ab", "c", *parts) != derive_seed("a", "bc", *parts)


def test_streams_differ_by_purpose_and_by_seed_of_the_run():
    one, other = Runtime.create("cpu", seed=1), Runtime.create("cpu", seed=2)
    draws = [one.rng("a"), one.rng("b"), one.rng("a", 0), other.rng("a")]
    values = {tuple(rng.uniform((3,)).tolist()) for rng in draws}
    assert len(values) == 4
    assert torch.equal(one.rng("a").uniform((3,)), one.rng("a").uniform((3,)))


def test_seeded_restores_the_global_stream_even_after_an_error(global_stream):
    runtime = Runtime.create("cpu", seed=1)
    with runtime.seeded("x"):
        first = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), global_stream)
    with pytest.raises(ValueError, match="inside"), runtime.seeded("x"):  # noqa: PT012
        assert torch.equal(torch.rand(3), first)
        raise ValueError("inside")
    assert torch.equal(torch.get_rng_state(), global_stream)
    with runtime.seeded("y"):
        assert not torch.equal(torch.rand(3), first)


def test_seeded_works_on_an_accelerator(global_stream):
    with Runtime.create("cpu", seed=1).seeded("x"):
        expected = torch.rand(3)
    with pretend_accelerator():
        runtime = Runtime.create("cuda", seed=1)
        with runtime.seeded("x"):
            assert torch.equal(torch.rand(3, device=runtime.device).cpu(), expected)
    assert torch.equal(torch.get_rng_state(), global_stream)


# devices ------------------------------------------------------------------------------------------


@pytest.fixture
def no_devices(monkeypatch):
    """Make this machine have a CPU only."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("no_devices")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "unknown device 'gpu'"),
        ("cuda", "sees no CUDA device"),
        ("cuda:1", "sees no CUDA device"),
        ("mps", "no MPS"),
    ],
)
def test_a_device_that_is_not_there_is_refused(name, message):
    with pytest.raises(RuntimeUnavailable, match=message) as caught:
        Runtime.create(name)
    assert "cpu" in caught.value.hint


@pytest.mark.usefixtures("no_devices")
def test_auto_takes_the_best_there_is(monkeypatch):
    assert resolve_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto") == resolve_device("mps") == torch.device("mps")
    with pretend_accelerator():
        assert resolve_device("auto").type == "cuda"


def test_only_devices_that_exist_can_be_numbered():
    with pretend_accelerator(2):
        assert resolve_device("cuda:1") == torch.device("cuda", 1)
        with pytest.raises(RuntimeUnavailable, match="only 2 CUDA devices"):
            resolve_device("cuda:2")


@pytest.mark.parametrize("name", ["meta", "xla"])
def test_other_kinds_of_devices_are_refused(name):
    with pytest.raises(RuntimeUnavailable, match=f"device '{name}'"):
        resolve_device(name)


def test_precisions():
    with pytest.raises(RuntimeUnavailable, match="unknown precision 'int4'") as caught:
        Runtime.create("cpu", "int4")
    assert "bf16" in caught.value.hint
    with pytest.raises(RuntimeUnavailable, match="fp16 needs an accelerator"):
        Runtime.create("cpu", "fp16")
    layer, inputs = nn.Linear(2, 2), torch.ones(1, 2)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with Runtime.create("cpu", precision).autocast():
            assert layer(inputs).dtype == dtype


def test_the_launcher_says_which_rank_this_is(monkeypatch):
    waited, started = [], []
    monkeypatch.setattr(module, "_best_device", lambda: "cpu")

    class State:
        process_index, num_processes, device = 2, 4, torch.device("cpu")

        def __init__(self, cpu=False, timeout=None):
            started.append(cpu)

        def wait_for_everyone(self):
            waited.append(True)

    monkeypatch.setitem(sys.modules, "accelerate", types.SimpleNamespace(PartialState=State))
    Runtime.create("cpu").barrier()
    assert not waited
    monkeypatch.setenv("WORLD_SIZE", "4")
    runtime = Runtime.create("auto")
    assert (runtime.rank, runtime.world, runtime.device) == (2, 4, torch.device("cpu"))
    assert started == [True]
    runtime.barrier()
    assert waited
    monkeypatch.setattr(module, "_best_device", lambda: "mps")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    Runtime.create("auto")
    assert started[-1] is True
    monkeypatch.delenv("ACCELERATE_USE_CPU")
    assert Runtime.create("auto").device == torch.device("cpu"), "the launcher's device goes before the best one"


def test_describe_names_the_hardware():
    facts = Runtime.create("cpu", "bf16", tile=7).describe()
    assert (facts["device"], facts["device_name"], facts["precision"], facts["tile"]) == ("cpu", "CPU", "bf16", 7)
    with pretend_accelerator():
        facts = Runtime.create("cuda").describe()
        assert facts["device_name"] == "pretend accelerator"


def test_describe_works_on_mps():
    assert Runtime(device=torch.device("mps")).describe()["device_name"] == "MPS"


def test_modules_are_placed_and_compiled_on_demand(monkeypatch):
    layer = nn.Linear(1, 1)
    runtime = Runtime.create("cpu")
    assert runtime.place(layer) is layer
    assert runtime.maybe_compile(layer) is layer
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(module))
    assert Runtime.create("cpu", compiled=True).maybe_compile(layer) is layer
    assert compiled == [layer]
    assert Runtime.create("cpu").maybe_compile(layer) is layer
    assert compiled == [layer]


def test_progress_tells_nobody():
    with Progress().track("work", 3) as report:
        assert report(1) is None


# checkpoints --------------------------------------------------------------------------------------


def test_checkpoints_without_a_place_keep_nothing():
    checkpoints = Checkpoints(interval_s=0)
    checkpoints.offer(lambda: pytest.fail("must not be asked"))
    assert checkpoints.load() is None
    checkpoints.clear()


def test_the_environment_says_how_often(monkeypatch):
    assert Runtime.create("cpu").checkpoints.interval_s == module.CHECKPOINT_INTERVAL_S
    monkeypatch.setenv(module.CHECKPOINT_VARIABLE, "1.5")
    assert Runtime.create("cpu").checkpoints.interval_s == 1.5
    for text in ("soon", "-1", "inf", "nan"):
        monkeypatch.setenv(module.CHECKPOINT_VARIABLE, text)
        with pytest.raises(UsageError, match=f"{text} is no number of seconds"):
            Runtime.create("cpu")


def test_checkpoints_are_kept_until_cleared(tmp_path):
    path = tmp_path / "work" / "state.safetensors"
    checkpoints = Checkpoints(path, interval_s=0)
    assert checkpoints.load() is None
    checkpoints.offer(lambda: {"step": 3, "tensor": torch.ones(2)})
    state = Checkpoints(path).load()
    assert state["step"] == 3
    assert torch.equal(state["tensor"], torch.ones(2))
    checkpoints.clear()
    assert not path.exists()
    checkpoints.clear()


def test_checkpoints_are_written_no_more_often_than_asked(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(module, "time", types.SimpleNamespace(monotonic=lambda: clock[0]))
    checkpoints = Checkpoints(tmp_path / "state", interval_s=10)
    written = []
    for clock[0] in (1.0, 9.0, 10.0, 15.0, 20.0):
        checkpoints.offer(lambda: written.append(clock[0]) or {"at": clock[0]})
    assert written == [10.0, 20.0]
    assert checkpoints.load() == {"at": 20.0}


def test_a_damaged_checkpoint_is_a_clear_error(tmp_path):
    (tmp_path / "state").write_bytes(b"half")
    with pytest.raises(RunError, match="truncated"):
        Checkpoints(tmp_path / "state").load()


def test_a_runtime_can_have_other_checkpoints(tmp_path):
    runtime = Runtime.create("cpu", seed=4)
    checkpoints = Checkpoints(tmp_path / "state")
    other = runtime.with_checkpoints(checkpoints)
    assert other.checkpoints is checkpoints
    assert other.seed == 4
    assert runtime.checkpoints is not checkpoints
