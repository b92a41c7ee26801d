"""Attacks that each break one rule."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from good import GoodAttack, GoodAttackConfig, GoodPrior
from pydantic import BaseModel, Field
from toy_plugins import Collection

from micore.contracts import Config, Prepared
from micore.specs import AttackSpec
from micore.threat import Access

broken = Collection("attack")


# metadata and config


@broken("metadata-complete", says="paper")
class NoPaper(GoodAttack):
    """Publish nothing and say nothing of it."""


@broken("metadata-complete", says="docstring", paper="Doe 2025")
class NoDocstring(GoodAttack):
    pass


NoDocstring.__doc__ = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpicklableSpec(AttackSpec):
    callback: Any = lambda: None


@broken("spec-pickles", says="pickle", spec_class=UnpicklableSpec)
class HasUnpicklableSpec(GoodAttack):
    """Hold a lambda in the spec."""


class LooseConfig(GoodAttackConfig, extra="ignore"):
    pass


@broken("config-rejects-unknown-keys", says="unknown option")
class IgnoresTypos(GoodAttack):
    Config: ClassVar = LooseConfig


class RequiredConfig(GoodAttackConfig):
    key: str = Field(description="that nobody knows")


@broken("config-has-defaults", says="key")
class NeedsKey(GoodAttack):
    Config: ClassVar = RequiredConfig


class ForeignConfig(BaseModel):
    steps: int = Field(1, description="steps")


@broken("config-has-defaults", says="not derived")
class HasForeignConfig(GoodAttack):
    Config: ClassVar = ForeignConfig


class ForgetfulConfig(GoodAttackConfig):
    secret: int = Field(0, exclude=True, description="left out of the manifest")


@broken("config-round-trips-through-json", says="differs")
class ForgetsOption(GoodAttack):
    Config: ClassVar = ForgetfulConfig
    PRESETS: ClassVar = {"default": {}, "smoke": {"secret": 1}, "paper": {}}


class SilentConfig(GoodAttackConfig):
    mystery: int = 3


@broken("config-fields-are-described", says="mystery")
class HasMystery(GoodAttack):
    Config: ClassVar = SilentConfig


@broken("presets-build", says="no preset paper")
class NoPaperPreset(GoodAttack):
    PRESETS: ClassVar = {"default": {}, "smoke": {}}


@broken("presets-build", says="'paper'")
class ImpossiblePreset(GoodAttack):
    PRESETS: ClassVar = {"default": {}, "smoke": {}, "paper": {"steps": -1}}


@broken("prepare-fields-are-fields", says="epochs")
class UnknownPrepareField(GoodAttack):
    PREPARE_FIELDS: ClassVar = frozenset({"epochs"})


# what is given back


def changed(item, **changes):
    return replace(item, **changes)


@broken("outputs-are-valid", says="outside")
class ForgetsClamp(GoodAttack):
    def finish(self, case, samples, scores):
        return super().finish(case, 1.5 * samples + 0.2, scores)


@broken("outputs-are-valid", says="scores (1,)")
class OneScore(GoodAttack):
    def finish(self, case, samples, scores):
        item = super().finish(case, samples, scores)
        return changed(item, scores=item.scores[:1])


@broken("outputs-are-valid", says="not finite")
class GivesNan(GoodAttack):
    def finish(self, case, samples, scores):
        return super().finish(case, samples * float("nan"), scores)


@broken("outputs-are-valid", says="float64")
class GivesDouble(GoodAttack):
    def finish(self, case, samples, scores):
        return super().finish(case, samples.double(), scores)


@broken("one-reconstruction-per-case", says="class-0")
class GivesTwice(GoodAttack):
    def run(self, target, cases, prepared, runtime):
        yield from super().run(target, [*cases, *cases[:1]], prepared, runtime)


@broken("one-reconstruction-per-case", says="no reconstruction for class-3")
class DropsLastCase(GoodAttack):
    def run(self, target, cases, prepared, runtime):
        yield from super().run(target, cases[:-1], prepared, runtime)


@broken("best-sample-comes-first", says="do not fall")
class WorstFirst(GoodAttack):
    def finish(self, case, samples, scores):
        item = super().finish(case, samples, scores)
        return changed(item, samples=item.samples.flip(0), scores=item.scores.flip(0))


@broken("samples-are-detached", says="require gradients")
class KeepsGraph(GoodAttack):
    def finish(self, case, samples, scores):
        return super().finish(case, samples.requires_grad_(True).clamp(0, 1), scores)


# randomness


@broken("same-seed-same-result", says="another result")
class ReadsGlobalGenerator(GoodAttack):
    def start(self, case, prior, runtime):
        with torch.random.fork_rng(devices=[]):
            return prior.mean + 0.0 * prior.mean + torch.rand(self.config.restarts, *prior.mean.shape) * 0.1


@broken("another-seed-another-result", says="seeds 0 and 1")
class IgnoresSeed(GoodAttack):
    def prepare(self, target, public, runtime):
        return super().prepare(target, public, replace(runtime, seed=7))

    def start(self, case, prior, runtime):
        return super().start(case, prior, replace(runtime, seed=7))


@broken("global-generators-are-untouched", says="torch")
class SeedsGlobalGenerator(GoodAttack):
    def start(self, case, prior, runtime):
        torch.manual_seed(runtime.seed)
        return super().start(case, prior, runtime)


@broken("global-generators-are-untouched", says="numpy")
class DrawsFromNumpy(GoodAttack):
    def start(self, case, prior, runtime):
        np.random.rand()
        return super().start(case, prior, runtime)


@broken("global-generators-are-untouched", says="random")
class DrawsFromRandom(GoodAttack):
    def start(self, case, prior, runtime):
        random.random()
        return super().start(case, prior, runtime)


# batches


@broken("case-alone-equals-case-among-others", says="alone")
class AveragesOverBatch(GoodAttack):
    def run(self, target, cases, prepared, runtime):
        self.share = len(cases)
        yield from super().run(target, cases, prepared, runtime)

    def search(self, target, case, prior, runtime):
        return super().search(target, case, GoodPrior(prior.mean * (1 - 0.02 * self.share)), runtime)


@broken("order-of-cases-does-not-matter", says="opposite order")
class OneStreamForAll(GoodAttack):
    def run(self, target, cases, prepared, runtime):
        self.stream = runtime.rng("all")
        yield from super().run(target, cases, prepared, runtime)

    def start(self, case, prior, runtime):
        return prior.sample(self.config.restarts, self.stream)


@broken("any-batch-size-works", says="1 cases")
class SkipsBatchOfOne(GoodAttack):
    def run(self, target, cases, prepared, runtime):
        if len(cases) > 1:
            yield from super().run(target, cases, prepared, runtime)


@broken("any-batch-size-works", says="tile 2")
class DropsIncompleteTile(GoodAttack):
    def run(self, target, cases, prepared, runtime):
        whole = len(cases) - len(cases) % min(runtime.tile, 4)
        yield from super().run(target, cases[:whole], prepared, runtime)


# preparation


@broken("prepared-attack-can-be-stored", says="state holds tensors")
class PreparesObjects(GoodAttack):
    def prepare(self, target, public, runtime):
        prepared = super().prepare(target, public, runtime)
        return Prepared(state={**prepared.state, "object": GoodPrior(prepared.state["mean"])})


@broken("prepared-attack-is-left-unchanged", says="changed what was prepared")
class ChangesPreparation(GoodAttack):
    def run(self, target, cases, prepared, runtime):
        yield from super().run(target, cases, prepared, runtime)
        prepared.state["mean"].mul_(0.9)


@broken("interrupted-preparation-resumes", says="differs")
class ForgetsProgress(GoodAttack):
    def prepare(self, target, public, runtime):
        return Prepared(state={"mean": super().prepare(target, public, runtime).state["mean"] + self._late(runtime)})

    @staticmethod
    def _late(runtime):
        return 0.01 * (runtime.checkpoints.load() is not None)


class UnsteadyPrior(GoodPrior):
    def sample(self, n, rng):
        return super().sample(n, rng) * 0.5 + 0.5 * torch.rand(n, 1, 1, 1)


class WidePrior(GoodPrior):
    def sample(self, n, rng):
        return 3 * super().sample(n, rng)


@broken("prior-samples-are-valid", says="other samples")
class HasUnsteadyPrior(GoodAttack):
    def prior(self, prepared, runtime):
        return UnsteadyPrior(prepared.state["mean"])


@broken("prior-samples-are-valid", says="outside")
class HasWidePrior(GoodAttack):
    def prior(self, prepared, runtime):
        return WidePrior(prepared.state["mean"])


@broken("generator-renders-the-latents", says="no latents")
class GivesNoLatents(GoodAttack):
    def run(self, target, cases, prepared, runtime):
        for item in super().run(target, cases, prepared, runtime):
            yield replace(item, latents=None)


@broken("generator-renders-the-latents", says="the generator makes other samples")
class GivesOtherLatents(GoodAttack):
    def run(self, target, cases, prepared, runtime):
        for item in super().run(target, cases, prepared, runtime):
            yield replace(item, latents=item.latents + 0.1)


@broken("generator-renders-the-latents", says="with its own weights")
class LosesTheGeneratorsWeights(GoodAttack):
    def with_generator(self, prepared, weights):
        return Prepared(state={**prepared.state, "mean": torch.zeros_like(weights["mean"])})


@broken("control-recovers-nothing", says="the control recovers")
class GuidesItsControl(GoodAttack):
    """Keep the target of the preparation to guide what should be unguided."""

    kept: ClassVar[list] = []

    def prepare(self, target, public, runtime):
        self.kept[:] = [target]
        return super().prepare(target, public, runtime)

    def control(self, cases, prepared, runtime):
        prior = self.prior(prepared, runtime)
        yield from (self.search(self.kept[0], case, prior, runtime) for case in cases)


@broken("control-recovers-nothing", says="gives samples")
class StintsItsControl(GoodAttack):
    def control(self, cases, prepared, runtime):
        for item in super().control(cases, prepared, runtime):
            yield replace(item, samples=item.samples[:1], scores=item.scores[:1])


@broken("control-recovers-nothing", says="alone")
class MixesItsControls(GoodAttack):
    def control(self, cases, prepared, runtime):
        for item in super().control(cases, prepared, runtime):
            yield replace(item, samples=item.samples / len(cases))


# threat model


@broken("declared-access-is-enough", says="asks for more", access=Access.SCORES)
class WantsMore(GoodAttack):
    pass


@broken("declared-access-is-needed", says="works with less")
class WantsLess(GoodAttack):
    def search(self, target, case, prior, runtime):
        samples = self.start(case, prior, runtime)
        return self.finish(case, samples, target.scores(samples)[:, case.label])


@broken("declared-needs-are-enough", says="NoneType", needs=())
class HidesNeed(GoodAttack):
    pass


@broken("ledger-is-complete", says="queries")
class AsksInnerModule(GoodAttack):
    def finish(self, case, samples, scores):
        return super().finish(case, samples, scores)

    def losses(self, target, samples, case):
        target.module.inner((samples - 0.5) / 0.5)
        return super().losses(target, samples, case)


@broken("ledger-is-complete", says="hides queries")
class CallsQueriesPadding(GoodAttack):
    def search(self, target, case, prior, runtime):
        samples = prior.sample(50, runtime.rng("many", case.id))
        with target.ledger.owned_by([case.id], padding=49):
            target.scores(samples)
        return super().search(target, case, prior, runtime)


@broken("budget-is-never-overspent", says="ended without BudgetExceeded")
class SwallowsBudget(GoodAttack):
    def run(self, target, cases, prepared, runtime):
        try:
            yield from super().run(target, cases, prepared, runtime)
        except Exception:
            return


@broken("budget-is-never-overspent", says="spent")
class LiftsBudget(GoodAttack):
    def prepare(self, target, public, runtime):
        target.ledger.budget = replace(target.ledger.budget, queries=None)
        return super().prepare(target, public, runtime)


class Meddles(GoodAttack):
    def run(self, target, cases, prepared, runtime):
        yield from super().run(target, cases, prepared, runtime)
        self.meddle(target.module.inner)


@broken("target-is-left-unchanged", says="train mode")
class LeavesTrainMode(Meddles):
    def meddle(self, module):
        module.train()


@broken("target-is-left-unchanged", says="requires_grad")
class LeavesGradientsOn(Meddles):
    def meddle(self, module):
        module.requires_grad_(True)


@broken("target-is-left-unchanged", says="hooks")
class LeavesHook(Meddles):
    def meddle(self, module):
        module[0].register_forward_hook(lambda *_: None)


@broken("target-is-left-unchanged", says="value of 0.weight")
class TrainsTarget(Meddles):
    def meddle(self, module):
        with torch.no_grad():
            module[0].weight.mul_(0.99)


@broken("target-is-left-unchanged", says="grad of")
class LeavesGradients(Meddles):
    def meddle(self, module):
        module[0].weight.grad = torch.zeros_like(module[0].weight)


@broken("devices-are-not-mixed", says="device")
class LeavesPriorBehind(GoodAttack):
    def prior(self, prepared, runtime):
        return GoodPrior(prepared.state["mean"])


# does it attack at all


@broken("beats-the-baseline", says="does not beat")
class GivesPriorSamples(GoodAttack):
    def search(self, target, case, prior, runtime):
        target.module(prior.mean[None])
        samples = self.start(case, prior, runtime)
        return self.finish(case, samples, torch.zeros(len(samples)))


@broken("beats-the-baseline", says="does not beat")
class FleesTheClass(GoodAttack):
    def losses(self, target, samples, case):
        return -super().losses(target, samples, case)


@broken("beats-the-baseline", says="control recovers", control=True)
class IsNoControl(GoodAttack):
    pass


class SlowConfig(Config):
    pass


@broken("smoke-is-quick", says="more than")
class Slow(GoodAttack):
    def prepare(self, target, public, runtime):
        self.burn(0.4)
        return super().prepare(target, public, runtime)

    @staticmethod
    def burn(seconds):
        until = time.process_time() + seconds
        while time.process_time() < until:
            pass
