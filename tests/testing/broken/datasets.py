"""Data sets that each break one rule."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from toy_plugins import Collection

from micore.testing.toys import ToyDataset, ToyOptions, ToySplit, open_toy

broken = Collection("dataset")


def dataset(check, says):
    """Add a data set class as a broken one: its opener stands in the module under its name."""

    def add(kind):
        def opener(location, **options):
            """Open it."""
            return kind(settings=open_toy(location, **options).settings)

        opener.__module__, opener.__name__ = __name__, f"open_{kind.__name__}"
        globals()[opener.__name__] = opener
        broken(check, says)(opener)
        return kind

    return add


class Changed(ToyDataset):
    """Changes one split."""

    changed = "private"

    def split(self, name):
        split = super().split(name)
        return self.change(split) if name == self.changed else split

    def judging(self):
        return super().judging()


@dataset("splits-are-not-empty", says="'public' is empty")
class HasNoPublic(Changed):
    changed = "public"

    def change(self, split):
        return ToySplit(split.samples[:0])


@dataset("unknown-split-is-refused", says="gives something")
class GivesPrivateForAll(ToyDataset):
    def split(self, name):
        return super().split(name if name in self._splits else "private")


@dataset("samples-are-canonical", says="outside")
class IsNotScaled(Changed):
    def change(self, split):
        return replace(split, samples=255 * split.samples)


@dataset("labels-are-classes", says="outside its 4 classes")
class CountsFromOne(Changed):
    def change(self, split):
        return replace(split, labels=split.labels + 1)


@dataset("labels-are-classes", says="no sample of some class")
class LacksClass(Changed):
    def change(self, split):
        return replace(split, labels=split.labels.clamp(max=2))


@dataset("labels-are-classes", says="int64")
class HasFloatLabels(Changed):
    def change(self, split):
        return replace(split, labels=split.labels.float())


@dataset("judging-begins-with-the-private-classes", says="do not begin")
class SortsJudgingClasses(ToyDataset):
    def judging(self):
        split, classes = super().judging()
        return split, tuple(sorted(classes))


@dataset("judging-begins-with-the-private-classes", says="judging labels")
class ForgetsOthers(ToyDataset):
    def judging(self):
        return self.split("private"), super().judging()[1]


@dataset("fingerprint-is-stable", says="another fingerprint")
class FingerprintsObject(ToyDataset):
    @cached_property
    def fingerprint(self):
        return str(id(self))


@dataset("fingerprint-is-stable", says="other samples")
class DrawsAnew(Changed):
    def change(self, split):
        generator = torch.Generator()
        generator.seed()
        return replace(split, samples=torch.rand(split.samples.shape, generator=generator))


@dataset("fingerprint-sees-every-change", says="option size")
class FingerprintsName(ToyDataset):
    @cached_property
    def fingerprint(self):
        return self.name


@broken("unknown-option-is-refused", says="accepted")
def ignores_options(location, **options):
    """Open it."""
    return ToyDataset(settings=ToyOptions(**{k: v for k, v in options.items() if k in ToyOptions.model_fields}))


@broken("global-generators-are-untouched", says="numpy")
def shuffles(location, **options):
    """Open it."""
    np.random.rand()
    return open_toy(location, **options)
