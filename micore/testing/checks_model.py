"""Checks of classifier architectures: that they are built, trained, stored and refused as they should."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from micore.answers import LearnsAtOnce
from micore.errors import ModelError
from micore.inputs import InputSpec
from micore.kit.features import features_and_logits
from micore.testing.bench import Bench
from micore.testing.checks_plugin import PLUGIN_CHECKS
from micore.testing.counting import differences, global_streams, same, scrambled
from micore.testing.devices import pretend_accelerator
from micore.testing.report import Check, CheckFailed, require, skip

CLASSIFIERS = {"classifier", "evaluator"}
N_CLASSES = 3
BATCH = 4


class ModelBench(Bench):
    """An architecture under check."""

    @cached_property
    def input(self) -> InputSpec:
        """The smallest input of the modality that the architecture takes."""
        if not CLASSIFIERS & set(self.spec.roles):
            skip(f"no classifier (roles: {', '.join(self.spec.roles)})")
        refused = []
        for spec in self.setting.inputs or (self.setting.dataset.input,):
            try:
                self._build(N_CLASSES, spec)
            except ModelError as error:
                refused.append(f"{spec.shape}: {error.message}")
            else:
                return spec
        raise CheckFailed(f"takes no input of the modality: {'; '.join(refused)}")

    def _build(self, n_classes: int, spec: InputSpec, seed: int = 0, **arguments: Any) -> nn.Module:
        with self.runtime(seed).seeded("parameters"):
            module: nn.Module = self.kind(n_classes, spec, **{**self.options, **arguments})
        return module

    def build(self, n_classes: int = N_CLASSES, seed: int = 0) -> nn.Module:
        """Return an untrained network in eval mode."""
        return self._build(n_classes, self.input, seed).eval()

    def inputs(self, n: int = BATCH) -> Tensor:
        """Return random normalised inputs."""
        rng = self.runtime().rng("inputs")
        fresh = self.setting.fresh_inputs
        return rng.normal((n, *self.input.shape)) if fresh is None else fresh(self.input, n, rng)


def logits_have_the_right_shape(bench: ModelBench) -> None:
    """Targets answer with one logit for each class, whatever their number."""
    for n_classes in (2, N_CLASSES):
        with torch.no_grad():
            logits = bench.build(n_classes)(bench.inputs())
        shape = tuple(logits.shape)
        require(shape == (BATCH, n_classes), f"logits {shape} for {BATCH} samples and {n_classes} classes")
        require(bool(torch.isfinite(logits).all()), "logits of a fresh network are not finite")


def evaluation_is_deterministic(bench: ModelBench) -> None:
    """A target must give the same answer to the same query, alone or in a batch."""
    module, inputs = bench.build(), bench.inputs()
    with torch.no_grad():
        first, again, alone = module(inputs), module(inputs), module(inputs[:1])
    require(torch.equal(first, again), "two evaluations differ")
    require(torch.allclose(first[:1], alone, rtol=1e-3, atol=1e-4), "a sample's logits depend on its batch")


def seed_decides_the_parameters(bench: ModelBench) -> None:
    """A training is repeated from its seed; other global generators must not matter."""
    with scrambled(3):
        again = bench.build()
    require(
        same(dict(bench.build().state_dict()), dict(again.state_dict())),
        "the same seed builds another network",
    )


def global_generators_are_untouched(bench: ModelBench) -> None:
    """Only torch's generator is seeded around a build; numpy's and random's must be left alone."""
    _ = bench.input
    with scrambled(1):
        before = global_streams()
        bench.build()(bench.inputs())
        changed = differences(before, global_streams())
    require(not changed, f"moved the global generator of {', '.join(changed)}")


def gradients_flow(bench: ModelBench) -> None:
    """White-box attacks follow the gradient of the input, training that of the parameters."""
    module, inputs = bench.build().train(), bench.inputs().requires_grad_(True)
    if isinstance(module, LearnsAtOnce):
        skip("learns at once, without gradients")
    with bench.runtime().seeded("training"):
        functional.cross_entropy(module(inputs), torch.arange(BATCH) % N_CLASSES).backward()
    reached = inputs.grad is not None and bool(inputs.grad.isfinite().all()) and bool(inputs.grad.any())
    require(reached, "no finite gradient reaches the input")
    dead = [name for name, weight in module.named_parameters() if weight.requires_grad and weight.grad is None]
    require(not dead, f"no gradient reaches {', '.join(dead[:4])}")


def weights_fit_a_rebuilt_model(bench: ModelBench) -> None:
    """A bundle holds weights only: everything that was learned must be in the state_dict."""
    module, other, inputs = bench.build(), bench.build(seed=1), bench.inputs()
    module.train()
    with torch.no_grad(), bench.runtime().seeded("statistics"):
        module(inputs)
    try:
        other.load_state_dict(module.state_dict())
    except RuntimeError as error:
        require(False, f"the weights do not fit: {str(error).splitlines()[0]}")
    with torch.no_grad():
        equal = torch.equal(module.eval()(inputs), other.eval()(inputs))
    require(equal, "a network rebuilt from its weights answers differently")


def has_penultimate_features(bench: ModelBench) -> None:
    """Attacks, defenses and evaluators read what goes into the last linear layer."""
    module = bench.build()
    if isinstance(module, LearnsAtOnce):
        skip("learns at once; it need not have layers")
    with torch.no_grad():
        features, logits = features_and_logits(module, bench.inputs())
    require(features.ndim == 2 and len(features) == BATCH, f"penultimate features {tuple(features.shape)}")
    require(logits.shape[1] == N_CLASSES, "the last linear layer does not give the logits")


def bad_sizes_are_refused(bench: ModelBench) -> None:
    """A message at the build beats a stack trace in the middle of a training."""
    shape = bench.input.shape
    bad = [(N_CLASSES, ()), (N_CLASSES, (*shape, 2)), (N_CLASSES, (*shape[:-1], 0)), (0, shape)]
    for n_classes, wrong in bad:
        try:
            bench._build(n_classes, replace(bench.input, shape=wrong))
        except ModelError:
            continue
        require(False, f"{n_classes} classes and input {wrong} are accepted")


def unknown_arguments_are_refused(bench: ModelBench) -> None:
    """A misspelt argument that is silently ignored makes a wrong experiment."""
    _ = bench.input
    try:
        bench._build(N_CLASSES, bench.input, no_such_argument_=1)
    except (ModelError, TypeError):
        return
    require(False, "an unknown argument is accepted")


def devices_are_not_mixed(bench: ModelBench) -> None:
    """A tensor left on the CPU never shows there and always breaks the first run on a GPU."""
    module, inputs = bench.build(), bench.inputs()
    with pretend_accelerator() as device:
        logits = module.to(device)(inputs.to(device))
        require(logits.device == device, f"the logits of a network on {device} are on {logits.device}")


MODEL_CHECKS: tuple[Check, ...] = (
    *PLUGIN_CHECKS,
    logits_have_the_right_shape,
    evaluation_is_deterministic,
    seed_decides_the_parameters,
    global_generators_are_untouched,
    gradients_flow,
    weights_fit_a_rebuilt_model,
    has_penultimate_features,
    bad_sizes_are_refused,
    unknown_arguments_are_refused,
    devices_are_not_mixed,
)
