"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import CommandSpec, DatasetSpec, ModalitySpec, ModelSpec

JUDGES = ("small-cnn", "small-resnet", "small-transformer")
"""Quick networks that judge each other's inversions when the user gives no evaluator model."""


@hookimpl
def mi_modalities() -> Iterable[ModalitySpec]:
    return [
        ModalitySpec(
            name="image",
            target="mi_image.modality:ImageModality",
            summary="Pictures in [0, 1], grey or colour: PNG previews, resizing, look-alike search",
            default_dataset="digits",
            default_model="small-cnn",
            default_attack="plmi",
        )
    ]


@hookimpl
def mi_datasets() -> Iterable[DatasetSpec]:
    return [
        _dataset("digits", "digits:open_digits", "1,797 handwritten digits, bundled", "CC BY 4.0", bundled=True),
        _dataset("mnist", "mnist:open_mnist", "MNIST; Omniglot or USPS as shifted public data", "CC BY-SA 3.0"),
        _dataset("faces", "faces:open_faces", "89 people of LFW; other people as public data", "research use only"),
        _dataset("folder", "folder:open_folder", "folder:PATH, your images, one directory per class", "your own"),
        _dataset("hf", "huggingface:open_huggingface", "hf:PATH_OR_NAME, read by `datasets`", "see the data set"),
    ]


def _dataset(name: str, opener: str, summary: str, licence: str, *, bundled: bool = False) -> DatasetSpec:
    target = f"mi_image.datasets.{opener}"
    return DatasetSpec(name=name, target=target, summary=summary, modality="image", licence=licence, bundled=bundled)


@hookimpl
def mi_models() -> Iterable[ModelSpec]:
    return [
        _model("small-cnn", "small_cnn", "Four plain convolutions; trains in seconds on a CPU (28 to 64 px)"),
        _model("small-resnet", "small_resnet", "Compact pre-activation residual network; judges small-cnn well"),
        _model(
            "small-transformer",
            "small_transformer",
            "Small transformer over convolutional tokens; a second judge",
            "Hassani et al., arXiv:2104.05704",
        ),
        _model("resnet18", "resnet18", "ResNet-18; 3x3 stem up to 64 px", "He et al., CVPR 2016"),
        _model("vgg16-bn", "vgg16_bn", "VGG-16 with the GMI line's head", "Simonyan & Zisserman, ICLR 2015"),
        _model("ir50", "ir50", "IR-50, the GMI line's face.evoLVe target", "Deng et al., CVPR 2019"),
        _model("ir152", "ir152", "IR-152, the GMI line's largest target", "Deng et al., CVPR 2019"),
        ModelSpec(
            name="stylegan2",
            target="mi_image.prior_bundle:stylegan2",
            summary="StyleGAN2-ADA generator: a prior, made by `mi prior`",
            paper="Karras et al., NeurIPS 2020",
            modality="image",
            roles=("prior",),
        ),
    ]


def _model(name: str, builder: str, summary: str, paper: str | None = None) -> ModelSpec:
    roles = ("classifier", "evaluator") if name in JUDGES else ("classifier",)
    target = f"mi_image.builders:{builder}"
    return ModelSpec(name=name, target=target, summary=summary, paper=paper, modality="image", roles=roles)


@hookimpl
def mi_commands() -> Iterable[CommandSpec]:
    return [
        CommandSpec(
            name="prior",
            target="mi_image.prior_command:command",
            summary="Make, convert and look at generative priors of images.",
        )
    ]
