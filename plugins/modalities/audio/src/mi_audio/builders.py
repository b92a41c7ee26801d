"""What the model specs name: build an untrained network for the waveforms that an `InputSpec` describes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from mi_audio.adapter import RATE, rate_of
from mi_audio.ge2e import Ge2e, pretrained
from mi_audio.networks import Ecapa, MelCnn, SpeakerEncoder, SpeechNetwork, XVector
from mi_audio.recogniser import Recogniser
from mi_audio.sincnet import SincNet
from mi_audio.transcripts import LABELS, TRANSCRIPTS
from micore.errors import ModelError
from micore.inputs import InputSpec

Network = TypeVar("Network", SpeechNetwork, Recogniser)

TRANSCRIBED = "take data with transcripts, such as spoken-strings"


def mel_cnn(n_classes: int, input_spec: InputSpec, **arguments: Any) -> SpeechNetwork:
    """Build `MelCnn`. Raises: ModelError, as do all builders here, when input or arguments do not fit."""
    return _build(MelCnn, n_classes, input_spec, arguments)


def sincnet(n_classes: int, input_spec: InputSpec, **arguments: Any) -> SpeechNetwork:
    """Build `SincNet`."""
    return _build(SincNet, n_classes, input_spec, arguments)


def x_vector(n_classes: int, input_spec: InputSpec, **arguments: Any) -> SpeechNetwork:
    """Build `XVector`."""
    return _build(XVector, n_classes, input_spec, arguments)


def ecapa(n_classes: int, input_spec: InputSpec, **arguments: Any) -> SpeechNetwork:
    """Build `Ecapa`."""
    return _build(Ecapa, n_classes, input_spec, arguments)


def speaker_encoder(n_classes: int, input_spec: InputSpec, **arguments: Any) -> SpeakerEncoder:
    """Build a `SpeakerEncoder` of an `XVector`."""
    return SpeakerEncoder(_build(XVector, n_classes, input_spec, arguments))


def ge2e(n_classes: int, input_spec: InputSpec) -> Ge2e:
    """Build `Ge2e` with its published weights; it has no classes and takes waveforms at its own rate."""
    if len(input_spec.shape) != 1:
        raise ModelError(f"ge2e takes waveforms (length,), not inputs of shape {input_spec.shape}")
    return pretrained(-(-input_spec.shape[0] * RATE // rate_of(input_spec)))


def recogniser(n_classes: int, input_spec: InputSpec, **arguments: Any) -> Recogniser:
    """Build a `Recogniser`, whose letters are the classes. Raises: ModelError also for data without transcripts."""
    if input_spec.options.get(LABELS) != TRANSCRIPTS:
        raise ModelError("recogniser learns transcripts, and these data are labelled with classes", hint=TRANSCRIBED)
    return _checked(Recogniser, n_classes, input_spec, arguments)


def _build(
    network: type[SpeechNetwork], n_classes: int, input_spec: InputSpec, arguments: dict[str, Any]
) -> SpeechNetwork:
    if input_spec.options.get(LABELS) == TRANSCRIPTS:
        raise ModelError(f"{network.__name__} learns classes, and these data have transcripts", hint="-m recogniser")
    return _checked(network, n_classes, input_spec, arguments)


def _checked(
    network: Callable[..., Network], n_classes: int, input_spec: InputSpec, arguments: dict[str, Any]
) -> Network:
    name = getattr(network, "__name__", "network")
    if len(input_spec.shape) != 1:
        raise ModelError(f"these networks take waveforms (length,), not inputs of shape {input_spec.shape}")
    try:
        built = network(n_classes, rate_of(input_spec), **arguments)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{name} cannot be built: {error}", hint="see `mi show` for this model") from error
    if input_spec.shape[0] < built.min_length:
        raise ModelError(f"{name} takes clips of at least {built.min_length} samples, not {input_spec.shape[0]}")
    return built
