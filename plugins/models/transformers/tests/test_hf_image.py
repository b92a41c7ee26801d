"""Image checkpoints as targets: tiny ones, made here, that say the same as transformers with its image processors."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from mi_image.adapter import ImageAdapter
from mi_model_transformers.loading import load
from micore.errors import ConfigError, ModelError
from micore.external import External, SourceRequest
from micore.inputs import InputSpec
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Access, Ledger

CPU = Runtime(device=torch.device("cpu"))
NAMES = {"id2label": {0: "Bea", 1: "ann", 2: "Cleo"}, "label2id": {"Bea": 0, "ann": 1, "Cleo": 2}}
VIT = {"image_size": 16, "patch_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16,
       "intermediate_size": 16, "initializer_range": 0.3}  # fmt: skip
PLAIN = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
SETTINGS: dict[str, dict[str, Any]] = {
    "vit": {**PLAIN, "size": {"height": 16, "width": 16}, "image_mean": MEAN, "image_std": STD},
    "resnet": {**PLAIN, "size": {"shortest_edge": 20}, "do_center_crop": True, "crop_size": 18, "image_mean": MEAN,
               "image_std": STD},
    "convnext": {**PLAIN, "size": {"shortest_edge": 32}, "rescale_factor": 1 / 127.5, "rescale_offset": True,
                 "do_normalize": False},
    "grey": {**PLAIN, "size": 16, "do_rescale": False, "image_mean": [127.5], "image_std": [63.75]},
}  # fmt: skip


@dataclass
class Data:
    """As much of a data set as a source looks at."""

    classes: tuple[str, ...] = ("ann", "bea", "cleo")
    modality: str = "image"
    name: str = "mine"
    input: InputSpec = field(default_factory=lambda: InputSpec(shape=(3, 24, 24), mean=(0.5,), std=(0.5,)))


def networks() -> dict[str, Any]:
    small = {"embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1]}
    return {
        "vit": ViTForImageClassification(ViTConfig(**VIT, **NAMES)),
        "resnet": ResNetForImageClassification(ResNetConfig(**small, layer_type="basic", **NAMES)),
        "convnext": ConvNextForImageClassification(
            ConvNextConfig(hidden_sizes=[8, 8], depths=[1, 1], num_stages=2, initializer_range=0.3, **NAMES)
        ),
        "grey": ViTForImageClassification(ViTConfig(**VIT, num_channels=1, **NAMES)),
    }


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Any]]:
    root = tmp_path_factory.mktemp("images")
    with torch.random.fork_rng():
        torch.manual_seed(4)
        made = networks()
    for name, network in made.items():
        network.eval().save_pretrained(root / name)
        (root / name / "preprocessor_config.json").write_text(json.dumps(SETTINGS[name]))
    return {name: (root / name, network) for name, network in made.items()}


def opened(place: Path, dataset: Any = None, **options: Any) -> External:
    return load(SourceRequest(uri=f"hf:{place}", runtime=CPU, options=options, dataset=dataset))


def processed(images: Tensor, settings: dict[str, Any]) -> Tensor:
    """Do by hand what the processor's settings say to images (N, C, H, W) from 0 to 1 of the network's size."""
    pixels = images * 255
    if settings["do_rescale"]:
        pixels = pixels * settings["rescale_factor"] - float(settings.get("rescale_offset", False))
    if settings["do_normalize"]:
        shape = (1, -1, 1, 1)
        pixels = (pixels - torch.tensor(settings["image_mean"]).view(shape)) / torch.tensor(settings["image_std"]).view(
            shape
        )
    return pixels


def target_of(external: External) -> Target:
    assert external.module is not None
    return Target(
        external.module, access=Access.WHITE_BOX, adapter=ImageAdapter(external.card.input),
        input_spec=external.card.input, classes=external.card.classes, ledger=Ledger(), runtime=CPU, role="classifier",
    )  # fmt: skip


@pytest.mark.parametrize("kind", SETTINGS)
def test_a_target_gives_what_transformers_gives(checkpoints: Any, kind: str) -> None:
    folder, network = checkpoints[kind]
    external = opened(folder, Data())
    card = external.card
    assert (card.role, card.modality, card.classes) == ("classifier", "image", Data().classes)
    sizes = {"vit": (3, 16, 16), "resnet": (3, 18, 18), "convnext": (3, 32, 32), "grey": (1, 16, 16)}
    assert card.input.shape == sizes[kind]
    images = torch.rand(3, *card.input.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network(pixel_values=processed(images, SETTINGS[kind])).logits[:, [1, 0, 2]].softmax(dim=1)
    torch.testing.assert_close(target_of(external).scores(images), expected, atol=1e-5, rtol=1e-4)
    assert expected.std(dim=0).max() > 1e-4  # the images differ, and so do the answers


def test_the_published_processor_does_the_same(checkpoints: Any) -> None:
    """What the settings say is what transformers makes of them."""
    transformers = pytest.importorskip("transformers")
    folder, _ = checkpoints["vit"]
    try:
        processor = transformers.ViTImageProcessor.from_pretrained(folder)
    except ImportError as error:
        pytest.skip(f"image processors need more: {error}")
    pixels = torch.randint(0, 256, (2, 3, 16, 16), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    given = processor([image for image in pixels], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(given, processed(pixels / 255, SETTINGS["vit"]), atol=1e-5, rtol=1e-5)


def test_gradients_reach_images_of_any_size(checkpoints: Any) -> None:
    target = target_of(opened(checkpoints["vit"][0], Data()))
    images = torch.rand(2, 3, 24, 24, requires_grad=True)
    (gradient,) = torch.autograd.grad(target.module(images)[:, 0].sum(), images)
    assert gradient.abs().amax(dim=(1, 2, 3)).min() > 0


@pytest.mark.parametrize("option", [{"seconds": 1.0}, {"pooling": "cls"}, {"max_tokens": 3}, {"role": "encoder"}])
def test_options_of_other_modalities_are_refused(checkpoints: Any, option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"takes images: {next(iter(option))} does not fit"):
        opened(checkpoints["vit"][0], Data(), **option)


def test_what_does_not_fit_is_named(checkpoints: Any, tmp_path: Path) -> None:
    folder = checkpoints["vit"][0]
    with pytest.raises(ModelError, match="takes images; the data are of modality audio"):
        opened(folder, Data(modality="audio"))
    with pytest.raises(ModelError, match="the checkpoint's classes are Bea, ann, Cleo; the data set's x, y, z"):
        opened(folder, Data(classes=("x", "y", "z")))
    assert opened(folder, Data(classes=("x", "y", "z")), labels="number").card.classes == ("x", "y", "z")
    bare = Path(shutil.copytree(folder, tmp_path / "bare"))
    (bare / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match=r"has no preprocessor_config.json: how it takes images is not known"):
        opened(bare, Data())
    settings = bare / "preprocessor_config.json"
    settings.write_text(json.dumps({**SETTINGS["vit"], "image_mean": [0.5, 0.5]}))
    with pytest.raises(ModelError, match="2 values for 3 channels"):
        opened(bare, Data())
    settings.write_text(json.dumps({**SETTINGS["vit"], "size": 20}))
    with pytest.raises(ModelError, match=r"does not take images of shape \[3, 20, 20\]"):
        opened(bare, Data())
    settings.write_text("[1]")
    with pytest.raises(ModelError, match="cannot be read"):
        opened(bare, Data())
    ViTModel(ViTConfig(**VIT)).save_pretrained(tmp_path / "encoder")
    shutil.copy(folder / "preprocessor_config.json", tmp_path / "encoder")
    with pytest.raises(ModelError, match="it is a classifier in name only"):
        opened(tmp_path / "encoder", Data(classes=("0", "1")), labels="number")


def test_the_fingerprint_follows_weights_and_settings(checkpoints: Any, tmp_path: Path) -> None:
    folder = checkpoints["vit"][0]
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    assert opened(other, Data()).fingerprint == opened(folder, Data()).fingerprint
    (other / "preprocessor_config.json").write_text(json.dumps({**SETTINGS["vit"], "image_mean": [0.1, 0.2, 0.3]}))
    assert opened(other, Data()).fingerprint != opened(folder, Data()).fingerprint
