"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import DatasetSpec, ModalitySpec, ModelSpec

JUDGES = ("mel-cnn", "x-vector", "ecapa", "sincnet")
"""Networks that judge each other's inversions when the user gives no evaluator model."""


@hookimpl
def mi_modalities() -> Iterable[ModalitySpec]:
    return [
        ModalitySpec(
            name="audio",
            target="mi_audio.modality:AudioModality",
            summary="Waveforms in [-1, 1], one channel: players and spectrograms, voices of speakers, what was said",
            default_dataset="voices",
            default_model="mel-cnn",
            default_attack="audio-mi",
        )
    ]


@hookimpl
def mi_datasets() -> Iterable[DatasetSpec]:
    return [
        _dataset("voices", "voices:open_voices", "Made voices that say digits, bundled", "MIT", bundled=True),
        _dataset("spoken-digits", "spoken_digits:open_spoken_digits", "Free Spoken Digit Dataset: 6 speakers",
                 "CC BY-SA 4.0"),
        _dataset("read-speech", "read_speech:open_read_speech", "LibriSpeech: 10 readers; 251 others as public data",
                 "CC BY 4.0"),
        _dataset("spoken-strings", "spoken_strings:open_spoken_strings",
                 "Strings of digits by made voices, with planted secrets, bundled", "MIT", bundled=True),
        _dataset("folder-audio", "folder:open_folder", "folder-audio:PATH, your clips, one directory per speaker",
                 "your own"),
    ]  # fmt: skip


def _dataset(name: str, opener: str, summary: str, licence: str, *, bundled: bool = False) -> DatasetSpec:
    target = f"mi_audio.datasets.{opener}"
    return DatasetSpec(name=name, target=target, summary=summary, modality="audio", licence=licence, bundled=bundled)


@hookimpl
def mi_models() -> Iterable[ModelSpec]:
    return [
        _model("mel-cnn", "mel_cnn", "Small convolutional network on log-mel spectrograms"),
        _model("sincnet", "sincnet", "Learned band-pass filters on the waveform, by chunks of 200 ms",
               paper="Ravanelli and Bengio, SLT 2018 (arXiv:1808.00158)"),
        _model("x-vector", "x_vector", "Small time-delay network with statistics pooling",
               paper="Snyder et al., ICASSP 2018"),
        _model("ecapa", "ecapa", "Small squeeze-excitation network with pooling by attention",
               paper="Desplanques et al., Interspeech 2020 (arXiv:2005.07143)"),
        ModelSpec(
            name="recogniser", target="mi_audio.builders:recogniser", modality="audio", roles=("recogniser",),
            summary="Convolutions and a recurrent layer with CTC: writes spoken digits",
            paper="Amodei et al., ICML 2016 (arXiv:1512.02595)",
            training={"epochs": 40, "batch_size": 32, "learning_rate": 3e-3, "augment": "none"},
        ),
        _model("speaker-encoder", "speaker_encoder", "x-vector that answers with a voiceprint", roles=("encoder",),
               paper="Snyder et al., ICASSP 2018"),
        _model("ge2e", "ge2e", "Resemblyzer's published speaker encoder, with its weights", roles=("encoder",),
               paper="Wan et al., ICASSP 2018 (arXiv:1710.10467)"),
    ]  # fmt: skip


def _model(
    name: str, builder: str, summary: str, *, roles: tuple[str, ...] = ("classifier", "evaluator"),
    paper: str | None = None,
) -> ModelSpec:  # fmt: skip
    target = f"mi_audio.builders:{builder}"
    return ModelSpec(name=name, target=target, summary=summary, paper=paper, modality="audio", roles=roles)
