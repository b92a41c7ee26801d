"""The speaker encoder against float64 formulas without its weights, and on real speech with them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mi_audio import ge2e as module
from mi_audio.builders import ge2e
from mi_audio.ge2e import VARIABLE, Ge2e, has_weights, loud, partial_starts, pretrained, weights_file
from micore.answers import input_of, is_classifier, is_trained
from micore.errors import ModelError
from micore.inputs import InputSpec

Values = NDArray[np.float64]
weighted = pytest.mark.skipif(not has_weights(), reason=f"no weights: pip install --no-deps resemblyzer, or {VARIABLE}")


def speechlike(n: int, length: int, seed: int = 0) -> Tensor:
    """Return buzzes whose pitch and loudness move."""
    rng = torch.Generator().manual_seed(seed)
    pitch, phase = 80 + 150 * torch.rand(n, 1, generator=rng), torch.rand(n, 1, generator=rng)
    times = torch.arange(length) / 16000
    phases = 2 * torch.pi * (pitch * times + 3 * (2 * torch.pi * (2 * times + phase)).sin())
    swell = 0.5 + 0.5 * (2 * torch.pi * (4 * times + phase)).sin()
    return 0.1 * swell * sum((k * phases).sin() / k for k in range(1, 12))


# the formulas ---------------------------------------------------------------------------------------------


def slaney_filters() -> Values:
    """Return 40 triangles (40, 201) as librosa makes them: linear below 1 kHz, logarithmic above, of equal area."""

    def hertz(mel: Values) -> Values:
        return np.where(mel < 15, 200 / 3 * mel, 1000 * np.exp(np.log(6.4) / 27 * (mel - 15)))

    highest = 15 + np.log(8000 / 1000) / (np.log(6.4) / 27)
    edges, bins = hertz(np.linspace(0, highest, 42)), np.arange(201) * 40.0
    rising = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    return np.asarray(np.maximum(0, np.minimum(rising, falling)) * (2 / (edges[2:] - edges[:-2]))[:, None])


def mel_power(waveform: Values, frames: int) -> Values:
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    padded = np.concatenate([np.zeros(200), waveform, np.zeros(200 + frames * 160)])
    cut = np.stack([padded[160 * frame : 160 * frame + 400] for frame in range(frames)])
    return np.asarray(np.abs(np.fft.rfft(cut * window, axis=1)) ** 2 @ slaney_filters().T)


def sigmoid(values: Values) -> Values:
    return np.asarray(1 / (1 + np.exp(-values)))


def last_state(weights: dict[str, Values], inputs: Values) -> Values:
    """Return the last state of three LSTM layers on inputs (frames, 40)."""
    for layer in range(3):
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        inward, inner, bias, more = (weights[f"lstm.{name}_l{layer}"] for name in names)
        hidden, cell, states = np.zeros(256), np.zeros(256), []
        for frame in inputs:
            enter, forget, new, leave = np.split(inward @ frame + bias + inner @ hidden + more, 4)
            cell = sigmoid(forget) * cell + sigmoid(enter) * np.tanh(new)
            hidden = sigmoid(leave) * np.tanh(cell)
            states.append(hidden)
        inputs = np.stack(states)
    return np.asarray(inputs[-1])


def voiceprint(network: Ge2e, waveform: Tensor, starts: list[int]) -> Values:
    weights = {name: value.double().numpy() for name, value in network.state_dict().items()}
    samples = waveform.double().numpy()
    level = np.sqrt((samples**2).mean())
    mel = mel_power(samples * max(1.0, 10**-1.5 / level), starts[-1] + 160)
    found = []
    for start in starts:
        raw = np.maximum(0, weights["linear.weight"] @ last_state(weights, mel[start : start + 160])
                         + weights["linear.bias"])  # fmt: skip
        found.append(raw / np.linalg.norm(raw))
    mean = np.mean(found, axis=0)
    return np.asarray(mean / np.linalg.norm(mean))


@pytest.fixture(scope="module")
def network() -> Ge2e:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Ge2e().eval()


def test_filters_and_spectrogram_are_those_of_librosa(network: Ge2e) -> None:
    np.testing.assert_allclose(network.filters.T.numpy(), slaney_filters(), atol=1e-7)
    waveform = speechlike(1, 9000)
    found, expected = network.mel(waveform, 70)[0].numpy(), mel_power(waveform[0].double().numpy(), 70)
    assert found.shape == (57 + 14, 40)  # a frame more than is read, as centred windows give
    np.testing.assert_allclose(found[:70], expected, rtol=1e-3, atol=1e-6 * expected.max())


@torch.no_grad()
@pytest.mark.parametrize(("length", "starts"), [(8000, [0]), (40000, [0, 77])])
def test_voiceprints_are_those_of_the_formula(network: Ge2e, length: int, starts: list[int]) -> None:
    quiet = 0.05 * speechlike(1, length)
    found = network(quiet)[0].double().numpy()
    assert found @ voiceprint(network, quiet[0], starts) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("seconds", "starts"),
    [(0.1, [0]), (1.6, [0]), (1.9, [0]), (2.0, [0, 77]), (2.5, [0, 77]), (2.9, [0, 77, 154]), (15.0, 18)],
)
def test_parts_are_cut_as_resemblyzer_does(seconds: float, starts: list[int] | int) -> None:
    found = partial_starts(round(16000 * seconds))
    assert (len(found) if isinstance(starts, int) else found) == starts


def test_loudness_is_raised_and_never_lowered() -> None:
    waveforms = torch.stack([0.001 * torch.ones(50), 0.5 * torch.ones(50), torch.zeros(50)])
    torch.testing.assert_close(loud(waveforms)[:, 0], torch.tensor([10**-1.5, 0.5, 0.0]), rtol=1e-3, atol=1e-6)


# as a network ---------------------------------------------------------------------------------------------


def test_it_is_an_encoder_that_comes_trained_with_its_own_input(network: Ge2e) -> None:
    assert is_trained(network)
    assert not is_classifier(network)
    assert input_of(network, InputSpec(shape=(8000,), options={"sampling_rate": 8000})).options == {
        "sampling_rate": 16000
    }
    assert network.lstm.training
    assert not network.training


def test_gradients_reach_the_waveform_and_company_changes_nothing(network: Ge2e) -> None:
    waveforms = speechlike(3, 6000).requires_grad_()
    found = network(waveforms)
    (gradient,) = torch.autograd.grad(found[0].sum(), waveforms)
    assert gradient[0].abs().sum() > 0
    assert torch.equal(gradient[1:], torch.zeros_like(gradient[1:]))
    torch.testing.assert_close(network(waveforms[1:2]), found[1:2])
    silent = torch.zeros(1, 6000, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(silent).sum(), silent)
    assert gradient.isfinite().all()


def test_what_is_no_batch_of_waveforms_is_refused(network: Ge2e) -> None:
    with pytest.raises(ValueError, match="expected"):
        network(torch.zeros(1, 1, 400))
    with pytest.raises(ValueError, match="expected"):
        network(torch.zeros(1, 0))


# the weights ----------------------------------------------------------------------------------------------


def test_without_weights_one_line_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(module, "PACKAGE", "no_such_package_here")
    assert not has_weights()
    with pytest.raises(ModelError, match="not here") as found:
        ge2e(3, InputSpec(shape=(8000,), options={"sampling_rate": 8000}))
    assert "pip install --no-deps resemblyzer" in str(found.value.hint)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "absent.pt"))
    for asked in (weights_file, has_weights):
        with pytest.raises(ModelError, match="is no file"):
            asked()


@pytest.mark.parametrize("content", ["nonsense", {}, {"model_state": {}}, {"model_state": {"linear.bias": 1}}])
def test_other_files_are_refused_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: object) -> None:
    path = tmp_path / "other.pt"
    if isinstance(content, str):
        path.write_text(content)
    else:
        torch.save(content, path)
    monkeypatch.setenv(VARIABLE, str(path))
    with pytest.raises(ModelError, match=r"other\.pt holds no weights"):
        pretrained()


def test_the_package_is_found_and_not_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "resemblyzer"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('not to be imported')")
    torch.save({"model_state": Ge2e().state_dict()}, package / "pretrained.pt")
    code = "from mi_audio.ge2e import pretrained; pretrained(); import sys; assert 'resemblyzer' not in sys.modules"
    environment = {"PYTHONPATH": f"{tmp_path}:{':'.join(path for path in sys.path if path)}", "PATH": ""}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@weighted
@torch.no_grad()
def test_the_published_weights_tell_made_voices_apart() -> None:
    from mi_audio.datasets.voices import open_voices

    data = open_voices(None, speakers=5, clips=6, held=4, others=1, other_clips=2, seconds=2.0)
    network = ge2e(5, data.input)
    private, held = data.split("private"), data.split("holdout")
    known = network(private.take(range(len(private)))).view(5, 6, -1).mean(dim=1)
    found = network(held.take(range(len(held)))) @ functional.normalize(known, dim=1).T
    assert held.labels is not None
    assert float((found.argmax(dim=1) == held.labels).float().mean()) > 0.5
