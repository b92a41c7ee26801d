"""One good toy plugin of each kind: it passes every check; the broken ones differ in one thing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import ClassVar

import click
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from micore.configs import make_config
from micore.contracts import Config, Defense, Interval, Measurement, Prepared, Reconstruction
from micore.errors import ModelError
from micore.external import External
from micore.hookspecs import hookimpl
from micore.runtime import Runtime
from micore.testing.toys import ToyModality, build_other_toy, build_toy, open_toy

__all__ = [
    "GoodAttack",
    "GoodDefense",
    "GoodEvaluator",
    "GoodTracker",
    "ToyModality",
    "build_other_toy",
    "build_toy",
    "load_toy",
    "open_toy",
    "toy_command",
]


class GoodAttackConfig(Config):
    steps: int = Field(12, ge=0, description="steps of the search")
    restarts: int = Field(2, ge=1, description="samples of each case")
    rate: float = Field(0.1, gt=0, description="step size")


class GoodPrior:
    """Grids like the mean of public data."""

    def __init__(self, mean):
        self.mean = mean

    def sample(self, n, rng):
        return (self.mean + 0.3 * rng.normal((n, *self.mean.shape))).clamp(0, 1)


class GoodGenerator(nn.Module):
    """Add the mean of public data to latents."""

    def __init__(self, mean):
        super().__init__()
        self.register_buffer("mean", mean)

    def forward(self, latents, labels):
        return latents + self.mean


class GoodAttack:
    """Follow the gradient of a class from noisy means of public data; no paper, it is a toy."""

    Config: ClassVar = GoodAttackConfig
    PRESETS: ClassVar[Mapping] = {"default": {}, "smoke": {"steps": 8}, "paper": {"steps": 100}}
    PREPARE_FIELDS: ClassVar = frozenset()

    def __init__(self, config):
        self.config = config

    def prepare(self, target, public, runtime):
        state = runtime.checkpoints.load() or {"step": 0, "total": torch.zeros(target.input_spec.shape)}
        step, total = state["step"], state["total"]
        while step < 4:
            order = runtime.rng("public", step).permutation(len(public))
            total, step = total + public.take(order[:16]).mean(dim=0), step + 1
            runtime.checkpoints.offer(partial(dict, step=step, total=total))
        return Prepared(state={"mean": total / step})

    def prior(self, prepared, runtime):
        return GoodPrior(prepared.state["mean"].to(runtime.device))

    def generator(self, prepared, runtime):
        return runtime.place(GoodGenerator(prepared.state["mean"].clone()))

    def with_generator(self, prepared, weights):
        return Prepared(state={**prepared.state, "mean": weights["mean"]})

    def control(self, cases, prepared, runtime):
        for case in cases:
            samples = self.prior(prepared, runtime).sample(self.config.restarts, runtime.rng("no-target", case.id))
            yield Reconstruction(case=case, samples=samples, scores=torch.zeros(len(samples), device=runtime.device))

    def run(self, target, cases, prepared, runtime):
        for case in cases:
            with target.ledger.owned_by([case.id]):
                found = self.search(target, case, self.prior(prepared, runtime), runtime)
            yield replace(found, latents=found.samples - prepared.state["mean"].to(runtime.device))

    def start(self, case, prior, runtime):
        return prior.sample(self.config.restarts, runtime.rng("start", case.id))

    def search(self, target, case, prior, runtime):
        samples = self.start(case, prior, runtime)
        for _ in range(self.config.steps):
            samples = samples.detach().requires_grad_(True)
            (slope,) = torch.autograd.grad(self.losses(target, samples, case).sum(), samples)
            samples = (samples - self.config.rate * slope.sign()).clamp(0, 1)
        return self.finish(case, samples.detach(), -self.losses(target, samples.detach(), case))

    def losses(self, target, samples, case):
        labels = torch.full((len(samples),), case.label, device=samples.device)
        return functional.cross_entropy(target.module(samples), labels, reduction="none")

    def finish(self, case, samples, scores):
        order = scores.sort(descending=True, stable=True).indices
        return Reconstruction(case=case, samples=samples[order], scores=scores[order])


class GoodDefenseConfig(Config):
    temperature: float = Field(2.0, gt=0, description="of the answers")
    smoothing: float = Field(0.1, ge=0, lt=1, description="of the labels")


class GoodDefense(Defense):
    """Smooth labels and answers; no paper, it is a toy."""

    Config: ClassVar = GoodDefenseConfig

    def training_loss(self, module, batch, task_loss):
        spread = -functional.log_softmax(batch.logits, dim=1).mean()
        return (1 - self.config.smoothing) * task_loss() + self.config.smoothing * spread

    def adapt_output(self, scores, inputs):
        softer = scores ** (1 / self.config.temperature)
        return softer / softer.sum(dim=1, keepdim=True)

    def observe(self, scores, inputs):
        self.seen = getattr(self, "seen", 0) + len(inputs)

    def findings(self):
        return {"seen": self.seen} if hasattr(self, "seen") else {}


class GoodEvaluatorConfig(Config):
    deviations: float = Field(2.0, gt=0, description="half width of the interval in standard errors")


class GoodEvaluator:
    """Compare samples with the private ones; no paper, it is a toy."""

    Config: ClassVar = GoodEvaluatorConfig

    def __init__(self, config):
        self.config = config

    def evaluate(self, subjects, reference, runtime):
        private = reference.dataset.split("private")
        gallery = self.flat(private.take(range(len(private))).to(runtime.device))
        labels = private.labels.to(runtime.device)
        found = []
        for subject in subjects:
            hits, distances = {}, {}
            for item in subject.reconstructions:
                every = torch.cdist(self.flat(item.samples.to(runtime.device)), gallery)
                hits[item.case.id] = float((labels[every.argmin(dim=1)] == item.case.label).float().mean())
                own = every[:, labels == item.case.label].min(dim=1).values
                distances[item.case.id] = float(own.mean())
            n = sum(len(item.samples) for item in subject.reconstructions)
            found.append(self.measure("nearest", subject.name, hits, n, "share", "up"))
            found.append(self.measure("distance", subject.name, distances, n, "L2", "down"))
        return found

    def flat(self, samples):
        return samples.flatten(1).double()

    def measure(self, name, subject, per_case, n, unit, direction):
        values = torch.tensor(sorted(per_case.values()), dtype=torch.float64)
        value, error = float(values.mean()), float(values.std() / len(values) ** 0.5)
        return Measurement(
            name=name, subject=subject, value=value, interval=self.interval(value, error), n=n,
            clusters=len(per_case), unit=unit, direction=direction, evaluator="toy@1", per_case=per_case,
        )  # fmt: skip

    def interval(self, value, error):
        width = self.config.deviations * error
        return Interval(low=value - width, high=value + width)


class CarefulEvaluator(GoodEvaluator):
    """Asks all evaluator models what they accept, and says that noise is nothing where none accepts any."""

    def evaluate(self, subjects, reference, runtime):
        assert len(reference.panel()) == 3
        return [self.without_noise(item) for item in super().evaluate(subjects, reference, runtime)]

    def without_noise(self, item):
        if item.subject != "noise":
            return item
        nothing = {"value": float("nan"), "interval": None, "n": 0, "clusters": 0, "per_case": {}}
        return replace(item, **nothing, notes=("no sample is accepted",)) if item.name == "nearest" else item


class ToyNetwork(nn.Module):
    """A convolution with a linear head, whose parts the broken models replace."""

    def __init__(self, n_classes, size):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(4 * size**2, n_classes)

    def forward(self, inputs):
        return self.head(self.features(inputs))


class GoodSourceConfig(Config):
    width: int = Field(8, ge=1, description="of the network")


def load_toy(request):
    """Open the network at the place ``here``."""
    if request.place != "here":
        raise ModelError(f"{request.uri} is not there", hint="toy:here is")
    config = make_config(GoodSourceConfig, request.options, "the toy source")
    return toy_target(request, config.width)


def toy_target(request, width=8, **changes):
    """Return an untrained network as a target."""
    dataset = request.require_dataset()
    with Runtime(device=torch.device("cpu")).seeded("toy"):
        module = build_toy(len(dataset.classes), dataset.input, width=width).eval()
    return External(**{"card": request.card("toy"), "fingerprint": f"toy-{width}", "module": module, **changes})


@click.command()
@click.option("--loud", is_flag=True, help="Say it aloud.")
def toy_command(loud):
    """Say nothing of interest."""


class GoodTracker:
    """Remember what was observed; no paper, it is a toy."""

    @hookimpl
    def mi_run_started(self, run):
        self.seen = [run.id]

    @hookimpl
    def mi_case_done(self, case, reconstruction):
        self.seen.append((case.id, float(reconstruction.scores[0])))

    @hookimpl
    def mi_run_finished(self, run):
        self.seen.append(run.manifest["status"])
