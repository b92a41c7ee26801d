"""Entry point of the package; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from micore.hookspecs import hookimpl
from micore.specs import DatasetSpec, ModalitySpec, ModelSpec


@hookimpl
def mi_modalities() -> Iterable[ModalitySpec]:
    return [
        ModalitySpec(
            name="text",
            target="mi_text.modality:TextModality",
            summary="Texts as strings: embeddings, prompts, what language models remember, classes",
            default_dataset="records",
            default_model="minilm",
            default_attack="geia",
        )
    ]


@hookimpl
def mi_datasets() -> Iterable[DatasetSpec]:
    return [
        _dataset("records", "records:open_records", "Made sentences with personal data, bundled", "MIT", bundled=True),
        _dataset("customers", "customers:open_customers", "Made corpus with repeated records and canaries, bundled",
                 "MIT", bundled=True),
        _dataset("csv", "files:open_csv", "csv:PATH, your texts, one per row of a column", "your own"),
        _dataset("jsonl", "files:open_jsonl", "jsonl:PATH, your texts, one JSON object per line", "your own"),
        _dataset("txt", "files:open_txt", "txt:PATH, your texts, one per line", "your own"),
        _dataset("hf-text", "huggingface:open_hf_text", "hf-text:PATH_OR_NAME, read by `datasets`", "see the data set"),
    ]  # fmt: skip


def _dataset(name: str, opener: str, summary: str, licence: str, *, bundled: bool = False) -> DatasetSpec:
    target = f"mi_text.datasets.{opener}"
    return DatasetSpec(name=name, target=target, summary=summary, modality="text", licence=licence, bundled=bundled)


@hookimpl
def mi_models() -> Iterable[ModelSpec]:
    return [
        _model("text-transformer", "text_transformer", "Small bidirectional transformer", ("classifier", "evaluator")),
        _model("text-cnn", "text_cnn", "Convolutions over words", ("classifier", "evaluator"),
               "Kim, EMNLP 2014"),
        _model("small-gpt", "small_gpt", "Small causal language model, the shape of GPT-2", ("language-model",),
               "Radford et al., 2019"),
        _model("small-bert", "small_bert", "Small masked language model", ("masked-language-model",),
               "Devlin et al., NAACL 2019"),
    ]  # fmt: skip


def _model(name: str, builder: str, summary: str, roles: tuple[str, ...], paper: str | None = None) -> ModelSpec:
    return ModelSpec(
        name=name, target=f"mi_text.builders:{builder}", summary=summary, paper=paper, modality="text", roles=roles
    )
