"""``mi import``: weights of a user's own model become a bundle, and code hidden in a file never runs."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from micore.artifacts import Bundle
from micore.errors import ModelError
from micore.importing import read_weights

ARGUMENTS = ("--model", "small-cnn", "--data", "digits", "-D", "size=16", "-o")


@pytest.fixture
def weights(target: Path) -> dict[str, torch.Tensor]:
    return dict(Bundle.load(target).weights)


def test_a_state_dict_becomes_the_same_bundle(mi, target, weights, tmp_path):
    save_file(weights, tmp_path / "own.safetensors")
    result = mi("import", tmp_path / "own.safetensors", *ARGUMENTS, tmp_path / "bundle.safetensors")
    assert result.exit_code == 0, result.stderr
    imported, trained = Bundle.load(tmp_path / "bundle.safetensors"), Bundle.load(target)
    assert imported.fingerprint == trained.fingerprint
    assert imported.card.metrics["holdout_accuracy"] == trained.card.metrics["holdout_accuracy"]
    assert f"accuracy {trained.card.metrics['holdout_accuracy']:.1%}" in result.stdout


@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"state_dict": w}, lambda w: {"model": {"state_dict": w}}])
def test_nested_and_prefixed_state_dicts_are_unwrapped(weights, tmp_path, wrap):
    prefixed = {f"module.{name}": tensor for name, tensor in weights.items()}
    torch.save(wrap(prefixed), tmp_path / "own.pt")
    assert read_weights(tmp_path / "own.pt").keys() == weights.keys()


def test_the_normalisation_is_the_models_own(mi, weights, tmp_path):
    save_file(weights, tmp_path / "own.safetensors")
    options = ("--mean", "0.25", "--std", "0.125")
    result = mi("import", tmp_path / "own.safetensors", *options, *ARGUMENTS, tmp_path / "bundle.safetensors")
    assert result.exit_code == 0, result.stderr
    spec = Bundle.load(tmp_path / "bundle.safetensors").card.input
    assert (spec.mean, spec.std) == ((0.25,), (0.125,))


def test_code_in_a_pickle_never_runs_unasked(mi, tmp_path):
    (tmp_path / "own.pt").write_bytes(pickle.dumps(Trap(tmp_path / "sprung"), protocol=2))
    result = mi("import", tmp_path / "own.pt", *ARGUMENTS, tmp_path / "bundle.safetensors")
    assert result.exit_code == ModelError.exit_code
    assert "--trust-pickle" in result.stderr
    assert not (tmp_path / "sprung").exists()
    assert not (tmp_path / "bundle.safetensors").exists()


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_trusted_pickle_may_hold_a_whole_module(tmp_path):
    torch.save(nn.Linear(2, 3), tmp_path / "own.pt")
    with pytest.raises(ModelError, match="more than tensors"):
        read_weights(tmp_path / "own.pt")
    assert read_weights(tmp_path / "own.pt", trust_pickle=True).keys() == {"weight", "bias"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.safetensors", None, "does not exist"),
        ("cut.safetensors", b"\x08\x00", "cannot be read"),
        ("empty.pt", b"", "cannot be read"),
        ("text.pt", b"no pickle at all", "more than tensors"),
    ],
)
def test_what_is_no_weights_is_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=message):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("content", [{}, {"a": 1}, [torch.zeros(1)]])
def test_a_file_without_a_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "own.pt")
    with pytest.raises(ModelError, match="no state dict"):
        read_weights(tmp_path / "own.pt")


def test_weights_of_another_architecture_are_refused(mi, weights, tmp_path):
    save_file(weights, tmp_path / "own.safetensors")
    arguments = ("--model", "small-resnet", *ARGUMENTS[2:])
    result = mi("import", tmp_path / "own.safetensors", *arguments, tmp_path / "bundle.safetensors")
    assert result.exit_code == ModelError.exit_code
    assert "weights do not fit architecture 'small-resnet'" in result.stderr


def test_a_mean_that_is_no_list_of_numbers_is_refused(mi, weights, tmp_path):
    save_file(weights, tmp_path / "own.safetensors")
    result = mi("import", tmp_path / "own.safetensors", "--mean", "half", *ARGUMENTS, tmp_path / "b.safetensors")
    assert result.exit_code == 2
    assert "0.485,0.456,0.406" in result.stderr
