"""``records``: bundled sentences about made-up people, in lower case, for models that read or embed texts.

Full names, telephone and social security numbers and addresses of a split stand in no other: an inverter that is
trained on public texts cannot know them by heart. The topics of the sentences are the classes.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field

from mi_text.datasets.dataset import TextDataset
from mi_text.datasets.options import TextOptions
from mi_text.datasets.plain import plain_words, write_plain
from mi_text.datasets.pools import Pools, load_pools, words_of
from mi_text.datasets.templates import HELD_BACK, TOPICS, Template
from mi_text.datasets.writing import Writer, fixed_words
from mi_text.splits import TextSplit
from micore.kit.dataset_options import read_options, refuse_location
from micore.runtime import derive_seed

NEW_NAMES = 99
"""Last names of private and holdout texts only, with ``names=new``: a tenth of the pool."""


class RecordsOptions(TextOptions):
    """Options of ``records``."""

    private: int = Field(500, ge=len(TOPICS), le=20_000, description="Private texts")
    holdout: int = Field(300, ge=len(TOPICS), le=20_000, description="Held-out texts, of other people")
    public: int = Field(20_000, ge=1, le=100_000, description="Texts of the adversary, of other people again")
    names: Literal["seen", "new"] = Field("seen", description="new: no private last name stands in a public text")
    templates: Literal["seen", "new"] = Field(
        "seen", description="new: private texts have forms that no public one has"
    )
    domain: Literal["in", "out"] = Field(
        "in", description="out: public texts are of weather, sport and cooking, of nobody"
    )
    max_tokens: int = Field(40, ge=4, le=4096, description="Tokens of a text that a model reads; the rest is cut off")


def open_records(location: str | None, **options: Any) -> TextDataset:
    """Make the data set; equal options make equal texts.

    Raises: DataError.
    """
    refuse_location("records", location)
    settings = read_options(RecordsOptions, "records", options)
    own, others = _pools(settings)
    taken: set[str] = set()
    private = _labelled("private", settings.private, own, settings, taken)
    holdout = _labelled("holdout", settings.holdout, own, settings, taken)
    return TextDataset(
        name="records",
        classes=tuple(TOPICS),
        private=private,
        holdout=holdout,
        public=_public(others, settings, taken),
        vocabulary=settings.vocabulary,
        max_tokens=settings.max_tokens,
        options=settings.model_dump(mode="json"),
    )


def _pools(settings: RecordsOptions) -> tuple[Pools, Pools]:
    """Return the values of private and holdout texts, and of public ones."""
    pools = load_pools()
    if settings.names == "seen":
        return pools, pools
    common = fixed_words(_every_template()) | plain_words() | words_of(" ".join(pools.jobs))
    rare = pools.without(common).last  # "may" and "price" stand in texts that are about nobody of this name
    new = random.Random(derive_seed("records", settings.seed, "names")).sample(rare, NEW_NAMES)
    return pools.named(new), pools.without({name.lower() for name in new})


def _every_template() -> list[Template]:
    return [template for templates in TOPICS.values() for template in templates]


def _forms(split: str, settings: RecordsOptions) -> list[Sequence[Template]]:
    """Return the templates of a split, by topic."""
    if settings.templates == "seen":
        return list(TOPICS.values())
    return [forms[:-HELD_BACK] if split == "public" else forms[-HELD_BACK:] for forms in TOPICS.values()]


def _labelled(split: str, n: int, pools: Pools, settings: RecordsOptions, taken: set[str]) -> TextSplit:
    """Write a split in which the topics take turns."""
    rng = random.Random(derive_seed("records", settings.seed, split))
    writer = Writer(pools=pools, rng=rng, taken=taken, lower=True)
    forms = _forms(split, settings)
    labels = [row % len(forms) for row in range(n)]
    written = [writer.write(forms[label]) for label in labels]
    return TextSplit(tuple(text for text, _ in written), torch.tensor(labels), tuple(facts for _, facts in written))


def _public(pools: Pools, settings: RecordsOptions, taken: set[str]) -> TextSplit:
    if settings.domain == "in":
        split = _labelled("public", settings.public, pools, settings, taken)
        return TextSplit(split.texts, None, split.facts)
    rng = random.Random(derive_seed("records", settings.seed, "plain"))
    return TextSplit(tuple(write_plain(rng, taken) for _ in range(settings.public)))
