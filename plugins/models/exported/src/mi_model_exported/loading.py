"""From exported files, and from a function or a network of the user's, to targets."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from micore.artifacts import Bundle
from micore.configs import make_config
from micore.contracts import Config
from micore.errors import ConfigError, ModelError
from micore.external import External, SourceRequest
from micore.files import digest, file_digest
from micore.inputs import InputSpec
from micore.threat import Access


class ExportedConfig(Config):
    """Options of an exported file."""

    mean: list[float] | None = Field(None, description="of the input's normalisation; none: that of the data set")
    std: list[float] | None = Field(None, description="of the input's normalisation; none: that of the data set")
    trust: bool = Field(False, description="read the file although it can run code; only for one that you made")


class PythonConfig(Config):
    """Options of a function, or a network."""

    answer: Literal["scores", "label"] = Field("scores", description="what a function returns: (N, K) or (N,)")
    values: Literal["probabilities", "logits"] = Field("probabilities", description="what the scores of a function are")
    mean: list[float] = Field([], description="of the input's normalisation; empty: pixels in [0, 1]")
    std: list[float] = Field([], description="of the input's normalisation")


def load_script(request: SourceRequest) -> External:
    """Open a file of ``torch.jit.save`` as a network: all access can be granted.

    Its layers are no modules of torch.nn, so that attacks which need those (batch norm) refuse it.

    Raises: UsageError without a data set; ConfigError; ModelError.
    """
    return _network(request, "torchscript", _read_script)


def load_program(request: SourceRequest) -> External:
    """Open a file of ``torch.export.save``. A fixed batch size must be that of ``--tile``.

    Raises: UsageError without a data set; ConfigError; ModelError, also for a file that is not trusted.
    """
    return _network(request, "export", _read_program)


def load_python(request: SourceRequest) -> External:
    """Import ``module:name``: a function, or a network.

    A function is called with inputs (N, ...) and returns scores (N, K) or labels (N,). A network, an instance of
    ``torch.nn.Module`` with its weights, gives logits (N, K); all access to it can be granted. The module is looked for
    in the working directory, too.

    Raises: UsageError without a data set; ConfigError; ModelError when it cannot be imported or does not fit.
    """
    config = make_config(PythonConfig, request.options, f"the target {request.uri}")
    found = _imported(request.place)
    spec = replace(request.require_dataset().input, mean=tuple(config.mean), std=tuple(config.std))
    if isinstance(found, nn.Module):
        return _own_network(request, found, spec)
    return _function(request, found, config, spec)


def _own_network(request: SourceRequest, module: nn.Module, spec: InputSpec) -> External:
    alone = [name for name in ("answer", "values") if name in request.options]
    if alone:
        raise ConfigError(f"{request.uri} is a network: {alone[0]} is for functions", hint="leave it out")
    dataset = request.require_dataset()
    _probe(module, spec, len(dataset.classes), request.uri, request.runtime.device)
    card = request.card("py", spec)
    weights = Bundle(card=card, weights={name: tensor.detach() for name, tensor in module.state_dict().items()})
    return External(card=card, module=module, fingerprint=digest("py", str(module), weights.fingerprint))


def _function(
    request: SourceRequest, function: Callable[[Tensor], Any], config: PythonConfig, spec: InputSpec
) -> External:
    labels = config.answer == "label"

    def respond(inputs: Tensor) -> Tensor:
        answers = torch.as_tensor(function(inputs)).detach()
        if labels:
            return answers.long()
        return answers.float().softmax(dim=1) if config.values == "logits" else answers.float()

    return External(
        card=request.card("py", spec), fingerprint=digest(request.uri, config.model_dump()), respond=respond,
        access=Access.LABEL if labels else Access.SCORES,
        notes=("the target is a function: whether it stayed the same during the run cannot be seen",),
    )  # fmt: skip


def _network(request: SourceRequest, name: str, read: Callable[[Path, torch.device], nn.Module]) -> External:
    config = make_config(ExportedConfig, request.options, f"the {name} target")
    path = Path(request.place)
    if not path.is_file():
        raise ModelError(f"{path} is no file", hint=f"--model {name}:FILE")
    if not config.trust:
        raise ModelError(
            f"{path} can run code when it is read", hint="-M trust=true if you made it; ONNX files (onnx:) cannot"
        )
    spec = _normalised(request.require_dataset().input, config)
    module = read(path, request.runtime.device)
    _probe(module, spec, len(request.require_dataset().classes), path, request.runtime.device)
    return External(
        card=request.card(name, spec), fingerprint=digest(name, file_digest(path), spec.to_dict()), module=module
    )


def _normalised(spec: InputSpec, config: ExportedConfig) -> InputSpec:
    mean = spec.mean if config.mean is None else tuple(config.mean)
    std = spec.std if config.std is None else tuple(config.std)
    return replace(spec, mean=mean, std=std)


def _read_script(path: Path, device: torch.device) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch.jit as a whole
            module: nn.Module = torch.jit.load(str(path), map_location=device)
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{path} is no file of torch.jit.save: {_first_line(error)}") from error
    return module


def _read_program(path: Path, device: torch.device) -> nn.Module:
    try:
        program = torch.export.load(path)
        return Exported(program.module())
    except Exception as error:  # seam: what torch.export raises has no common base
        raise ModelError(f"{path} is no file of torch.export.save: {_first_line(error)}") from error


class Exported(nn.Module):
    """An exported program, which is in eval mode already and refuses to be put into it."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def train(self, mode: bool = True) -> Exported:
        """Change nothing: the mode was fixed when the program was exported."""
        self.training = mode
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.program(inputs)
        return logits


@torch.no_grad()
def _probe(module: nn.Module, spec: InputSpec, n_classes: int, place: Path | str, device: torch.device) -> None:
    """Check on two grey samples that input and output fit; this is no query of the adversary's."""
    module.eval()
    inputs = torch.full((2, *spec.shape), 0.5, device=device)
    try:
        logits = module.to(device)(inputs)
    except Exception as error:  # seam: a foreign network's own fault
        raise ModelError(
            f"{place} does not take samples of shape {list(spec.shape)}, two at a time: {_first_line(error)}",
            hint="give the data set and options (-D size=...) that fit, and export with a dynamic batch size",
        ) from error
    shape = tuple(getattr(logits, "shape", ()))
    if shape != (2, n_classes):
        raise ModelError(
            f"{place} gives {shape} for 2 samples; logits of the data set's {n_classes} classes are needed"
        )
    if n_classes > 1 and bool((logits >= 0).all()) and torch.allclose(logits.sum(dim=1), torch.ones(2, device=device)):
        raise ModelError(f"{place} gives probabilities; logits are needed", hint="leave its softmax out")


def _imported(place: str) -> Any:
    module_name, _, name = place.partition(":")
    if not module_name or not name:
        raise ModelError(f"py:{place} names no function or network", hint="--model py:MODULE:NAME")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ModelError(f"py:{place} cannot be imported: {error}", hint="it is looked for here, too") from error
    if isinstance(found, type):
        raise ModelError(
            f"py:{place} is a class", hint="name a function, or a network with its weights: network = MyNet(); ..."
        )
    if not callable(found):
        raise ModelError(f"py:{place} is no function or network")
    return found


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
