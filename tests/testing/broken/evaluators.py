"""Evaluators that each break one rule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from good import GoodEvaluator
from toy_plugins import Collection

from micore.contracts import Interval

broken = Collection("evaluator")


class Changes(GoodEvaluator):
    """Changes each measurement."""

    def evaluate(self, subjects, reference, runtime):
        return [self.change(item) for item in super().evaluate(subjects, reference, runtime)]


@broken("figures-are-well-formed", says="evaluator 'me'")
class NamesItselfOtherwise(Changes):
    def change(self, item):
        return replace(item, evaluator="me")


@broken("figures-are-well-formed", says="clusters of")
class CountsNothing(Changes):
    def change(self, item):
        return replace(item, n=0)


@broken("figures-are-well-formed", says="direction")
class InventsDirection(Changes):
    def change(self, item):
        return replace(item, direction="sideways")


@broken("figures-are-well-formed", says="gave no measurements")
class GivesNothing(GoodEvaluator):
    def evaluate(self, subjects, reference, runtime):
        return []


@broken("values-are-finite", says="not finite")
class DividesByZero(Changes):
    def change(self, item):
        return replace(item, value=float("nan"))


@broken("values-are-finite", says="of noise")
class SaysNotWhyNoiseHasNone(Changes):
    def change(self, item):
        return replace(item, value=float("nan"), interval=None) if item.subject == "noise" else item


@broken("values-are-within-bounds", says="share")
class CallsPercentShare(Changes):
    def change(self, item):
        return replace(item, value=100 * item.value)


@broken("counts-are-true", says="n=")
class CountsRestarts(Changes):
    def change(self, item):
        return replace(item, n=1000)


@broken("counts-are-true", says="clusters, there are")
class CallsSamplesClusters(Changes):
    def change(self, item):
        return replace(item, clusters=item.n)


@broken("intervals-contain-their-value", says="not in")
class IntervalOfSomethingElse(Changes):
    def change(self, item):
        return replace(item, interval=Interval(low=item.value + 1, high=item.value + 2))


@broken("every-subject-is-measured-alike", says="different figures")
class MeasuresAttackOnly(GoodEvaluator):
    def evaluate(self, subjects, reference, runtime):
        return super().evaluate(subjects[:1], reference, runtime)


@broken("every-subject-is-measured-alike", says="the same samples")
class FavoursAttack(Changes):
    def change(self, item):
        return replace(item, value=item.value * (1 if item.subject == "attack" else 0.9))


@broken("more-leakage-scores-higher", says="noise")
class WrongDirection(Changes):
    def change(self, item):
        return replace(item, direction={"up": "down", "down": "up"}[item.direction])


@broken("something-tells-truth-from-noise", says="same")
class MeasuresNothing(Changes):
    def change(self, item):
        return replace(item, value=0.5)


@broken("order-does-not-matter", says="order")
class LooksAtFirstCase(Changes):
    def change(self, item):
        return replace(item, value=next(iter(item.per_case.values())) + 0.01 * len(next(iter(item.per_case))))

    def measure(self, name, subject, per_case, n, unit, direction):
        weights = dict(zip(per_case, range(1, 9), strict=False))
        return super().measure(
            name,
            subject,
            {k: v + 0.01 * weights[k] ** 2 * v for k, v in per_case.items()},
            n,
            unit,
            direction,
        )


@broken("same-answer-twice", says="second time")
class BootstrapsFromGlobal(GoodEvaluator):
    def interval(self, value, error):
        width = error * (2 + float(torch.rand(())))
        return Interval(low=value - width, high=value + width)


@broken("inputs-are-left-unchanged", says="changed the samples")
class NormalisesInPlace(GoodEvaluator):
    def flat(self, samples):
        return super().flat(samples.mul_(0.5))


@broken("global-generators-are-untouched", says="numpy")
class DrawsFromNumpy(GoodEvaluator):
    def flat(self, samples):
        np.random.rand()
        return super().flat(samples)


@broken("devices-are-not-mixed", says="device")
class LeavesGalleryBehind(GoodEvaluator):
    def flat(self, samples):
        return super().flat(samples) * torch.ones(1)
