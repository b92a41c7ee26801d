"""Which package offers which plugin, so that an unknown name can be answered with how to install it.

The table is generated: ``python -m micore.known_plugins plugins`` reads the packages of this
repository and rewrites it; a test fails when it is out of date.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from micore.registry import Entry

# generated: begin
KNOWN: Mapping[tuple[str, str], str] = {
    ("attack", "alignmi"): "mi-attack-alignmi",
    ("attack", "asr-extraction"): "mi-attack-asr-extraction",
    ("attack", "asr-extraction-label"): "mi-attack-asr-extraction",
    ("attack", "audio-gan-mi"): "mi-attack-audio-gan-mi",
    ("attack", "audio-mi"): "mi-attack-audio-mi",
    ("attack", "averaging"): "mi-attack-averaging",
    ("attack", "averaging-label"): "mi-attack-averaging",
    ("attack", "brep-mi"): "mi-attack-brep-mi",
    ("attack", "c2f-mi"): "mi-attack-c2f-mi",
    ("attack", "canary-exposure"): "mi-attack-canary-exposure",
    ("attack", "csmia"): "mi-attack-confidence-inversion",
    ("attack", "deep-inversion"): "mi-attack-deep-inversion",
    ("attack", "diff-mi"): "mi-attack-diff-mi",
    ("attack", "embedding-to-graph"): "mi-attack-embedding-to-graph",
    ("attack", "embedding-to-voice"): "mi-attack-embedding-to-voice",
    ("attack", "embedding-to-voice-gradient"): "mi-attack-embedding-to-voice",
    ("attack", "embedding-transfer"): "mi-attack-embedding-transfer",
    ("attack", "geia"): "mi-attack-geia",
    ("attack", "gmi"): "mi-attack-gmi",
    ("attack", "gmi-masked"): "mi-attack-gmi",
    ("attack", "graphmi"): "mi-attack-graphmi",
    ("attack", "graphmi-bb"): "mi-attack-graphmi",
    ("attack", "graphmi-label"): "mi-attack-graphmi",
    ("attack", "gsef"): "mi-attack-gsef",
    ("attack", "hete-gmi"): "mi-attack-hete-gmi",
    ("attack", "if-gmi"): "mi-attack-if-gmi",
    ("attack", "inverse-net"): "mi-attack-inverse-net",
    ("attack", "kedmi"): "mi-attack-kedmi",
    ("attack", "link-similarity"): "mi-attack-link-similarity",
    ("attack", "linkteller"): "mi-attack-linkteller",
    ("attack", "lm-extraction"): "mi-attack-lm-extraction",
    ("attack", "lokt"): "mi-attack-lokt",
    ("attack", "lomia"): "mi-attack-confidence-inversion",
    ("attack", "lomma"): "mi-attack-lomma",
    ("attack", "map-inversion"): "mi-attack-map-inversion",
    ("attack", "map-inversion-wb"): "mi-attack-map-inversion",
    ("attack", "mc-gra"): "mi-attack-mc-gra",
    ("attack", "mi-face"): "mi-attack-mi-face",
    ("attack", "mirror"): "mi-attack-mirror",
    ("attack", "mirror-bb"): "mi-attack-mirror",
    ("attack", "mlm-inversion"): "mi-attack-mlm-inversion",
    ("attack", "p2i-mi"): "mi-attack-p2i-mi",
    ("attack", "pii-extraction"): "mi-attack-pii-extraction",
    ("attack", "plmi"): "mi-attack-plmi",
    ("attack", "ppa"): "mi-attack-ppa",
    ("attack", "ppdg-mi"): "mi-attack-ppdg-mi",
    ("attack", "prior-samples"): "mi-attack-prior-samples",
    ("attack", "prompt-inversion"): "mi-attack-prompt-inversion",
    ("attack", "rlb-mi"): "mi-attack-rlb-mi",
    ("attack", "secretgen"): "mi-attack-secretgen",
    ("attack", "secretgen-bb"): "mi-attack-secretgen",
    ("attack", "sliding-mi"): "mi-attack-sliding-mi",
    ("attack", "smile"): "mi-attack-smile",
    ("attack", "surrogate"): "mi-attack-surrogate",
    ("attack", "text-revealer"): "mi-attack-text-revealer",
    ("attack", "trap-aware"): "mi-attack-trap-aware",
    ("attack", "vec2text"): "mi-attack-vec2text",
    ("attack", "vmi"): "mi-attack-vmi",
    ("attack", "word-set"): "mi-attack-word-set",
    ("command", "prior"): "mi-image",
    ("command", "serve"): "mi-model-serve",
    ("dataset", "adult"): "mi-tabular",
    ("dataset", "blocks"): "mi-graph",
    ("dataset", "csv"): "mi-text",
    ("dataset", "csv-table"): "mi-tabular",
    ("dataset", "customers"): "mi-text",
    ("dataset", "digits"): "mi-image",
    ("dataset", "edgelist"): "mi-graph",
    ("dataset", "faces"): "mi-image",
    ("dataset", "folder"): "mi-image",
    ("dataset", "folder-audio"): "mi-audio",
    ("dataset", "happy"): "mi-tabular",
    ("dataset", "hf"): "mi-image",
    ("dataset", "hf-text"): "mi-text",
    ("dataset", "jsonl"): "mi-text",
    ("dataset", "karate"): "mi-graph",
    ("dataset", "les-mis"): "mi-graph",
    ("dataset", "made-people"): "mi-tabular",
    ("dataset", "mnist"): "mi-image",
    ("dataset", "motifs"): "mi-graph",
    ("dataset", "npz"): "mi-graph",
    ("dataset", "planetoid"): "mi-graph",
    ("dataset", "pyg"): "mi-graph",
    ("dataset", "read-speech"): "mi-audio",
    ("dataset", "records"): "mi-text",
    ("dataset", "spoken-digits"): "mi-audio",
    ("dataset", "spoken-strings"): "mi-audio",
    ("dataset", "steak"): "mi-tabular",
    ("dataset", "tu"): "mi-graph",
    ("dataset", "txt"): "mi-text",
    ("dataset", "voices"): "mi-audio",
    ("dataset", "warfarin"): "mi-tabular",
    ("defense", "adversarial-output"): "mi-defense-adversarial-output",
    ("defense", "adversarial-training"): "mi-defense-adversarial-training",
    ("defense", "bido"): "mi-defense-bido",
    ("defense", "calor"): "mi-defense-calor",
    ("defense", "dedup"): "mi-defense-dedup",
    ("defense", "degree-preserving"): "mi-defense-edge-perturbation",
    ("defense", "distill"): "mi-defense-distill",
    ("defense", "dp-sgd"): "mi-defense-dp-sgd",
    ("defense", "edge-rand"): "mi-defense-edge-perturbation",
    ("defense", "embedding-noise"): "mi-defense-embedding-noise",
    ("defense", "embedding-quantise"): "mi-defense-embedding-quantise",
    ("defense", "gap"): "mi-defense-gap",
    ("defense", "label-only"): "mi-defense-score-masking",
    ("defense", "lap-graph"): "mi-defense-edge-perturbation",
    ("defense", "mc-gpb"): "mi-defense-mc-gpb",
    ("defense", "mcadams"): "mi-defense-speaker-anonymise",
    ("defense", "mid"): "mi-defense-mid",
    ("defense", "midre"): "mi-defense-midre",
    ("defense", "neg-label-smoothing"): "mi-defense-neg-label-smoothing",
    ("defense", "nopeek"): "mi-defense-nopeek",
    ("defense", "order-noise"): "mi-defense-score-masking",
    ("defense", "output-noise"): "mi-defense-score-masking",
    ("defense", "output-truncation"): "mi-defense-output-truncation",
    ("defense", "pii-scrub"): "mi-defense-pii-scrub",
    ("defense", "purifier"): "mi-defense-purifier",
    ("defense", "query-monitor"): "mi-defense-query-monitor",
    ("defense", "reverse-sigmoid"): "mi-defense-score-masking",
    ("defense", "rolss"): "mi-defense-rolss",
    ("defense", "round-scores"): "mi-defense-score-masking",
    ("defense", "speaker-anonymise"): "mi-defense-speaker-anonymise",
    ("defense", "ssd"): "mi-defense-ssd",
    ("defense", "temperature"): "mi-defense-score-masking",
    ("defense", "top-k"): "mi-defense-score-masking",
    ("defense", "transfer-freeze"): "mi-defense-transfer-freeze",
    ("defense", "trap-mid"): "mi-defense-trap-mid",
    ("evaluator", "accuracy"): "mi-evaluator-accuracy",
    ("evaluator", "attribute"): "mi-evaluator-attribute",
    ("evaluator", "consensus"): "mi-evaluator-consensus",
    ("evaluator", "distance"): "mi-evaluator-distance",
    ("evaluator", "distribution"): "mi-evaluator-distribution",
    ("evaluator", "edges"): "mi-evaluator-edges",
    ("evaluator", "exposure"): "mi-evaluator-exposure",
    ("evaluator", "extraction"): "mi-evaluator-extraction",
    ("evaluator", "face-descriptor"): "mi-evaluator-face-descriptor",
    ("evaluator", "knowledge"): "mi-evaluator-knowledge",
    ("evaluator", "paired"): "mi-evaluator-paired",
    ("evaluator", "re-embedding"): "mi-evaluator-re-embedding",
    ("evaluator", "slot-recovery"): "mi-evaluator-slot-recovery",
    ("evaluator", "speech"): "mi-evaluator-speech",
    ("evaluator", "text-overlap"): "mi-evaluator-text-overlap",
    ("evaluator", "transcripts"): "mi-evaluator-transcripts",
    ("evaluator", "vlm-judge"): "mi-evaluator-vlm-judge",
    ("evaluator", "voice"): "mi-evaluator-voice",
    ("modality", "audio"): "mi-audio",
    ("modality", "graph"): "mi-graph",
    ("modality", "image"): "mi-image",
    ("modality", "tabular"): "mi-tabular",
    ("modality", "text"): "mi-text",
    ("model", "decision-tree"): "mi-tabular",
    ("model", "ecapa"): "mi-audio",
    ("model", "gat"): "mi-graph",
    ("model", "gcn"): "mi-graph",
    ("model", "ge2e"): "mi-audio",
    ("model", "gin"): "mi-graph",
    ("model", "ir152"): "mi-image",
    ("model", "ir50"): "mi-image",
    ("model", "logistic-regression"): "mi-tabular",
    ("model", "mel-cnn"): "mi-audio",
    ("model", "minilm"): "mi-model-transformers",
    ("model", "random-forest"): "mi-tabular",
    ("model", "recogniser"): "mi-audio",
    ("model", "resnet18"): "mi-image",
    ("model", "rgcn"): "mi-graph",
    ("model", "sage"): "mi-graph",
    ("model", "sincnet"): "mi-audio",
    ("model", "small-bert"): "mi-text",
    ("model", "small-cnn"): "mi-image",
    ("model", "small-gpt"): "mi-text",
    ("model", "small-resnet"): "mi-image",
    ("model", "small-transformer"): "mi-image",
    ("model", "speaker-encoder"): "mi-audio",
    ("model", "stylegan2"): "mi-image",
    ("model", "tabular-mlp"): "mi-tabular",
    ("model", "text-cnn"): "mi-text",
    ("model", "text-transformer"): "mi-text",
    ("model", "timm"): "mi-model-timm",
    ("model", "torchvision"): "mi-model-torchvision",
    ("model", "vgg16-bn"): "mi-image",
    ("model", "x-vector"): "mi-audio",
    ("source", "export"): "mi-model-exported",
    ("source", "hf"): "mi-model-transformers",
    ("source", "http"): "mi-model-endpoint",
    ("source", "https"): "mi-model-endpoint",
    ("source", "onnx"): "mi-model-onnx",
    ("source", "py"): "mi-model-exported",
    ("source", "sklearn"): "mi-model-sklearn",
    ("source", "torchscript"): "mi-model-exported",
    ("tracker", "mlflow"): "mi-tracker-mlflow",
    ("tracker", "tensorboard"): "mi-tracker-tensorboard",
}
# generated: end


def collect(directory: Path) -> dict[tuple[str, str], str]:
    """Read what the packages under ``directory/*/*`` offer, sorted by kind and name.

    Raises: PluginError that names the packages whose plugin is broken.
    """
    from micore.registry import Registry

    registry, packages = Registry(), {}
    for package, entry_point, plugin in _plugins(directory):
        packages[entry_point] = package
        registry.add(entry_point, plugin)
    registry.require_sound()
    offered = registry.entries()
    return {(e.spec.kind, e.spec.name): packages[e.provider.name] for e in sorted(offered, key=_order)}


def _order(entry: Entry) -> tuple[str, str]:
    return entry.spec.kind, entry.spec.name


def _plugins(directory: Path) -> Iterator[tuple[str, str, object]]:
    """Import every plugin module: distribution, entry point, module."""
    for file in sorted(directory.glob("*/*/pyproject.toml")):
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        sys.path.insert(0, str(file.parent / "src"))
        for name, module in project.get("entry-points", {}).get("micore", {}).items():
            yield project["name"], name, import_module(module)


def rewrite(file: Path, table: Mapping[tuple[str, str], str]) -> None:
    """Put a table between the marks of this file."""
    begin, end = "# generated: begin\n", "# generated: end\n"
    text = file.read_text(encoding="utf-8")
    rows = "".join(f'    ("{kind}", "{name}"): "{package}",\n' for (kind, name), package in table.items())
    before, after = text.partition(begin)[0], text.partition(end)[2]
    declaration = f"KNOWN: Mapping[tuple[str, str], str] = {{\n{rows}}}\n"
    file.write_text(f"{before}{begin}{declaration}{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    rewrite(Path(__file__), collect(Path(sys.argv[1])))
