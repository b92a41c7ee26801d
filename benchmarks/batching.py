"""How much the batched search gains, and what it takes: together against one by one, larger tiles, compiling.

A GMI search (generator, critic, target: random weights, as speed does not depend on them) over 20 classes x 5 restarts:
`python benchmarks/batching.py [--size 16] [--steps 60]`. All ratios are of one run, the variants taken in turn
and the quickest of three rounds kept. Memory is the most that the process has held up to then, so that it says
something of a variant only as they grow. Run it on an idle machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import click
import torch
from torch import Tensor, nn

from mi_image.classifiers import SmallCnn
from mi_image.dcgan import DcganGenerator, WganCritic
from micore.contracts import Case
from micore.kit.case_rows import make_rows, standard_normal
from micore.kit.losses import cross_entropy
from micore.kit.projections import clamp_box
from micore.kit.row_optimizers import NesterovMomentum
from micore.kit.search import RowSearch
from micore.runs.memory import peak_memory
from micore.runtime import Runtime
from micore.threat import Ledger

CLASSES, RESTARTS, ROUNDS = 20, 5, 3


class Setting:
    """A generator, a critic and a target of one size, and the search over them."""

    def __init__(self, size: int, width: int, steps: int) -> None:
        self.runtime = Runtime(device=torch.device("cpu"))
        self.steps = steps
        with self.runtime.seeded("batching"):
            self.generator = DcganGenerator(size=size, channels=1, width=width)
            self.critic = WganCritic(size=size, channels=1, width=width)
            self.target = SmallCnn(CLASSES, channels=1, size=size)
        for network in self.networks:
            network.eval().requires_grad_(False)
        self.cases = [Case(id=f"class-{label}", goal="class", label=label) for label in range(CLASSES)]

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """All three."""
        return self.generator, self.critic, self.target

    def objective(self, latents: Tensor, rows: Mapping[str, Tensor], numbers: Tensor) -> Tensor:
        """GMI's loss."""
        images = self.generator(latents)
        losses: Tensor = 100 * cross_entropy(self.target(images), rows["labels"]) - self.critic(images)
        return losses

    def search(self, cases: list[Case], restarts: int, tile: int, patience: int | None = None) -> int:
        """Search and return the number of steps that rows took."""
        runtime = replace(self.runtime, tile=tile)
        rows = make_rows(cases, standard_normal(cases, (restarts, self.generator.latent_dim), runtime))
        search = RowSearch(
            objective=self.objective, optimizer=NesterovMomentum(learning_rate=0.02 / 60), steps=self.steps,
            constraint=lambda values, _: clamp_box(values, -1.0, 1.0), patience=patience, tolerance=0.5,
        )  # fmt: skip
        return int(search.run(rows, Ledger(), runtime).steps.sum())

    def one_by_one(self) -> None:
        """Attack every restart of every class alone, as scripts do."""
        for case in self.cases:
            for _ in range(RESTARTS):
                self.search([case], 1, tile=1)


def measured(rounds: int, work: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds of the quickest call, and the most memory held up to then, in MB."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times), (peak_memory(torch.device("cpu"))["process"] or 0) / 1e6


@click.command(help=__doc__)
@click.option("--size", default=16, help="Pixels.")
@click.option("--width", default=16, help="Channels of the networks' finest stage.")
@click.option("--steps", default=60, help="Steps of the search.")
@click.option("--compile", "compiled", is_flag=True, help="Also measure torch.compile (needs a C++ compiler).")
def main(size: int, width: int, steps: int, compiled: bool) -> None:
    """Print a Markdown table."""
    setting = Setting(size, width, steps)
    found = {name: measured(rounds, work) for name, (rounds, work) in variants(setting).items()}
    if compiled:
        for network in setting.networks:
            network.compile()
        setting.search(setting.cases, RESTARTS, 32)  # compiles
        found["together, tile 32, compiled"] = measured(ROUNDS, variants(setting)["together, tile 32"][1])
    first, _ = next(iter(found.values()))
    click.echo(
        f"{CLASSES} classes x {RESTARTS} restarts, {steps} steps, {size} px, {torch.get_num_threads()} threads\n"
    )
    click.echo("| variant | seconds | times as quick | memory, MB |\n|---|---|---|---|")
    for name, (value, memory) in found.items():
        click.echo(f"| {name} | {value:.2f} | {first / value:.1f} | {memory:.0f} |")


def variants(setting: Setting) -> dict[str, tuple[int, Callable[[], object]]]:
    """Return what is timed: name, rounds, work."""
    found: dict[str, tuple[int, Callable[[], object]]] = {"one by one (tile 1)": (1, setting.one_by_one)}
    for tile in (8, 32, 100):
        found[f"together, tile {tile}"] = ROUNDS, partial(setting.search, setting.cases, RESTARTS, tile)
    return found


if __name__ == "__main__":
    main()
