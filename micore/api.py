"""The Python API: the functions behind the command line, with plain arguments.

Each function makes its own registry from the installed plugins unless it is given one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from micore import runs, suites
from micore.artifacts import Bundle, PluginUse
from micore.configs import parse_use
from micore.data import DataRequest
from micore.defending import defend as _defend
from micore.registry import Registry
from micore.runs.judging import judge
from micore.runtime import Progress, Runtime
from micore.threat import Access, Budget
from micore.training import train as _train
from micore.training import training_config

Options = Mapping[str, Any]


def train(
    *,
    data: str,
    model: str,
    output: str | Path | None = None,
    defenses: Sequence[str] = (),
    data_root: str | Path | None = None,
    data_options: Options | None = None,
    training: Options | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "fp32",
    registry: Registry | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Train a target and return its bundle, written to ``output`` if that is given.

    data, model, defenses: as on the command line (``digits``, ``small-cnn``, ``name:key=value``);
    data_options, training: such as ``{"size": 64}`` and ``{"epochs": 50}``.

    Raises: MiError, as ``mi train``.
    """
    registry = registry or Registry.discover()
    runtime = Runtime.create(device, precision, seed=seed, progress=progress or Progress())
    return _train(
        registry, runtime, data=DataRequest.parse(data, data_options, data_root), model=use(model),
        training=training_config(registry, use(model), training), defenses=[use(text) for text in defenses],
        output=Path(output) if output is not None else None,
    )  # fmt: skip


def defend(
    target: str | Path,
    *,
    defenses: Sequence[str],
    output: str | Path | None = None,
    data: str | None = None,
    data_root: str | Path | None = None,
    data_options: Options | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "fp32",
    registry: Registry | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Add defenses of its answers to a finished target; return the bundle, written to ``output`` if that is given.

    defenses: as on the command line (``round-scores:decimals=1``); data: the target's own unless given.

    Raises: MiError, as ``mi defend``.
    """
    registry = registry or Registry.discover()
    runtime = Runtime.create(device, precision, seed=seed, progress=progress or Progress())
    return _defend(
        registry, runtime, Bundle.load(Path(target)), defenses=[use(text) for text in defenses],
        data=DataRequest.parse(data, data_options, data_root) if data else None, data_root=data_root,
        output=Path(output) if output is not None else None,
    )  # fmt: skip


def attack(
    plugin: str,
    *,
    model: str | Path,
    data: str | None = None,
    classes: str | None = None,
    evidence: str | None = None,
    output: str | Path | None = None,
    access: str | None = None,
    budget_queries: int | None = None,
    budget_seconds: float | None = None,
    preset: str = "default",
    options: Options | None = None,
    data_root: str | Path | None = None,
    data_options: Options | None = None,
    evaluators: Sequence[str] | None = None,
    evaluator_model: str | Path | None = None,
    judges: int = 1,
    seed: int = 0,
    device: str = "auto",
    precision: str = "fp32",
    registry: Registry | None = None,
    progress: Progress | None = None,
) -> runs.Run:
    """Attack a target, judge what was recovered and return the run.

    Arguments are those of ``mi attack``; ``options`` are the attack's settings. The figures are
    ``run.measurements()``; `micore.runs.problem` tells what kept a run from being complete.

    Raises: MiError, as ``mi attack``, before anything is written.
    """
    request = runs.AttackRequest(
        attack=PluginUse(name=plugin, config=dict(options or {})),
        model=str(model), preset=preset, choice=classes, evidence=evidence,
        data=DataRequest.parse(data, data_options, data_root) if data else None,
        data_root=str(data_root) if data_root is not None else None,
        access=Access.parse(access) if access else None,
        budget=Budget(queries=budget_queries, seconds=budget_seconds), seed=seed, device=device, precision=precision,
        evaluators=None if evaluators is None else tuple(use(text) for text in evaluators),
        evaluator_model=str(evaluator_model) if evaluator_model else None, judges=judges,
    )  # fmt: skip
    directory = Path(output) if output is not None else None
    return runs.attack(registry or Registry.discover(), request, directory, progress)


def resume(run: str | Path, *, registry: Registry | None = None, progress: Progress | None = None) -> runs.Run:
    """Continue a run that was stopped; as ``mi resume``."""
    return runs.resume(registry or Registry.discover(), Path(run), progress=progress)


def evaluate(
    run: str | Path,
    *,
    evaluators: Sequence[str] | None = None,
    judges: int | None = None,
    registry: Registry | None = None,
) -> runs.Run:
    """Judge a run again, or with further evaluators or evaluator models; as ``mi evaluate``."""
    chosen = None if evaluators is None else [use(text) for text in evaluators]
    return judge(registry or Registry.discover(), Path(run), evaluators=chosen, judges=judges)


def compare(*directories: str | Path, at_budget: int | str | None = None) -> runs.Comparison:
    """Compare runs with the first of them; as ``mi compare``. at_budget: queries, or ``equal``."""
    return runs.compare([runs.Run.open(Path(directory)) for directory in directories], at_budget=at_budget)


def bench(
    suite: str | Path,
    *,
    output: str | Path,
    only: Sequence[str] = (),
    data_root: str | Path | None = None,
    write: str | Path | None = None,
    renew: bool = False,
    device: str = "auto",
    precision: str = "fp32",
    launcher: str = "local",
    address: str | None = None,
    launcher_cpus: int = 1,
    registry: Registry | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run a suite file and return its tables as JSON values; as ``mi bench``.

    Each row is a process of its own, which sees the installed plugins whatever ``registry`` is. A row that fails
    does not raise.

    Raises: MiError, as ``mi bench``, before anything runs.
    """
    options = suites.Options(
        only=only, page=Path(write) if write is not None else None, renew=renew,
        machine=suites.Machine(device=device, data_root=str(Path(data_root).absolute()) if data_root else None),
        arithmetic=suites.Precision(name=precision),
        launch=suites.Launch(name=launcher, address=address, cpus=launcher_cpus),
    )  # fmt: skip
    return suites.run_suite(
        registry or Registry.discover(), Path(suite), Path(output), options, progress=progress
    )  # fmt: skip


def use(text: str) -> PluginUse:
    """Read ``name:key=value,key=value``."""
    name, config = parse_use(text)
    return PluginUse(name=name, config=config)
