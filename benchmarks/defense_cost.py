"""What defenses cost: a defended training step over an undefended one, and the time that an answer takes.

`python benchmarks/defense_cost.py [--data digits] [--only NAME:KEY=VALUE]`. Steps of the undefended and of each
defended training are taken in turn, in one process, on the same data; the medians are compared. Answers are those of
256 samples. Default settings of every installed defense, unless some are named; run it on an idle machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from statistics import median

import click
import torch
from torch import Tensor

from micore.api import use
from micore.artifacts import PluginUse
from micore.configs import parse_assignments
from micore.contracts import Dataset, Defense, Modality
from micore.data import DataRequest
from micore.defending import fit_defenses, labelled_public
from micore.errors import MiError
from micore.kit.training import Trainer, TrainingBatch, TrainingConfig
from micore.models import build_network, defense_spec, load_defenses, load_modality
from micore.registry import Registry
from micore.runtime import Runtime

ANSWERS = 256
WARM_UP = 3


@dataclass
class Setting:
    """What is trained."""

    registry: Registry
    dataset: Dataset
    modality: Modality
    model: str
    runtime: Runtime

    def trainer(self, *names: str) -> Trainer:
        """Return a training that has begun, with these defenses."""
        dataset = self.dataset
        defenses = load_defenses(self.registry, [use(text) for text in names], dataset.modality)
        with self.runtime.seeded("cost"):
            network, n_classes = PluginUse(name=self.model), len(dataset.classes)
            module = build_network(self.registry, network, n_classes, dataset.input, defenses)
            made = Trainer(
                module, dataset.split("private"), config=TrainingConfig(), adapter=self.modality.adapter(dataset.input),
                augment=self.modality.augment, runtime=self.runtime, defenses=defenses, n_classes=n_classes,
                public=labelled_public(dataset),
            )  # fmt: skip
            for defense in defenses:
                defense.begin(made)
        return made

    def fitted(self, name: str, trainer: Trainer) -> Defense:
        """Return a defense of answers, fitted to a training's network as it is."""
        (defense,) = load_defenses(self.registry, [use(name)], self.dataset.modality)
        split = self.dataset.split("private")
        fit_defenses(
            [defense], trainer.module, adapter=trainer.adapter, reference=split, fresh=False, dataset=self.dataset,
            runtime=self.runtime,
        )  # fmt: skip
        return defense


def steps(trainer: Trainer) -> Iterator[float]:
    """Take steps for ever, late in the training, and yield the seconds of each."""
    epochs = trainer.config.epochs
    for epoch in count():
        for inputs, labels in trainer.batches(epoch):
            trainer.module.train()
            started = time.perf_counter()
            trainer.step(TrainingBatch(trainer.module, inputs, labels, epochs - 1, epochs))
            yield time.perf_counter() - started


def step_row(setting: Setting, name: str, n: int) -> str:
    """Measure the median defended step over the median plain one, taken in turn."""
    with setting.runtime.seeded("steps"):
        plain, defended = steps(setting.trainer()), steps(setting.trainer(name))
        times = [(next(plain), next(defended)) for _ in range(n + WARM_UP)][WARM_UP:]
    slow, quick = median(pair[1] for pair in times), median(pair[0] for pair in times)
    return f"{slow / quick:.2f} | {1e3 * quick:.1f}"


def answer_row(setting: Setting, name: str, n: int) -> str:
    """Measure the median time of a network's answers to 256 samples, and of what a defense does to them."""
    trainer = setting.trainer()
    defense, split = setting.fitted(name, trainer), setting.dataset.split("private")
    samples = split.take(torch.arange(ANSWERS) % len(split)).to(setting.runtime.device)
    module = trainer.module.eval()
    watches = type(defense).observe is not Defense.observe
    network, guard = [], []
    with torch.no_grad():
        for _ in range(n + WARM_UP):
            started = time.perf_counter()
            scores: Tensor = module(trainer.adapter(samples)).softmax(dim=1)
            between = time.perf_counter()
            scores = defense.adapt_output(scores, samples)
            if watches:
                defense.observe(scores, samples)
            network.append(between - started)
            guard.append(time.perf_counter() - between)
    return f"{1e3 * median(network[WARM_UP:]):.1f} | {1e3 * median(guard[WARM_UP:]):.2f}"


@click.command(help=__doc__)
@click.option("--data", default="digits", help="Data set, as for `mi train`.")
@click.option("-D", "--data-option", "data_options", multiple=True, help="Option of the data set.")
@click.option("--data-root", envvar="MI_DATA_ROOT", help="Where data sets that are not bundled lie.")
@click.option("--model", default="small-resnet", help="Architecture.")
@click.option("--steps", "n", default=60, help="Steps, or answers, that are timed.")
@click.option("--only", multiple=True, help="Defense, NAME[:KEY=VALUE,...]; all when none.")
def main(
    data: str, data_options: Sequence[str], data_root: str | None, model: str, n: int, only: Sequence[str]
) -> None:  # fmt: skip
    """Print two Markdown tables."""
    registry = Registry.discover()
    dataset = DataRequest.parse(data, parse_assignments(data_options), data_root).open(registry)
    modality = load_modality(registry, dataset.modality)
    setting = Setting(registry, dataset, modality, model, Runtime(device=torch.device("cpu")))
    asked = only or [entry.spec.name for entry in registry.entries("defense")]
    stages = {text: defense_spec(registry.find("defense", use(text).name)).stages for text in asked}
    trained = [name for name, found in stages.items() if {"data", "training"} & set(found)]
    answered = [name for name, found in stages.items() if {"inference", "monitoring"} & set(found)]
    click.echo(
        f"{dataset.name}, {model}, {torch.get_num_threads()} threads, batches of {TrainingConfig().batch_size}\n"
    )
    click.echo("| defense | step over undefended | undefended step, ms |\n|---|---|---|")
    for name in trained:
        click.echo(f"| {name} | {told(partial(step_row, setting, name, n))} |")
    click.echo(f"\n| defense | network, ms for {ANSWERS} answers | defense, ms more |\n|---|---|---|")
    for name in answered:
        click.echo(f"| {name} | {told(partial(answer_row, setting, name, n))} |")


def told(row: Callable[[], str]) -> str:
    """Return what was measured, or why it was not: a defense may not fit this model."""
    try:
        return row()
    except MiError as error:
        return f"{error} |"


if __name__ == "__main__":
    main()
