"""What it gains to retire rows that have converged, and to compile, in a search over a trained generator.

GMI's search for points and KED-MI's for Gaussians, 1500 steps for 5 classes x 20 restarts over a GAN of the public
digits (GMI's preset ``default``), with several values of ``patience``: `python benchmarks/retirement.py [--compile]`.
The judge is another network than the target, trained with another seed. Run it on an idle machine; compiling needs a
C++ compiler.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import click
import torch
from torch import Tensor, nn

from mi_image.gan_search import LatentObjective, identity_of, negative_score, reparameterised
from mi_image.wgan_training import SMALL, WganSettings, gan_state, restore_gan
from micore.artifacts import PluginUse
from micore.contracts import Case
from micore.data import DataRequest
from micore.kit.case_rows import make_rows, normal_draws, standard_normal, tiled
from micore.kit.losses import cross_entropy
from micore.kit.projections import clamp_box
from micore.kit.row_optimizers import NesterovMomentum, RowAdam
from micore.kit.search import Rows, RowSearch
from micore.models import restore_network
from micore.registry import Registry
from micore.runtime import Runtime
from micore.threat import Ledger
from micore.training import train

RESTARTS, STEPS, SEED = 20, 1500, 3
PATIENCES = (None, 200, 100, 50)
CASES = [Case(id=f"class-{label}", goal="class", label=label) for label in range(5)]
Rendering = Callable[[Tensor, Tensor], Tensor]
"""Values of rows and noise (B, d) to latents (B, d)."""


class Setting:
    """A target, its judge and a GAN of the public digits."""

    def __init__(self) -> None:
        self.registry, self.runtime = Registry.discover(), Runtime.create("cpu", seed=SEED)
        self.data = DataRequest.parse("digits", {}, None)
        public = self.data.open(self.registry).split("public")
        images = public.take(torch.arange(len(public)))
        state = gan_state(images, WganSettings(**SMALL), self.runtime)  # type: ignore[arg-type]
        self.generator, self.critic = restore_gan(state, self.runtime)
        self.target, self.judge = self._trained("small-cnn", SEED), self._trained("small-resnet", SEED + 1)

    def _trained(self, model: str, seed: int) -> nn.Module:
        runtime = Runtime.create("cpu", seed=seed)
        bundle = train(self.registry, runtime, data=self.data, model=PluginUse(name=model, config={}))
        return restore_network(self.registry, bundle)[0].eval().requires_grad_(False)

    def compile(self) -> None:
        """Compile the networks of the search."""
        for network in (self.generator, self.critic, self.target):
            network.compile()

    def points(self) -> tuple[RowSearch, Rows, Rendering]:
        """Return GMI's search."""
        starts = standard_normal(CASES, (RESTARTS, self.generator.latent_dim), self.runtime)
        search = RowSearch(
            objective=self._objective(), optimizer=NesterovMomentum(learning_rate=0.02), steps=STEPS,
            constraint=lambda values, _: clamp_box(values, -1.0, 1.0),
        )  # fmt: skip
        return search, make_rows(CASES, starts), lambda values, _: values

    def gaussians(self) -> tuple[RowSearch, Rows, Rendering]:
        """Return KED-MI's search, with GMI's critic."""
        objective, dim = self._objective(), self.generator.latent_dim
        starts = torch.stack([torch.zeros(len(CASES), RESTARTS, dim), torch.ones(len(CASES), RESTARTS, dim)], dim=2)
        rows = make_rows(CASES, starts, normal_draws(CASES, RESTARTS, dim, self.runtime))
        search = RowSearch(
            objective=lambda values, rows, noise: objective(reparameterised(values, noise), rows, noise),
            optimizer=RowAdam(learning_rate=0.02), steps=STEPS,
        )  # fmt: skip
        return search, rows, reparameterised

    def _objective(self) -> LatentObjective:
        return LatentObjective(
            generator=self.generator, realism=negative_score(self.critic),
            identity=identity_of(self.target, cross_entropy),
        )  # fmt: skip

    def accuracy(self, values: Tensor, render: Rendering) -> float:
        """Return the judge's accuracy on what rows have found."""
        noise = standard_normal(CASES, (RESTARTS, self.generator.latent_dim), self.runtime, "draws").flatten(0, 1)
        images = tiled(self.generator, self.runtime.tile, render(values, noise))
        labels = torch.arange(len(CASES)).repeat_interleave(RESTARTS)
        return float((tiled(self.judge, self.runtime.tile, images).argmax(1) == labels).float().mean())


def measured(setting: Setting, search: RowSearch, rows: Rows, render: Rendering) -> tuple[int, float, float]:
    """Search; return the steps that rows took, seconds and the judge's accuracy."""
    started = time.perf_counter()
    found = search.run(rows, Ledger(), setting.runtime)
    seconds = time.perf_counter() - started
    return int(found.steps.sum()), seconds, setting.accuracy(found.values, render)


@click.command(help=__doc__)
@click.option("--compile", "compiled", is_flag=True, help="Also measure torch.compile (needs a C++ compiler).")
def main(compiled: bool) -> None:
    """Print a Markdown table."""
    setting = Setting()
    click.echo("| search | variant | steps of all rows | seconds | times as quick | judge's accuracy |")
    click.echo("|---|---|---|---|---|---|")
    points, gaussians = setting.points(), setting.gaussians()
    whole = compare(setting, "points (GMI)", *points)
    compare(setting, "Gaussians (KED-MI)", *gaussians)
    if compiled:
        setting.compile()
        search, rows, render = points
        _, first, _ = measured(setting, replace(search, steps=1), rows, render)
        show("points (GMI)", f"compiled (first step: {first:.0f} s)", whole, *measured(setting, *points))


def compare(setting: Setting, name: str, search: RowSearch, rows: Rows, render: Rendering) -> float:
    """Print a row of the table for each patience; return the seconds of the whole search."""
    whole = 0.0
    for patience in PATIENCES:
        steps, seconds, accuracy = measured(setting, replace(search, patience=patience), rows, render)
        whole = whole or seconds
        show(name, f"patience {patience or 'none'}", whole, steps, seconds, accuracy)
    return whole


def show(name: str, variant: str, whole: float, steps: int, seconds: float, accuracy: float) -> None:
    """Print a row of the table."""
    click.echo(f"| {name} | {variant} | {steps} | {seconds:.1f} | {whole / seconds:.2f} | {accuracy:.2f} |")


if __name__ == "__main__":
    main()
