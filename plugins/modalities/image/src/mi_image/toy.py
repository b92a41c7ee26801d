"""Small planted problems of images, on which the checks of attacks, defenses and evaluators run."""

from __future__ import annotations

import torch
from torch import Tensor

from mi_image.builders import small_cnn, small_resnet
from mi_image.datasets.dataset import ImageDataset
from mi_image.datasets.pools import Pool
from mi_image.instances import row_of
from mi_image.splits import ImageSplit
from micore.artifacts import PluginUse
from micore.inputs import InputSpec
from micore.runtime import Random, derive_seed
from micore.testing.keyed import N_KEYS, content_contrast, keyed, unbound
from micore.testing.setting import TOY_TRAINING, ToySetting, tensor_problem
from micore.testing.toys import anywhere, planted, template_contrast

N_CLASSES = 4
SIZE = 16
PER_CLASS = 32
LARGER_INPUTS = (32, 64, 112, 224)
"""Sizes that architectures are tried on when they refuse the toy's own."""


def image_toy() -> ToySetting:
    """Return grey images of 16 px with a bright spot at one place per class; the public ones anywhere."""
    dataset = _dataset()
    shape = dataset.input.shape
    return ToySetting(
        modality="image",
        dataset=dataset,
        model=PluginUse(name="small-cnn", config={"width": 8}),
        build=small_cnn,
        judge_model=PluginUse(name="small-resnet", config={"width": 8}),
        judge_build=small_resnet,
        training=TOY_TRAINING,
        judge=lambda case, images: template_contrast(images, case.label or 0, N_CLASSES),
        problem=lambda images: tensor_problem(images, shape, 0.0, 1.0),
        noise=lambda n, rng: rng.uniform((n, *shape)),
        inputs=(dataset.input, *(_colour(size) for size in LARGER_INPUTS)),
    )


def masked_toy() -> ToySetting:
    """Return the problem of goal ``instance``: what the centre of an image shows is bound to a spot at its border.

    `micore.testing.keyed` says how. A judge compares what stands in the centre with what belongs to the class of
    the private image that a case is about.
    """
    dataset = _keyed_dataset()
    private, shape = dataset.private, dataset.input.shape
    return ToySetting(
        modality="image",
        goals=("instance",),
        dataset=dataset,
        model=PluginUse(name="small-cnn", config={"width": 8}),
        build=small_cnn,
        judge_model=PluginUse(name="small-resnet", config={"width": 8}),
        judge_build=small_resnet,
        training=TOY_TRAINING,
        judge=lambda case, images: content_contrast(images, int(private.labels[row_of(case)])),
        problem=lambda images: tensor_problem(images, shape, 0.0, 1.0),
        noise=lambda n, rng: rng.uniform((n, *shape)),
        inputs=(dataset.input,),
    )


def _keyed_dataset() -> ImageDataset:
    names = tuple(f"key-{label}" for label in range(N_KEYS))
    private, holdout = (
        Pool(_bytes(images), labels, names)
        for images, labels in (keyed(n, SIZE, _rng(f"keyed-{name}")) for name, n in (("private", 48), ("holdout", 12)))
    )
    public = ImageSplit(_bytes(unbound(256, SIZE, _rng("unbound"))))
    return ImageDataset(name="toy-keyed-images", private=private, holdout=holdout, public=public)


def _dataset() -> ImageDataset:
    names = tuple(f"spot-{label}" for label in range(N_CLASSES))
    others = tuple(f"other-{label}" for label in range(N_CLASSES))
    return ImageDataset(
        name="toy-images",
        private=_pool("private", PER_CLASS, names),
        holdout=_pool("holdout", 8, names),
        public=Pool(
            _bytes(anywhere(128, SIZE, _rng("public"))), torch.zeros(128, dtype=torch.int64), others
        ).unlabelled(),
        others=_pool("others", PER_CLASS, others, turn=0.5),
    )


def _pool(purpose: str, per_class: int, classes: tuple[str, ...], turn: float = 0.0) -> Pool:
    images, labels = planted(len(classes), per_class, SIZE, _rng(purpose), turn)
    return Pool(_bytes(images), labels, classes)


def _bytes(images: Tensor) -> Tensor:
    return (images * 255).round().to(torch.uint8)


def _rng(purpose: str) -> Random:
    return Random(derive_seed("toy-images", purpose))


def _colour(size: int) -> InputSpec:
    return InputSpec(shape=(3, size, size), mean=(0.5,) * 3, std=(0.5,) * 3)
