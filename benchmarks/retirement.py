"""What it gains to retire rows that have converged, and to compile, in a search over a trained generator.

GMI's search for points and KED-MI's for Gaussians, each over its own GAN of the public digits (preset ``default``),
1500 steps for 5 classes x 20 restarts, with several values of ``patience``:
`python benchmarks/retirement.py [--compile]`. The judge is another network than the target, trained with another seed.
Run it on an idle machine; compiling needs a C++ compiler.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import click
import torch
from torch import Tensor

from mi_image.dcgan import DcganGenerator
from mi_image.gan_search import evidence_loss, reparameterised
from mi_image.ked_training import SMALL as SMALL_KED
from mi_image.ked_training import KedSettings, ked_state, restore_ked
from mi_image.wgan_training import SMALL, gan_state, restore_gan
from micore.artifacts import PluginUse
from micore.contracts import Case
from micore.data import DataRequest
from micore.kit.case_rows import make_rows, normal_draws, standard_normal, tiled
from micore.kit.latent_objective import LatentObjective, Realism, identity_of, negative_score
from micore.kit.losses import cross_entropy
from micore.kit.projections import clamp_box
from micore.kit.row_optimizers import NesterovMomentum, RowAdam
from micore.kit.search import Rows, RowSearch
from micore.kit.wgan import WganSettings
from micore.models import load_modality, restore_network
from micore.registry import Registry
from micore.runtime import Runtime
from micore.threat import Ledger
from micore.training import train

RESTARTS, STEPS, SEED = 20, 1500, 3
PATIENCES = (None, 200, 100, 50)
CASES = [Case(id=f"class-{label}", goal="class", label=label) for label in range(5)]
Logits = Callable[[Tensor], Tensor]
Rendering = Callable[[Tensor, Tensor], Tensor]
"""Values of rows and noise (B, d) to latents (B, d)."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A search over a generator, and how what its rows find becomes latents."""

    name: str
    generator: DcganGenerator
    search: RowSearch
    rows: Rows
    render: Rendering


class Setting:
    """A target, its judge and the public digits."""

    def __init__(self) -> None:
        self.registry, self.runtime = Registry.discover(), Runtime.create("cpu", seed=SEED)
        self.data = DataRequest.parse("digits", {}, None)
        dataset = self.data.open(self.registry)
        public = dataset.split("public")
        self.images = public.take(torch.arange(len(public)))
        self._adapter = load_modality(self.registry, dataset.modality).adapter(dataset.input)
        self.target, self.judge = self._trained("small-cnn", SEED), self._trained("small-resnet", SEED + 1)

    def _trained(self, model: str, seed: int) -> Logits:
        """Train a network; return its logits of images in [0, 1]."""
        runtime = Runtime.create("cpu", seed=seed)
        bundle = train(self.registry, runtime, data=self.data, model=PluginUse(name=model, config={}))
        network = restore_network(self.registry, bundle)[0].eval().requires_grad_(False)
        return lambda images: network(self._adapter(images))

    def points(self) -> Trial:
        """Return GMI's search over its GAN."""
        state = gan_state(self.images, WganSettings(**SMALL), self.runtime)  # type: ignore[arg-type]
        generator, critic = restore_gan(state, self.runtime)
        starts = standard_normal(CASES, (RESTARTS, generator.latent_dim), self.runtime)
        search = RowSearch(
            objective=self._objective(generator, negative_score(critic)),
            optimizer=NesterovMomentum(learning_rate=0.02), steps=STEPS,
            constraint=lambda values, _: clamp_box(values, -1.0, 1.0),
        )  # fmt: skip
        return Trial(
            name="points (GMI)", generator=generator, search=search, rows=make_rows(CASES, starts),
            render=lambda values, _: values,
        )  # fmt: skip

    def gaussians(self) -> Trial:
        """Return KED-MI's search over its GAN, which the target's labels taught."""
        labels = tiled(self.target, self.runtime.tile, self.images).softmax(dim=1)
        state = ked_state(self.images, labels, KedSettings(**SMALL_KED), self.runtime)
        generator, critic = restore_ked(state, self.runtime)
        objective, dim = self._objective(generator, evidence_loss(critic)), generator.latent_dim
        starts = torch.stack([torch.zeros(len(CASES), RESTARTS, dim), torch.ones(len(CASES), RESTARTS, dim)], dim=2)
        search = RowSearch(
            objective=lambda values, rows, noise: objective(reparameterised(values, noise), rows, noise),
            optimizer=RowAdam(learning_rate=0.02), steps=STEPS,
        )  # fmt: skip
        rows = make_rows(CASES, starts, normal_draws(CASES, RESTARTS, dim, self.runtime))
        return Trial(name="Gaussians (KED-MI)", generator=generator, search=search, rows=rows, render=reparameterised)

    def _objective(self, generator: DcganGenerator, realism: Realism) -> LatentObjective:
        return LatentObjective(
            generator=generator, realism=realism, identity=identity_of(self.target, cross_entropy)
        )  # fmt: skip

    def accuracy(self, trial: Trial, values: Tensor) -> float:
        """Return the judge's accuracy on what rows have found."""
        shape = (RESTARTS, trial.generator.latent_dim)
        noise = standard_normal(CASES, shape, self.runtime, "draws").flatten(0, 1)
        images = tiled(trial.generator, self.runtime.tile, trial.render(values, noise))
        labels = torch.arange(len(CASES)).repeat_interleave(RESTARTS)
        return float((tiled(self.judge, self.runtime.tile, images).argmax(1) == labels).float().mean())

    def measured(self, trial: Trial, **changes: int | None) -> tuple[int, float, float]:
        """Search, with changes of the search; return the steps that rows took, seconds and the judge's accuracy."""
        search = replace(trial.search, **changes)  # type: ignore[arg-type]
        started = time.perf_counter()
        found = search.run(trial.rows, Ledger(), self.runtime)
        seconds = time.perf_counter() - started
        return int(found.steps.sum()), seconds, self.accuracy(trial, found.values)


@click.command(help=__doc__)
@click.option("--compile", "compiled", is_flag=True, help="Also measure torch.compile (needs a C++ compiler).")
def main(compiled: bool) -> None:
    """Print a Markdown table."""
    setting = Setting()
    click.echo("| search | variant | steps of all rows | seconds | times as quick | judge's accuracy |")
    click.echo("|---|---|---|---|---|---|")
    for trial in (setting.points(), setting.gaussians()):
        whole = compare(setting, trial)
        if compiled:
            trial.generator.compile()
            _, first, _ = setting.measured(trial, steps=1)
            show(trial, f"generator compiled (first step: {first:.0f} s)", whole, *setting.measured(trial))


def compare(setting: Setting, trial: Trial) -> float:
    """Print a row of the table for each patience; return the seconds of the whole search."""
    whole = 0.0
    for patience in PATIENCES:
        steps, seconds, accuracy = setting.measured(trial, patience=patience)
        whole = whole or seconds
        show(trial, f"patience {patience or 'none'}", whole, steps, seconds, accuracy)
    return whole


def show(trial: Trial, variant: str, whole: float, steps: int, seconds: float, accuracy: float) -> None:
    """Print a row of the table."""
    click.echo(f"| {trial.name} | {variant} | {steps} | {seconds:.1f} | {whole / seconds:.2f} | {accuracy:.2f} |")


if __name__ == "__main__":
    main()
