"""Exported networks and functions as targets."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from mi_model_exported.loading import load_program, load_python, load_script
from micore.errors import ConfigError, ModelError, UsageError
from micore.external import External, SourceRequest
from micore.inputs import InputSpec
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Access, Ledger

SHAPE, CLASSES = (1, 4, 4), ("a", "b", "c")
DATASET = SimpleNamespace(modality="image", classes=CLASSES, input=InputSpec(shape=SHAPE, mean=(0.5,), std=(0.25,)))
RUNTIME = Runtime(device=torch.device("cpu"))


class Network(nn.Module):
    """Three classes, with a layer that behaves otherwise in training."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.dropout = nn.Linear(16, 3), nn.Dropout(0.5)
        self.linear.weight.data.copy_(torch.randn(3, 16, generator=torch.Generator().manual_seed(5)))
        self.linear.bias.data.zero_()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.linear(self.dropout(images).flatten(1))
        return logits


def script(path: Path) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.save(torch.jit.script(Network()), str(path))
    return f"torchscript:{path}"


def program(path: Path) -> str:
    batch = torch.export.Dim("batch", min=1, max=4096)
    exported = torch.export.export(Network().eval(), (torch.rand(2, *SHAPE),), dynamic_shapes=({0: batch},))
    torch.export.save(exported, path)
    return f"export:{path}"


FORMS = [pytest.param(load_script, script, id="torchscript"), pytest.param(load_program, program, id="export")]


def request(uri: str, dataset: object = DATASET, **options: object) -> SourceRequest:
    return SourceRequest(uri=uri, runtime=RUNTIME, options=options, dataset=dataset)


def target_of(external: External, access: Access) -> Target:
    model = external.module if external.module is not None else external.respond
    assert model is not None
    return Target(
        model, access=access, adapter=lambda samples: samples, input_spec=external.card.input, classes=CLASSES,
        ledger=Ledger(), runtime=RUNTIME,
    )  # fmt: skip


@pytest.mark.parametrize(("load", "write"), FORMS)
def test_an_exported_network_grants_everything(tmp_path, load, write):
    external = load(request(write(tmp_path / "x.pt2"), trust=True))
    assert external.highest_access == Access.WHITE_BOX
    assert external.card.input.mean == (0.5,)
    target, network = target_of(external, Access.WHITE_BOX), Network().eval()
    images = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    assert torch.allclose(target.module(images), network(images), atol=1e-6)
    assert torch.allclose(target.scores(images), network(images).softmax(dim=1), atol=1e-6)
    (mine,) = torch.autograd.grad(target.module(images).square().sum(), images)
    (own,) = torch.autograd.grad(network(images).square().sum(), images)
    assert torch.allclose(mine, own, atol=1e-5)
    assert target.ledger.total.gradients == 5


@pytest.mark.parametrize(("load", "write"), FORMS)
def test_what_does_not_fit(tmp_path, load, write):
    uri = write(tmp_path / "x.pt2")
    with pytest.raises(ModelError, match=r"can run code.*trust=true"):
        load(request(uri))
    with pytest.raises(UsageError, match="give --data"):
        load(request(uri, dataset=None, trust=True))
    with pytest.raises(ModelError, match="is no file"):
        load(request(f"{uri}.gone", trust=True))
    with pytest.raises(ModelError, match="does not take samples of shape"):
        load(request(uri, SimpleNamespace(**{**vars(DATASET), "input": InputSpec(shape=(1, 4, 7))}), trust=True))
    with pytest.raises(ModelError, match=r"gives \(2, 3\) for 2 samples; logits of the data set's 2 classes"):
        load(request(uri, SimpleNamespace(**{**vars(DATASET), "classes": ("a", "b")}), trust=True))
    (tmp_path / "text.pt2").write_text("nothing of the kind")
    with pytest.raises(ModelError, match="is no file of torch"):
        load(request(f"{uri.partition(':')[0]}:{tmp_path / 'text.pt2'}", trust=True))


@pytest.fixture
def predict(tmp_path, monkeypatch):
    """Write a module of the user's into the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "users_predictions.py").write_text(
        "def scores(x):\n    return x.flatten(1)[:, :3].softmax(1).numpy()\n\n"
        "def labels(x):\n    return x.flatten(1)[:, :3].argmax(1).tolist()\n\n"
        "def logits(x):\n    return x.flatten(1)[:, :3]\n\nnumber = 3\n\n"
        "import torch\n\nclass Net(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.scale = torch.nn.Parameter(torch.tensor(2.0))\n\n"
        "    def forward(self, x):\n        return self.scale * x.flatten(1)[:, :3]\n\n"
        "network = Net()\nsure = torch.nn.Sequential(network, torch.nn.Softmax(1))\n"
    )
    yield "py:users_predictions:"
    sys.modules.pop("users_predictions", None)


def test_a_function_answers(predict):
    images = torch.rand(4, *SHAPE)
    expected = images.flatten(1)[:, :3].softmax(1)
    scores = target_of(load_python(request(predict + "scores")), Access.SCORES)
    assert torch.allclose(scores.scores(images), expected)
    logits = target_of(load_python(request(predict + "logits", values="logits")), Access.SCORES)
    assert torch.allclose(logits.scores(images), expected)
    external = load_python(request(predict + "labels", answer="label"))
    assert external.highest_access == Access.LABEL
    assert torch.equal(target_of(external, Access.LABEL).labels(images), expected.argmax(1))
    assert external.card.input.mean == ()
    assert any("cannot be seen" in note for note in external.notes)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone", "cannot be imported"),
        ("Net", "is a class"),
        ("number", "is no function or network"),
        ("", "names no function or network"),
    ],
)
def test_functions_that_are_none(predict, name, message):
    with pytest.raises(ModelError, match=message):
        load_python(request(predict + name))
    with pytest.raises(ModelError, match="cannot be imported"):
        load_python(request("py:no_such_module:f"))


def test_a_network_in_python_grants_everything(predict):
    external = load_python(request(predict + "network"))
    assert external.highest_access == Access.WHITE_BOX
    images = torch.rand(4, *SHAPE, requires_grad=True)
    target = target_of(external, Access.WHITE_BOX)
    expected = (2 * images.flatten(1)[:, :3]).softmax(1)
    torch.testing.assert_close(target.scores(images.detach()), expected.detach())
    (gradient,) = torch.autograd.grad(target.module(images)[:, 0].sum(), images)
    assert gradient.abs().sum() > 0
    same = load_python(request(predict + "network")).fingerprint
    assert same == external.fingerprint
    with torch.no_grad():
        sys.modules["users_predictions"].network.scale.fill_(3)
    assert load_python(request(predict + "network")).fingerprint != same


def test_a_network_that_does_not_fit_is_refused(predict):
    with pytest.raises(ModelError, match=r"gives probabilities; logits are needed"):
        load_python(request(predict + "sure"))
    with pytest.raises(ConfigError, match=r"is a network: values is for functions"):
        load_python(request(predict + "network", values="logits"))
