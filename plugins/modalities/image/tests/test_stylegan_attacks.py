"""What attacks on a StyleGAN share: its file in the config, the preparation, the control, the renderer."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from mi_image import prior_choice
from mi_image.prior_bundle import stylegan_bundle
from mi_image.stylegan2 import StyleGan2Generator
from mi_image.stylegan2_training import StyleGanSettings
from mi_image.stylegan_attacks import (
    PREPARE_FIELDS,
    SMALL,
    TINY,
    StylePriorConfig,
    StyleRenderer,
    prepare_ground,
    restore_ground,
    shown_channels,
    with_renderer,
)
from mi_image.toy import image_toy
from micore.contracts import Prepared, Split
from micore.errors import ConfigError, DataError, ModelError
from micore.files import file_digest
from micore.runtime import Runtime
from micore.shelf import Shelf
from micore.target import Target
from micore.testing.trial import Trial
from micore.threat import Access

CPU = Runtime(device=torch.device("cpu"), seed=2, tile=8)
ONE_STEP = {**TINY, "gan_iterations": 1, "bank": 20}


def save_prior(path: Path, *, size: int = 16, channels: int = 1, seed: int = 0) -> Path:
    with CPU.seeded("prior", seed):
        arguments = {
            "latent_dim": 8, "size": size, "channels": channels, "w_dim": 8, "n_mapping_layers": 2, "channel_base": 64,
            "channel_max": 8,
        }  # fmt: skip
        state = {"arguments": arguments, "weights": StyleGan2Generator(**arguments).state_dict()}
    stylegan_bundle(state, data={}, training={}).save(path)
    return path


@pytest.fixture(scope="module")
def toy() -> Trial:
    return Trial("prior-samples")


@pytest.fixture
def target(toy: Trial) -> Target:
    return toy.target(access=Access.WHITE_BOX)


@pytest.fixture
def public() -> Split:
    return image_toy().dataset.split("public")


# the file -------------------------------------------------------------------------------------------------


def test_without_a_file_there_is_no_hash() -> None:
    config = StylePriorConfig()
    assert (config.prior, config.prior_digest) == (None, None)
    assert "prior" not in PREPARE_FIELDS
    assert "prior_digest" in PREPARE_FIELDS
    assert StylePriorConfig.model_fields.keys() >= PREPARE_FIELDS


def test_the_content_of_the_file_counts_not_its_place(tmp_path: Path) -> None:
    one = StylePriorConfig(prior=str(save_prior(tmp_path / "a.safetensors")))
    other = StylePriorConfig(prior=str(save_prior(tmp_path / "b.safetensors")))
    changed = StylePriorConfig(prior=str(save_prior(tmp_path / "c.safetensors", seed=1)))
    assert one.prior_digest == other.prior_digest == file_digest(tmp_path / "a.safetensors")
    assert changed.prior_digest != one.prior_digest


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_prior(tmp_path / "a.safetensors")
    monkeypatch.chdir(tmp_path)
    assert StylePriorConfig(prior="a.safetensors").prior == str(tmp_path / "a.safetensors")


def test_a_config_goes_through_json_and_notices_another_file(tmp_path: Path) -> None:
    path = save_prior(tmp_path / "a.safetensors")
    config = StylePriorConfig(prior=str(path))
    text = config.model_dump_json()
    assert StylePriorConfig.model_validate_json(text) == config
    save_prior(path, seed=1)
    with pytest.raises(ConfigError, match="is not the file that it was"):
        StylePriorConfig.model_validate_json(text)
    path.unlink()
    assert StylePriorConfig.model_validate_json(text) == config  # a kept preparation does not need it


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no file") as caught:
        StylePriorConfig(prior=str(tmp_path / "none.safetensors"))
    assert "mi prior" in (caught.value.hint or "")


# the preparation ------------------------------------------------------------------------------------------


def test_small_is_what_a_stylegan_is_trained_with_by_default() -> None:
    assert StylePriorConfig(**SMALL).gan_settings() == StyleGanSettings()
    assert asdict(StylePriorConfig(**TINY).gan_settings())["w_dim"] == 16


def test_a_prior_from_a_file_needs_no_public_images(tmp_path: Path, target: Target) -> None:
    config = StylePriorConfig(**ONE_STEP, prior=str(save_prior(tmp_path / "a.safetensors")))
    prepared = prepare_ground(config, target, None, CPU, "x")
    assert prepared.state["prior"]["arguments"]["w_dim"] == 8
    assert prepared.state["bank"]["styles"].shape == (20, 8)
    assert target.ledger.total.queries == config.bank_queries == 20


def test_without_file_and_images_it_says_so(target: Target) -> None:
    with pytest.raises(DataError, match="x needs public images or a prior"):
        prepare_ground(StylePriorConfig(**ONE_STEP), target, None, CPU, "x")
    with pytest.raises(DataError, match="x was not prepared"):
        restore_ground(StylePriorConfig(**ONE_STEP), None, CPU, "x")


def test_a_prior_that_does_not_fit_is_refused_before_any_query(tmp_path: Path, target: Target, public: Split) -> None:
    config = StylePriorConfig(**ONE_STEP, prior=str(save_prior(tmp_path / "a.safetensors", size=8)))
    with pytest.raises(ModelError, match="8 px"):
        prepare_ground(config, target, public, CPU, "x")
    assert target.ledger.total.queries == 0


def test_a_trained_prior_serves_other_banks(
    tmp_path: Path, toy: Trial, public: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two attacks with equal settings of the StyleGAN train it once, whatever their banks are."""
    trained = []
    train = prior_choice.train_stylegan

    def counted(*arguments: object, **options: object) -> object:
        trained.append(1)
        return train(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(prior_choice, "train_stylegan", counted)
    runtime = Runtime(device=torch.device("cpu"), seed=2, tile=8, shelf=Shelf(tmp_path))
    one = prepare_ground(StylePriorConfig(**ONE_STEP), toy.target(access=Access.WHITE_BOX), public, runtime, "x")
    other = StylePriorConfig(**{**ONE_STEP, "bank": 10, "psi": 0.5})
    two = prepare_ground(other, toy.target(access=Access.WHITE_BOX), public, runtime, "y")
    assert trained == [1]
    for name, weight in one.state["prior"]["weights"].items():
        assert torch.equal(weight, two.state["prior"]["weights"][name])


# using it -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared(toy: Trial) -> Prepared:
    return prepare_ground(
        StylePriorConfig(**ONE_STEP), toy.target(access=Access.WHITE_BOX), image_toy().dataset.split("public"), CPU, "x"
    )


def test_scores_are_those_of_the_single_code(toy: Trial, prepared: Prepared) -> None:
    ground = restore_ground(StylePriorConfig(**ONE_STEP), prepared, CPU, "x")
    scores = toy.target(access=Access.WHITE_BOX).scores(ground.render(ground.bank.styles))
    torch.testing.assert_close(ground.bank.scores, scores, rtol=1e-4, atol=1e-5)


def test_the_central_part_is_cut_out(prepared: Prepared) -> None:
    whole, half = (
        restore_ground(StylePriorConfig(**ONE_STEP, centre=centre), prepared, CPU, "x") for centre in (1.0, 0.5)
    )
    styles = whole.bank.styles[:2]
    assert torch.equal(half.render(styles), whole.render(styles)[..., 4:12, 4:12])
    assert half.sample(3, CPU.rng("a")).shape == (3, 1, 8, 8)


def test_the_control_is_truncated_as_the_candidates_are(prepared: Prepared) -> None:
    still = restore_ground(StylePriorConfig(**{**ONE_STEP, "psi": 0.0}), prepared, CPU, "x")
    one, two = still.sample(2, CPU.rng("a"))
    assert torch.equal(one, two)


def test_the_renderer_makes_the_grounds_pictures_and_can_be_replaced(prepared: Prepared) -> None:
    config = StylePriorConfig(**ONE_STEP, centre=0.5)
    ground = restore_ground(config, prepared, CPU, "x")
    renderer, styles = StyleRenderer(ground), ground.bank.styles[:3]
    torch.testing.assert_close(renderer(styles, torch.zeros(3)), ground.render(styles))
    weights = {name: tensor + 0.1 for name, tensor in renderer.state_dict().items()}
    tuned = restore_ground(config, with_renderer(prepared, weights), CPU, "x")
    assert not torch.allclose(tuned.render(styles), ground.render(styles), atol=1e-3)
    renderer.load_state_dict(weights)
    torch.testing.assert_close(renderer(styles), tuned.render(styles))


def test_a_picture_counts_as_grey_where_picture_or_target_is(toy: Trial) -> None:
    grey = toy.target(access=Access.WHITE_BOX)
    assert shown_channels(torch.zeros(1, 3, 4, 4), grey) == 1
