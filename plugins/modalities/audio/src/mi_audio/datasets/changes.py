"""Changes of whole data sets for controls: every clip whitened, or the private labels shuffled."""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from mi_audio.adapter import RATE
from mi_audio.datasets.dataset import AudioDataset
from mi_audio.spectra import whitened
from mi_audio.splits import FULL_SCALE, AudioSplit, quantised
from micore.kit.dataset_options import DatasetOptions
from micore.runtime import Random, derive_seed

BATCH = 256


class ChangeOptions(DatasetOptions):
    """Options that all data sets of speakers have."""

    rate: int = Field(RATE, ge=4000, le=48000, description="Samples per second that models take; clips have 16,000")
    whiten: bool = Field(
        False, description="Divide each clip by its own smoothed long-term spectrum: no colour of a recording is left"
    )
    shuffle_labels: bool = Field(
        False, description="Give private clips the labels of others: a target that can know nobody, as a control"
    )


UNCHANGED = {"whiten": False, "shuffle_labels": False, "rate": RATE}
"""Options that leave the clips as they are."""


def changed(dataset: AudioDataset, options: ChangeOptions) -> AudioDataset:
    """Return a data set changed as the options say."""
    if options.whiten:
        dataset = _whitened(dataset)
    if options.shuffle_labels and dataset.private.labels is not None:
        order = Random(derive_seed("shuffled labels", dataset.fingerprint)).permutation(len(dataset.private))
        private = replace(dataset.private, labels=dataset.private.labels[order])
        # judges learn the true labels: they are to recognise nobody in what is found
        dataset = replace(dataset, private=private, judged=dataset.judged or dataset.private)
    return dataset


def _whitened(dataset: AudioDataset) -> AudioDataset:
    names = ("private", "holdout", "public", "others", "judged")
    parts = {name: getattr(dataset, name) for name in names}
    return replace(dataset, **{name: _white(part) for name, part in parts.items() if part is not None})


def _white(split: AudioSplit) -> AudioSplit:
    parts: list[Tensor] = [quantised(whitened(clips.float() / FULL_SCALE)) for clips in split.clips.split(BATCH)]
    return replace(split, clips=torch.cat(parts))
