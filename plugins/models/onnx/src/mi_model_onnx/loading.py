"""From an ONNX file to a target that only answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
import torch
from pydantic import Field
from torch import Tensor

from micore.configs import make_config
from micore.contracts import Config
from micore.errors import ModelError
from micore.external import External, SourceRequest
from micore.files import digest, file_digest
from micore.inputs import InputSpec

CPU_PROVIDER = "CPUExecutionProvider"
Session = onnxruntime.InferenceSession
TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}


class OnnxConfig(Config):
    """Options of an ONNX target."""

    values: Literal["logits", "probabilities"] = Field("logits", description="what the output is")
    input: str | None = Field(None, description="name of the input; none: the only one")
    output: str | None = Field(None, description="name of the output; none: the first one")
    mean: list[float] | None = Field(None, description="of the input's normalisation; none: that of the data set")
    std: list[float] | None = Field(None, description="of the input's normalisation; none: that of the data set")
    threads: int = Field(0, ge=0, description="threads of ONNX Runtime; 0: its choice")


def load(request: SourceRequest) -> External:
    """Open the file. A fixed batch size is kept: what is short of it is filled up.

    Raises: UsageError without a data set; ConfigError; ModelError for a file that is none or does not fit the data.
    """
    config = make_config(OnnxConfig, request.options, "the ONNX target")
    dataset, path = request.require_dataset(), Path(request.place)
    spec = dataset.input
    spec = replace(
        spec, mean=spec.mean if config.mean is None else tuple(config.mean),
        std=spec.std if config.std is None else tuple(config.std),
    )  # fmt: skip
    session = _session(path, request.runtime.device, config)
    network = OnnxNetwork(session, _input(session, config, spec, path), _output(session, config, path), config.values)
    identity = {"input": config.input, "output": config.output, "values": config.values, **spec.to_dict()}
    return External(card=request.card("onnx", spec), fingerprint=digest(file_digest(path), identity), respond=network)


class OnnxNetwork:
    """Inputs (N, ...) to scores (N, K), as `micore.external.Respond`."""

    def __init__(self, session: Session, entry: Any, output: str, values: str) -> None:
        self._session, self._name, self._output, self._values = session, entry.name, output, values
        self._type = TYPES[entry.type]
        first = entry.shape[0]
        self._batch: int | None = first if isinstance(first, int) and first > 0 else None

    def __call__(self, inputs: Tensor) -> Tensor:
        """Run the file on all samples."""
        chunks = inputs.split(self._batch) if self._batch else (inputs,)
        scores = torch.cat([self._run(chunk) for chunk in chunks]).float()
        return scores.softmax(dim=1) if self._values == "logits" else scores.clamp(0, 1)

    def _run(self, inputs: Tensor) -> Tensor:
        n, missing = len(inputs), (self._batch or len(inputs)) - len(inputs)
        filled = torch.cat([inputs, inputs[:1].expand(missing, *inputs.shape[1:])]) if missing else inputs
        (values,) = self._session.run([self._output], {self._name: filled.cpu().numpy().astype(self._type)})
        return torch.from_numpy(np.asarray(values)).flatten(1)[:n]


def _session(path: Path, device: torch.device, config: OnnxConfig) -> Session:
    """Open the file on the run's device where ONNX Runtime has a provider for it."""
    if not path.is_file():
        raise ModelError(f"{path} is no file", hint="--model onnx:FILE")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = config.threads
    options.log_severity_level = 3
    available = onnxruntime.get_available_providers()
    wanted = [name for name in available if name.startswith(device.type.upper()) and name != CPU_PROVIDER]
    try:
        return Session(str(path), options, providers=[*wanted, CPU_PROVIDER])
    except Exception as error:  # seam: ONNX Runtime's errors have no common base
        line = str(error).strip().splitlines()[0][:200]
        raise ModelError(f"{path} cannot be opened by ONNX Runtime: {line}") from error


def _input(session: Session, config: OnnxConfig, spec: InputSpec, path: Path) -> Any:
    """Choose the input and check that samples of the data set fit."""
    entries = [item for item in session.get_inputs() if config.input in (None, item.name)]
    if len(entries) != 1:
        names = ", ".join(item.name for item in session.get_inputs())
        raise ModelError(f"{path} has these inputs: {names}", hint="-M input=NAME; one that takes images alone")
    (entry,) = entries
    if entry.type not in TYPES:
        raise ModelError(f"{path} takes {entry.type}, not pixels in floating point")
    fixed = [size if isinstance(size, int) and size > 0 else -1 for size in entry.shape]
    if len(fixed) != len(spec.shape) + 1 or not _fit(fixed[1:], spec.shape):
        raise ModelError(
            f"{path} takes samples of shape {fixed[1:]}; the data set has {list(spec.shape)}",
            hint="give the data set and options (-D size=...) that fit",
        )
    return entry


def _fit(fixed: Sequence[int], shape: Sequence[int]) -> bool:
    return all(theirs in (-1, ours) for theirs, ours in zip(fixed, shape, strict=True))


def _output(session: Session, config: OnnxConfig, path: Path) -> str:
    names = [item.name for item in session.get_outputs()]
    if config.output is not None and config.output not in names:
        raise ModelError(f"{path} has no output {config.output!r}; it has: {', '.join(names)}")
    return config.output or str(names[0])
