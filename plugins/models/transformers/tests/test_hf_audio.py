"""Audio checkpoints as targets: tiny ones, made here, that say the same as transformers with its feature extractors."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    HubertConfig,
    HubertForSequenceClassification,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2ForSequenceClassification,
)
from transformers.audio_utils import mel_filter_bank

from mi_model_transformers.audio import kaldi_filters
from mi_model_transformers.loading import load
from micore.errors import ConfigError, ModelError
from micore.external import External, SourceRequest
from micore.inputs import InputSpec
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Access, Ledger

CPU = Runtime(device=torch.device("cpu"))
NAMES = {"id2label": {0: "Bea", 1: "ann", 2: "Cleo"}, "label2id": {"Bea": 0, "ann": 1, "Cleo": 2}}
CONV = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "conv_dim": (8, 8),
    "conv_kernel": (10, 4), "conv_stride": (5, 4), "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 12, "initializer_range": 0.3,
}  # fmt: skip
AST = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "patch_size": 8,
    "frequency_stride": 8, "time_stride": 8, "num_mel_bins": 16, "max_length": 40, "initializer_range": 0.3,
}  # fmt: skip
KINDS = ("wav2vec2", "hubert", "ast")


@dataclass
class Data:
    """As much of a data set as a source looks at."""

    classes: tuple[str, ...] = ("ann", "bea", "cleo")
    modality: str = "audio"
    name: str = "mine"
    input: InputSpec = field(default_factory=lambda: InputSpec(shape=(4000,), options={"sampling_rate": 8000}))


def saved(folder: Path, network: Any, extractor: Any) -> tuple[Path, Any, Any]:
    network.eval().save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder, network, extractor


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any, Any]]:
    root = tmp_path_factory.mktemp("audio")
    spectra = ASTFeatureExtractor(num_mel_bins=16, max_length=40, mean=-3.0, std=2.0)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return {
            "wav2vec2": saved(
                root / "w", Wav2Vec2ForSequenceClassification(Wav2Vec2Config(**CONV, **NAMES)),
                Wav2Vec2FeatureExtractor(do_normalize=True),
            ),
            "hubert": saved(
                root / "h", HubertForSequenceClassification(HubertConfig(**CONV, **NAMES)),
                Wav2Vec2FeatureExtractor(do_normalize=False, sampling_rate=8000),
            ),
            "ast": saved(root / "a", ASTForAudioClassification(ASTConfig(**AST, **NAMES)), spectra),
            "ctc": saved(root / "c", Wav2Vec2ForCTC(Wav2Vec2Config(**CONV)), Wav2Vec2FeatureExtractor()),
        }  # fmt: skip


def opened(place: Path, dataset: Any = None, **options: Any) -> External:
    return load(SourceRequest(uri=f"hf:{place}", runtime=CPU, options=options, dataset=dataset))


def sounds(n: int, length: int) -> Tensor:
    return 0.2 * torch.randn(n, length, generator=torch.Generator().manual_seed(1)).cumsum(1).sin()


@pytest.mark.parametrize("kind", KINDS)
def test_a_target_gives_what_transformers_gives(checkpoints: Any, kind: str) -> None:
    folder, network, extractor = checkpoints[kind]
    external = opened(folder, Data())
    card = external.card
    assert (card.role, card.modality, card.classes) == ("classifier", "audio", Data().classes)
    assert card.input == InputSpec(
        shape=(4000 * extractor.sampling_rate // 8000,), options={"sampling_rate": extractor.sampling_rate}
    )
    waveforms = sounds(3, card.input.shape[0])
    given = extractor(list(waveforms.numpy()), sampling_rate=extractor.sampling_rate, return_tensors="pt")
    with torch.no_grad():
        expected = network(input_values=given["input_values"]).logits[:, [1, 0, 2]].softmax(dim=1)
    target = Target(
        external.module, access=Access.WHITE_BOX, adapter=lambda samples: samples, input_spec=card.input,
        classes=card.classes, ledger=Ledger(), runtime=CPU, role=card.role,
    )  # fmt: skip
    torch.testing.assert_close(target.scores(waveforms), expected, atol=2e-4, rtol=1e-3)
    assert expected.std(dim=0).max() > 1e-4  # the clips differ, and so do the answers


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_the_waveform_and_company_changes_nothing(checkpoints: Any, kind: str) -> None:
    external = opened(checkpoints[kind][0], Data())
    assert external.module is not None
    waveforms = sounds(2, external.card.input.shape[0]).requires_grad_()
    logits = external.module(waveforms)
    (gradient,) = torch.autograd.grad(logits[0].sum(), waveforms)
    assert gradient[0].abs().sum() > 0
    assert torch.equal(gradient[1], torch.zeros_like(gradient[1]))
    torch.testing.assert_close(external.module(waveforms[1:]), logits[1:], atol=1e-5, rtol=1e-4)
    silent = torch.zeros(1, waveforms.shape[1], requires_grad=True)
    (gradient,) = torch.autograd.grad(external.module(silent).sum(), silent)
    assert gradient.isfinite().all()


def test_kaldis_filters_are_those_of_transformers() -> None:
    expected = mel_filter_bank(
        num_frequency_bins=257, num_mel_filters=64, min_frequency=20, max_frequency=8000, sampling_rate=16000,
        norm=None, mel_scale="kaldi", triangularize_in_mel_space=True,
    )  # fmt: skip
    np.testing.assert_allclose(kaldi_filters(16000, 64, 512)[:-1].numpy(), expected[:-1], atol=1e-5)


@pytest.mark.parametrize(("seconds", "frames"), [(0.2, 18), (0.8, 40)])
def test_spectrograms_are_filled_up_or_cut(checkpoints: Any, seconds: float, frames: int) -> None:
    external = opened(checkpoints["ast"][0], seconds=seconds)
    assert external.module is not None
    waveforms = sounds(1, external.card.input.shape[0])
    found = external.module.front(waveforms)[0]
    expected = checkpoints["ast"][2](waveforms[0].numpy(), sampling_rate=16000, return_tensors="pt")["input_values"][0]
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-3)
    assert torch.equal(found[frames:], torch.full((40 - frames, 16), 0.75))  # (0 - mean) / (2 std)


def test_length_and_classes_come_from_the_data_or_the_options(checkpoints: Any) -> None:
    folder = checkpoints["wav2vec2"][0]
    assert opened(folder).card.input.shape == (16000,)
    assert opened(folder).card.classes == ("Bea", "ann", "Cleo")
    assert opened(folder, Data(), seconds=0.5).card.input.shape == (8000,)
    assert opened(folder, Data(classes=("x", "y", "z")), labels="number").card.classes == ("x", "y", "z")
    with pytest.raises(ModelError, match="the checkpoint's classes are"):
        opened(folder, Data(classes=("x", "y", "z")))


def test_settings_inside_a_processors_file_are_found_and_count_in_the_fingerprint(
    checkpoints: Any, tmp_path: Path
) -> None:
    folder = shutil.copytree(checkpoints["wav2vec2"][0], tmp_path / "nested")
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"feature_extractor": settings}))
    first = opened(folder, Data())
    assert first.card.input.options == {"sampling_rate": 16000}
    (folder / "processor_config.json").write_text(
        json.dumps({"feature_extractor": {**settings, "do_normalize": False}})
    )
    assert opened(folder, Data()).fingerprint != first.fingerprint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no preprocessor_config.json"),
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ({"feature_extractor_type": "Wav2Vec2FeatureExtractor"}, "names no sampling_rate in Hz, but None"),
        ({"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": "fast"}, "but 'fast'"),
        ({"feature_extractor_type": "WhisperFeatureExtractor", "sampling_rate": 16000}, "is not supported"),
        ({"sampling_rate": 16000}, "of no named type"),
        ({"feature_extractor_type": "ASTFeatureExtractor", "sampling_rate": 16000}, "is not whole"),
    ],
)
def test_a_feature_extractor_that_is_not_known_is_one_clear_line(
    checkpoints: Any, tmp_path: Path, content: Any, message: str
) -> None:
    folder = shutil.copytree(checkpoints["wav2vec2"][0], tmp_path / "broken")
    path = folder / "preprocessor_config.json"
    path.unlink()
    if content is not None:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(ModelError, match=message) as found:
        opened(folder, Data())
    assert "\n" not in str(found.value)


def test_what_does_not_fit_is_refused(checkpoints: Any) -> None:
    folder = checkpoints["wav2vec2"][0]
    with pytest.raises(ModelError, match="takes waveforms; the data are of modality text"):
        opened(folder, Data(modality="text"))
    with pytest.raises(ModelError, match="does not take waveforms of 16 samples"):
        opened(folder, seconds=0.001)
    with pytest.raises(ModelError, match="has no weights for"):
        opened(checkpoints["ctc"][0], Data(classes=("a", "b")))
    with pytest.raises(ModelError, match="does not say how long its clips are"):
        opened(folder, Data(input=InputSpec(shape=(4000,))))
    for options in ({"max_tokens": 5}, {"pooling": "cls"}, {"role": "encoder"}):
        with pytest.raises(ConfigError, match="does not fit"):
            opened(folder, Data(), **options)
