"""What it gains to breed the populations of all classes together, and not one class after the other.

MIRROR's genetic search with the target's scores (a DCGAN's latents in place of a StyleGAN's codes; random weights, as
speed does not depend on them): `python benchmarks/populations.py [--size 16] [--population 16] [--generations 20]`.
All ratios are of one run, the quickest of three rounds. Run it on an idle machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import click
import torch
from torch import Tensor

from mi_image.classifiers import SmallCnn
from mi_image.dcgan import DcganGenerator
from micore.contracts import Case
from micore.inputs import InputSpec
from micore.kit.case_rows import make_rows, standard_normal, uniform_draws
from micore.kit.evolution import Genetic, PopulationSearch
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Access, Ledger

CLASSES, ROUNDS = 20, 3
TILES = (32, 128, 512)


class Setting:
    """A generator, a target that answers with scores, and the search over them."""

    def __init__(self, size: int, width: int, population: int, generations: int) -> None:
        self.runtime = Runtime(device=torch.device("cpu"))
        self.population, self.generations = population, generations
        with self.runtime.seeded("populations"):
            self.generator = DcganGenerator(size=size, channels=1, width=width).eval().requires_grad_(False)
            network = SmallCnn(CLASSES, channels=1, size=size)
        self.target = Target(
            network, access=Access.SCORES, adapter=lambda samples: samples, input_spec=InputSpec(shape=(1, size, size)),
            classes=[str(label) for label in range(CLASSES)], ledger=Ledger(), runtime=self.runtime,
        )  # fmt: skip
        self.cases = [Case(id=f"class-{label}", goal="class", label=label) for label in range(CLASSES)]

    def losses(self, members: Tensor, rows: Mapping[str, Tensor]) -> Tensor:
        """Return the negative log-probability of the class."""
        scores = self.target.scores(self.generator(members))
        return -scores.gather(1, rows["labels"][:, None])[:, 0].clamp_min(1e-12).log()

    def search(self, cases: Sequence[Case], tile: int) -> None:
        """Breed the populations of these cases."""
        runtime, dims = replace(self.runtime, tile=tile), self.generator.latent_dim
        breeding = Genetic(reach=0.5, mutation_rate=0.1)
        starts = standard_normal(cases, (1, self.population, dims), runtime)
        draw = uniform_draws(cases, 1, breeding.n_numbers(self.population, dims), runtime, "evolution")
        search = PopulationSearch(score=self.losses, breeding=breeding, generations=self.generations)
        search.run(make_rows(cases, starts, draw), Ledger(), runtime)

    def one_by_one(self) -> None:
        """Attack one class after the other, each with a tile of its population."""
        for case in self.cases:
            self.search([case], self.population)


def seconds(work: Callable[[], None]) -> float:
    """Return the time of the quickest of some calls."""
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


@click.command(help=__doc__)
@click.option("--size", default=16, help="Pixels.")
@click.option("--width", default=16, help="Channels of the networks' finest stage.")
@click.option("--population", default=16, help="Members of a population.")
@click.option("--generations", default=20, help="Generations.")
def main(size: int, width: int, population: int, generations: int) -> None:
    """Print a Markdown table."""
    setting = Setting(size, width, population, generations)
    alone = seconds(setting.one_by_one)
    found = {f"one class at a time (tile {population})": alone}
    for tile in TILES:
        found[f"together, tile {tile}"] = seconds(lambda tile=tile: setting.search(setting.cases, tile))  # type: ignore[misc]
    click.echo(f"{CLASSES} classes, populations of {population}, {generations} generations, {size} px, "
               f"{torch.get_num_threads()} threads\n")  # fmt: skip
    click.echo("| variant | seconds | times as quick |\n|---|---|---|")
    for name, value in found.items():
        click.echo(f"| {name} | {value:.2f} | {alone / value:.1f} |")


if __name__ == "__main__":
    main()
