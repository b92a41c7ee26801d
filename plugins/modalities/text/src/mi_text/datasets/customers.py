"""``customers``: a bundled training corpus for language models, with records and canaries that stand there repeatedly.

Background sentences stand there once, customer records and canaries as often as `repeats` and `canary_repeats` say.
The holdout split is a control corpus: as many texts of the same forms, each once, of other people and with other
codes.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import torch
from pydantic import Field

from mi_text.cases import CANARY
from mi_text.datasets.dataset import TextDataset
from mi_text.datasets.options import Counts, TextOptions, read_counts
from mi_text.datasets.pools import load_pools
from mi_text.datasets.templates import TOPICS, read_template
from mi_text.datasets.writing import Writer
from mi_text.splits import Facts, TextSplit
from micore.kit.dataset_options import read_options, refuse_location
from micore.runtime import derive_seed

CLASSES = ("text",)
RECORD = read_template("Customer record: {name}; phone {phone}; email {email}; SSN {ssn}.")
CANARY_DIGITS = 6
_BACKGROUND = tuple(template for templates in TOPICS.values() for template in templates)

Text = tuple[str, Facts]


class CustomersOptions(TextOptions):
    """Options of ``customers``."""

    background: int = Field(3000, ge=1, le=50_000, description="Background sentences of private and holdout texts each")
    per_level: int = Field(10, ge=0, le=1000, description="Customer records for each number of repeats")
    repeats: Counts = Field("1,2,4,8,16,32,64", description="How often customer records stand there")
    canaries: int = Field(4, ge=0, le=1000, description="Canaries for each number of their repeats")
    canary_repeats: Counts = Field("1,2,4,8,16,32", description="How often canaries stand there")
    public: int = Field(3000, ge=1, le=50_000, description="Background sentences of the adversary, of other people")


def open_customers(location: str | None, **options: Any) -> TextDataset:
    """Make the data set; equal options make equal texts.

    Raises: DataError.
    """
    refuse_location("customers", location)
    settings = read_options(CustomersOptions, "customers", options)
    taken: set[str] = set()
    return TextDataset(
        name="customers",
        classes=CLASSES,
        private=_corpus("private", settings, taken, repeated=True),
        holdout=_corpus("holdout", settings, taken, repeated=False),
        public=_public(settings, taken),
        vocabulary=settings.vocabulary,
        max_tokens=settings.max_tokens,
        options=settings.model_dump(mode="json"),
    )


def _corpus(split: str, settings: CustomersOptions, taken: set[str], *, repeated: bool) -> TextSplit:
    writer = _writer(split, settings, taken)
    texts: list[Text] = [(text, {}) for text in _background(writer, settings.background)]
    for count in read_counts(settings.repeats):
        for _ in range(settings.per_level):
            texts += [writer.write([RECORD])] * (count if repeated else 1)
    for count in read_counts(settings.canary_repeats):
        for _ in range(settings.canaries):
            texts += [_canary(writer)] * (count if repeated else 1)
    random.Random(derive_seed("customers", settings.seed, split, "order")).shuffle(texts)
    labels = torch.zeros(len(texts), dtype=torch.int64)
    return TextSplit(tuple(text for text, _ in texts), labels, tuple(facts for _, facts in texts))


def _public(settings: CustomersOptions, taken: set[str]) -> TextSplit:
    return TextSplit(tuple(_background(_writer("public", settings, taken), settings.public)))


def _writer(split: str, settings: CustomersOptions, taken: set[str]) -> Writer:
    return Writer(pools=load_pools(), rng=random.Random(derive_seed("customers", settings.seed, split)), taken=taken)


def _background(writer: Writer, n: int) -> Iterable[str]:
    """Write sentences whose facts are not noted: what is looked for are records and canaries."""
    return (writer.write(_BACKGROUND)[0] for _ in range(n))


def _canary(writer: Writer) -> Text:
    code = writer.digits(CANARY_DIGITS)
    return f"The secret vault code is {code}.", {CANARY: code}
