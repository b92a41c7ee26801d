"""What the model specs name: build an untrained classifier for the images that an `InputSpec` describes."""

from __future__ import annotations

from typing import Any

from mi_image.classifiers import ImageClassifier, ResNet18, SmallCnn, SmallResNet, Vgg16Bn
from mi_image.face_networks import Ir50, Ir152
from mi_image.transformer import SmallTransformer
from micore.errors import ModelError
from micore.inputs import InputSpec


def small_cnn(n_classes: int, input_spec: InputSpec, **arguments: Any) -> ImageClassifier:
    """Build `SmallCnn`. Raises: ModelError, as do all builders here, when input or arguments do not fit."""
    return _build(SmallCnn, n_classes, input_spec, arguments)


def small_resnet(n_classes: int, input_spec: InputSpec, **arguments: Any) -> ImageClassifier:
    """Build `SmallResNet`."""
    return _build(SmallResNet, n_classes, input_spec, arguments)


def small_transformer(n_classes: int, input_spec: InputSpec, **arguments: Any) -> ImageClassifier:
    """Build `SmallTransformer`."""
    return _build(SmallTransformer, n_classes, input_spec, arguments)


def resnet18(n_classes: int, input_spec: InputSpec, **arguments: Any) -> ImageClassifier:
    """Build `ResNet18`."""
    return _build(ResNet18, n_classes, input_spec, arguments)


def vgg16_bn(n_classes: int, input_spec: InputSpec, **arguments: Any) -> ImageClassifier:
    """Build `Vgg16Bn`."""
    return _build(Vgg16Bn, n_classes, input_spec, arguments)


def ir50(n_classes: int, input_spec: InputSpec, **arguments: Any) -> ImageClassifier:
    """Build `Ir50`."""
    return _build(Ir50, n_classes, input_spec, arguments)


def ir152(n_classes: int, input_spec: InputSpec, **arguments: Any) -> ImageClassifier:
    """Build `Ir152`."""
    return _build(Ir152, n_classes, input_spec, arguments)


def _build(
    network: type[ImageClassifier], n_classes: int, input_spec: InputSpec, arguments: dict[str, Any]
) -> ImageClassifier:
    channels, size = _channels_and_size(input_spec)
    try:
        return network(n_classes, channels, size, **arguments)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{network.__name__} cannot be built: {error}", hint="see `mi show` for this model") from error


def _channels_and_size(input_spec: InputSpec) -> tuple[int, int]:
    shape = input_spec.shape
    if len(shape) != 3 or shape[1] != shape[2]:
        raise ModelError(f"these networks take square images (channels, size, size), not inputs of shape {shape}")
    return shape[0], shape[1]
