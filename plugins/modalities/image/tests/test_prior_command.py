"""`mi prior`, the bundles that it writes, and how an attack chooses its StyleGAN."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from mi_image import prior_choice
from mi_image.prior_bundle import load_prior, stylegan_bundle, stylegan_of
from mi_image.prior_choice import stylegan_state
from mi_image.prior_training import KINDS, train_prior
from mi_image.stylegan2 import StyleGan2Generator
from mi_image.stylegan2_training import StyleGanSettings
from mi_image.stylegan_prior import restore_stylegan
from micore.artifacts import Bundle
from micore.cli import main
from micore.data import DataRequest
from micore.errors import ConfigError, DataError, ModelError, UsageError
from micore.models import restore_network
from micore.registry import Registry
from micore.runtime import Runtime
from micore.shelf import Shelf

Mi = Callable[..., Result]
CPU = Runtime(device=torch.device("cpu"), seed=5)
QUICK = ("-p", "iterations=2", "-p", "batch_size=2", "-p", "channel_max=4", "-p", "w_dim=8", "-p", "latent_dim=8")
TINY = StyleGanSettings(latent_dim=8, w_dim=8, channel_max=4, iterations=2, batch_size=2)


@pytest.fixture(autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep checkpoints out of the tester's home."""
    monkeypatch.setenv("MI_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture
def mi() -> Mi:
    """Call ``mi`` in this process."""

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(main, arguments, prog_name="mi")

    return call


def pictures(channels: int = 1, size: int = 16) -> Tensor:
    return torch.rand(6, channels, size, size, generator=torch.Generator().manual_seed(3))


def state(**changes: Any) -> dict[str, Any]:
    arguments = {"latent_dim": 8, "size": 16, "channels": 3, "w_dim": 6, "n_classes": 0, "n_mapping_layers": 2,
                 "channel_base": 64, "channel_max": 4, "conv_clamp": None, **changes}  # fmt: skip
    with CPU.seeded("test"):
        return {"arguments": arguments, "weights": dict(StyleGan2Generator(**arguments).state_dict())}


def written(path: Path, **changes: Any) -> Path:
    stylegan_bundle(state(**changes), data={}, training={}).save(path)
    return path


def same(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    return first["arguments"] == second["arguments"] and all(
        torch.equal(value, second["weights"][name]) for name, value in first["weights"].items()
    )


# bundles ----------------------------------------------------------------------------------------------------


def test_a_bundle_keeps_the_prior(tmp_path: Path) -> None:
    original = state(n_classes=3)
    stylegan_bundle(original, data={}, training={"converted": "x"}, seed=4).save(tmp_path / "p.safetensors")
    bundle = load_prior(tmp_path / "p.safetensors")
    assert (bundle.card.role, bundle.card.classes, bundle.card.seed) == ("prior", ("0", "1", "2"), 4)
    assert same(original, stylegan_of(bundle))
    module, _ = restore_network(Registry.discover(), bundle)  # as any bundle is restored
    latents, labels = torch.ones(2, 8), torch.tensor([0, 2])
    expected = restore_stylegan(original, CPU).generator(latents, labels)
    assert torch.equal(module.eval()(latents, labels), expected)


def test_what_is_no_prior_is_refused(tmp_path: Path) -> None:
    card = stylegan_bundle(state(), data={}, training={}).card.to_dict()
    bundle = Bundle(card=load_card({**card, "role": "classifier"}), weights={})
    bundle.save(tmp_path / "c.safetensors")
    with pytest.raises(ModelError, match="is a classifier, not a prior"):
        load_prior(tmp_path / "c.safetensors")
    Bundle(card=load_card({**card, "modality": "audio"}), weights={}).save(tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match="modality 'audio'"):
        load_prior(tmp_path / "a.safetensors")
    save_file({"weight": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="mi prior convert"):
        load_prior(tmp_path / "w.safetensors")
    other = Bundle(card=load_card({**card, "model": {"name": "dcgan", "config": {}}}), weights={}, source="d")
    with pytest.raises(ModelError, match="d is a prior of kind 'dcgan'"):
        stylegan_of(other)


def load_card(document: Mapping[str, Any]) -> Any:
    from micore.artifacts import Card

    return Card.from_dict(json.loads(json.dumps(document)))


# mi prior ---------------------------------------------------------------------------------------------------


def test_train_show_and_sample(tmp_path: Path, mi: Mi) -> None:
    prior = tmp_path / "p.safetensors"
    result = mi("prior", "train", "--data", "digits", *QUICK, "-o", str(prior), "--seed", "3")
    assert result.exit_code == 0, result.output
    assert "stylegan2, 16 px, grey" in result.stdout
    shown = mi("prior", "show", str(prior), "--samples", "5", "--psi", "0.7")
    assert shown.exit_code == 0, shown.output
    assert "digits (public split)" in shown.stdout
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.size[0] > 16
    card = json.loads(mi("prior", "show", str(prior), "--json").stdout)
    assert (card["role"], card["seed"], card["training"]["iterations"]) == ("prior", 3, 2)
    again = mi("prior", "train", "--data", "digits", *QUICK, "-o", str(prior))
    assert again.exit_code == UsageError.exit_code
    assert "--force" in again.stderr


def test_convert(tmp_path: Path, mi: Mi) -> None:
    weights, prior = tmp_path / "net.safetensors", tmp_path / "p.safetensors"
    original = state(conv_clamp=256.0)
    save_file(original["weights"], weights)
    result = mi("prior", "convert", str(weights), "-o", str(prior))
    assert result.exit_code == 0, result.output
    bundle = load_prior(prior)
    assert same(original, stylegan_of(bundle))
    assert bundle.card.training["converted"] == "net.safetensors"
    assert len(bundle.card.training["sha256"]) == 64
    result = mi("prior", "convert", str(weights), "-o", str(prior), "--force", "--conv-clamp", "none")
    assert result.exit_code == 0, result.output
    assert stylegan_of(load_prior(prior))["arguments"]["conv_clamp"] is None


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (("convert", "{tmp}/none.pkl", "-o", "{tmp}/p.safetensors"), "none.pkl does not exist", 5),
        (("convert", "{tmp}/few.safetensors", "-o", "{tmp}/p.safetensors"), "no StyleGAN2 that this version builds", 5),
        (("convert", "{tmp}/few.safetensors", "-o", "{tmp}/p.safetensors", "--conv-clamp", "-1"), "positive number", 2),
        (("train", "--data", "digits", "-p", "iteration=2", "-o", "{tmp}/p.safetensors"), "no option 'iteration'", 3),
        (("train", "--data", "digits", "-p", "batch_size=1", "-o", "{tmp}/p.safetensors"), "'batch_size'", 3),
        (("train", "--data", "digits", "--kind", "vae", "-o", "{tmp}/p.safetensors"), "no prior of kind 'vae'", 2),
        (("train", "--data", "digits", "-D", "size=28", "-o", "{tmp}/p.safetensors"), "not 28x28", 8),
        (("show", "{tmp}/none.safetensors"), "does not exist", 5),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, mi: Mi, arguments: tuple[str, ...], message: str, code: int) -> None:
    few = {name: value for name, value in state()["weights"].items() if name != "synthesis.b16.conv1.bias"}
    save_file(few, tmp_path / "few.safetensors")
    result = mi("prior", *(argument.format(tmp=tmp_path) for argument in arguments))
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) <= 2
    assert not (tmp_path / "p.safetensors").exists()


def test_a_killed_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MI_CHECKPOINT_SECONDS", "0")
    monkeypatch.setenv("MI_HOME", str(tmp_path))
    registry, request = Registry.discover(), DataRequest(uri="digits")
    values = {"iterations": 4, "batch_size": 2, "channel_max": 4, "w_dim": 8, "latent_dim": 8}

    def train(name: str, runtime: Runtime) -> Bundle:
        output = tmp_path / name
        return train_prior(registry, runtime, data=request, kind="stylegan2", values=values, output=output)

    whole = train("a.safetensors", Runtime.create("cpu", seed=5))
    assert not list((tmp_path / "cache").rglob("*.safetensors"))  # a finished training leaves no checkpoint
    steps: list[int] = []

    class Killer:
        def track(self, description: str, total: int) -> Any:
            from contextlib import nullcontext

            return nullcontext(self.count)

        def count(self, done: int) -> None:
            steps.append(done)
            if steps.count(3) == 1 and done == 3:
                raise KeyboardInterrupt

    runtime = Runtime.create("cpu", seed=5, progress=Killer())
    with pytest.raises(KeyboardInterrupt):
        train("b.safetensors", runtime)
    resumed = train("b.safetensors", runtime)
    assert steps == [1, 2, 3, 3, 4]
    assert resumed.fingerprint == whole.fingerprint


def test_data_without_public_images_is_refused(tmp_path: Path) -> None:
    class Public:
        name, modality = "toy", "image"

        def split(self, name: str) -> list[int]:
            return []

    from mi_image.prior_training import _public_images

    with pytest.raises(DataError, match="no public images"):
        _public_images(Public())  # type: ignore[arg-type]
    Public.modality = "audio"
    with pytest.raises(DataError, match="modality 'audio'"):
        _public_images(Public())  # type: ignore[arg-type]


def test_every_kind_has_a_config_with_descriptions() -> None:
    for kind in KINDS.values():
        assert all(field.description for field in kind.config.model_fields.values())
        kind.config()
    with pytest.raises(ConfigError):
        train_prior(Registry.discover(), CPU, data=DataRequest(uri="digits"), kind="stylegan2",
                    values={"x": 1}, output=Path("x"))  # fmt: skip


# what an attack chooses -------------------------------------------------------------------------------------


def test_a_file_is_taken_when_it_fits(tmp_path: Path) -> None:
    path = str(written(tmp_path / "p.safetensors"))
    expected = state()
    for images in (None, pictures(3, 16), pictures(1, 16), pictures(3, 8)):  # colour for grey, and larger: both fit
        assert same(expected, stylegan_state(path, images, TINY, CPU))


@pytest.mark.parametrize(
    ("changes", "images", "message"),
    [
        ({"channels": 1}, (3, 16), "makes grey pictures"),
        ({"size": 8}, (3, 16), r"8 px, and the public images have 16 px.*-D size"),
        ({"n_classes": 4}, (3, 16), "conditional, on 4 classes"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, Any], images: tuple[int, int], message: str
) -> None:
    path = str(written(tmp_path / "p.safetensors", **changes))
    with pytest.raises(ModelError, match=message):
        stylegan_state(path, pictures(*images), TINY, CPU, conditional=False)


def test_conditional_priors_are_for_attacks_that_draw_labels(tmp_path: Path) -> None:
    path = str(written(tmp_path / "p.safetensors", n_classes=4))
    assert stylegan_state(path, pictures(3), TINY, CPU)["arguments"]["n_classes"] == 4


def test_without_a_file_one_is_trained_once_for_all_attacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime(device=torch.device("cpu"), seed=5, shelf=Shelf(tmp_path))
    first = stylegan_state(None, pictures(), TINY, runtime)
    monkeypatch.setattr(prior_choice, "train_stylegan", None)
    assert same(first, stylegan_state(None, pictures(), TINY, runtime))
    with pytest.raises(TypeError):  # other images: trained anew
        stylegan_state(None, pictures(3), TINY, runtime)


def test_neither_file_nor_images_is_refused() -> None:
    with pytest.raises(DataError, match="-p prior=FILE"):
        stylegan_state(None, None, TINY, CPU)
