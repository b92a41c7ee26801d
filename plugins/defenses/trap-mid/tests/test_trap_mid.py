"""Trap-MID: the mathematics of its parts, that the traps work after a training, and what the detector tells."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from mi_defense_trap_mid import defense as defense_module
from mi_defense_trap_mid.defense import TrapMid, TrapMidConfig
from mi_defense_trap_mid.detector import Tap, class_means, features_of, signatures_of, threshold_of, trap_scores
from mi_defense_trap_mid.planting import Planting, discriminator_of, in_eval
from mi_defense_trap_mid.triggers import Triggers, all_traps, balanced_labels, blended, channel_range, draw_triggers
from mi_defense_trap_mid.views import random_views
from mi_image.datasets.digits import open_digits
from mi_image.modality import ImageModality
from mi_image.toy import image_toy
from micore.artifacts import PluginUse
from micore.configs import make_config
from micore.contracts import Defense
from micore.defending import fit_defenses
from micore.errors import ConfigError, ModelError
from micore.kit.training import Trainer, TrainingBatch, TrainingConfig
from micore.runtime import Checkpoints, Random, Runtime
from micore.target import Target
from micore.testing.lab import holdout_accuracy, train_setting
from micore.testing.toys import ToyModality, ToySplit
from micore.threat import Access, Ledger

CPU = Runtime(device=torch.device("cpu"))
PLAIN = {"crop_area": 1.0, "rotation": 0.0, "flip": 0.0}


def defense(**options: object) -> TrapMid:
    return TrapMid(make_config(TrapMidConfig, options, "trap-mid"))


def network(seed: int = 0, n_classes: int = 3) -> nn.Module:
    with Runtime(device=torch.device("cpu"), seed=seed).seeded("net"):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 8), nn.ReLU(),
            nn.Linear(8, n_classes),
        )  # fmt: skip


def inputs(n: int = 8, seed: int = 0) -> Tensor:
    return 2 * Random(seed).uniform((n, 1, 4, 4)) - 1


@pytest.fixture(autouse=True)
def _own_stream() -> object:
    """Let each test draw from the global generator as a training step does, and leave it as it was."""
    with CPU.seeded("test"):
        yield


# triggers -------------------------------------------------------------------------------------------------


def test_a_blend_of_normalised_inputs_is_the_normalised_blend() -> None:
    rng = np.random.default_rng(0)
    images, trigger = rng.uniform(size=(4, 3, 5, 5)), rng.uniform(size=(3, 5, 5))
    mean, std = (np.array(values).reshape(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = (0.98 * images + 0.02 * trigger - mean) / std
    found = blended(
        torch.tensor((images - mean) / std), torch.tensor((trigger - mean) / std).expand(4, -1, -1, -1), 0.02
    )
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_the_range_is_that_of_each_channel() -> None:
    values = Random(1).normal((6, 3, 4, 4))
    low, high = channel_range(values)
    assert low.shape == high.shape == (3, 1, 1)
    np.testing.assert_array_equal(low.flatten().numpy(), values.numpy().min(axis=(0, 2, 3)))
    np.testing.assert_array_equal(high.flatten().numpy(), values.numpy().max(axis=(0, 2, 3)))
    assert [float(end) for end in channel_range(values.flatten(1))] == [float(values.min()), float(values.max())]


@given(st.integers(0, 100), st.floats(0.001, 1.0))
def test_triggers_follow_the_sign_and_stay_in_the_range(seed: int, step: float) -> None:
    low, high = torch.tensor([-2.0]).view(1, 1, 1), torch.tensor([1.0]).view(1, 1, 1)
    with CPU.seeded(seed):
        triggers = draw_triggers(3, torch.Size((1, 2, 2)), low, high, 0.02)
    before, gradient = triggers.values.clone(), Random(seed).normal((3, 1, 2, 2))
    gradient[0] = 0
    triggers.follow(gradient, step)
    assert bool((before >= low).all() and (before <= high).all())
    expected = np.clip(before.numpy() - step * 3 * np.sign(gradient.numpy()), -2, 1)
    np.testing.assert_allclose(triggers.values.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(triggers.values[0], before[0])  # a class that was not drawn


@given(st.integers(1, 60), st.integers(1, 12), st.integers(0, 50))
def test_labels_are_balanced(n: int, n_classes: int, seed: int) -> None:
    with CPU.seeded(seed):
        counts = np.bincount(balanced_labels(n, n_classes, torch.device("cpu")).numpy(), minlength=n_classes)
    assert counts.sum() == n
    assert counts.max() - counts.min() <= 1


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 50))
def test_every_class_is_trapped_about_as_often(n: int, n_classes: int, seed: int) -> None:
    triggers = Triggers(values=torch.ones(n_classes, 2), low=torch.zeros(1), high=torch.ones(1), alpha=0.5)
    with CPU.seeded(seed):
        trapped, rows, labels = all_traps(torch.zeros(n, 2), triggers)
    counts = np.bincount(labels.numpy(), minlength=n_classes)
    assert counts.min() >= 1
    assert counts.max() - counts.min() <= 1
    assert set(rows.tolist()) == set(range(n))
    assert bool((trapped == 0.5).all())


def test_views_keep_shape_and_mirror() -> None:
    pictures = inputs(5)
    assert torch.equal(random_views(pictures, 1.0, 0.0, 0.0), pictures)
    torch.testing.assert_close(random_views(pictures, 1.0, 0.0, 1.0), pictures.flip(-1))
    seen = random_views(pictures, 0.8, 30.0, 0.5)
    assert seen.shape == pictures.shape
    assert not torch.equal(seen, pictures)
    assert seen.min() >= pictures.min() and seen.max() <= pictures.max()  # noqa: PT018
    rows = torch.ones(4, 7)
    assert random_views(rows, 0.8, 30.0, 0.5) is rows


# planting -------------------------------------------------------------------------------------------------


def planting(classifier: nn.Module, optimizer: str = "sgd") -> Planting:
    low, high = channel_range(inputs())
    triggers = draw_triggers(3, torch.Size((1, 4, 4)), low, high, 0.2)
    return Planting(classifier, triggers, TrainingConfig(optimizer=optimizer, learning_rate=5e-3))


def test_the_discriminator_is_a_network_of_its_own() -> None:
    classifier, before = network(), torch.get_rng_state()
    given = copy.deepcopy(classifier.state_dict())
    judge = discriminator_of(classifier)
    assert torch.equal(torch.get_rng_state(), before)
    assert judge(inputs()).shape == (8, 1)
    assert not judge(inputs()).any()
    assert not {id(part) for part in judge.parameters()} & {id(part) for part in classifier.parameters()}
    made = planting(classifier)
    stepped = {id(part) for group in made.optimizer.param_groups for part in group["params"]}
    assert stepped == {id(part) for part in made.network.parameters()}
    assert made.optimizer.param_groups[0]["momentum"] == 0.9
    made.train_discriminator(inputs(), torch.arange(8) % 3)
    assert all(torch.equal(value, given[name]) for name, value in classifier.state_dict().items())


def test_the_discriminator_learns_to_tell_traps() -> None:
    made, clean = planting(network(), "adam"), inputs(30)
    labels = torch.arange(30) % 3
    for _ in range(150):
        made.train_discriminator(clean, labels)
    with torch.no_grad(), in_eval(made.network):
        sides = [made.network(part).flatten() for part in (clean, made.triggers.blend(clean, labels))]
    assert (sides[0] > 0).float().mean() > 0.9
    assert (sides[1] < 0).float().mean() > 0.9


def test_moving_triggers_makes_them_work_and_leaves_both_networks() -> None:
    classifier = network()
    made, clean, labels = planting(classifier), inputs(60), torch.arange(60) % 3
    before = [copy.deepcopy(part.state_dict()) for part in (classifier, made.network)]

    def loss() -> float:
        with torch.no_grad(), in_eval(classifier):
            return float(nn.functional.cross_entropy(classifier(made.triggers.blend(clean, labels)), labels))

    first = loss()
    for _ in range(40):
        made.move_triggers(classifier.train(), clean, labels, 0.02, lambda seen: seen)
    assert loss() < first
    for part, state in zip((classifier, made.network), before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in part.state_dict().items())
        assert all(weight.grad is None for weight in part.parameters())
    assert classifier.training


def test_eval_mode_ends_with_the_block_for_each_part() -> None:
    classifier = network().train()
    classifier[1].eval()  # frozen statistics
    with in_eval(classifier):
        assert not any(part.training for part in classifier.modules())
    assert [part.training for part in classifier] == [True, False, True, True, True, True, True]


class Rows(nn.Module):
    """Notes how many rows pass through it, and in which mode."""

    def __init__(self, log: list[tuple[int, bool]]) -> None:
        super().__init__()
        self.log = log

    def forward(self, values: Tensor) -> Tensor:
        self.log.append((len(values), self.training))
        return values

    def __deepcopy__(self, memo: object) -> Rows:
        return Rows(self.log)


@pytest.mark.parametrize("passed", [False, True])
def test_the_loss_is_the_weighted_sum_of_one_shared_pass(monkeypatch: pytest.MonkeyPatch, passed: bool) -> None:
    trap, classifier = defense(beta=0.3, alpha=0.4, trapped=1.0, every=1, **PLAIN), network()
    labels, traps = torch.arange(8) % 3, torch.arange(8) % 2
    monkeypatch.setattr(defense_module, "balanced_labels", lambda n, n_classes, device: traps)
    batch = TrainingBatch(classifier.train(), inputs(), labels, epoch=0, epochs=1)
    if passed:
        _ = batch.logits
    twin = copy.deepcopy(classifier)
    found = trap.training_loss(classifier, batch, lambda: nn.functional.cross_entropy(batch.logits, batch.labels))
    trapped = 0.6 * inputs() + 0.4 * trap.training_state()["triggers"][traps]
    with torch.no_grad():
        parts = (
            (network()(inputs()), twin(trapped)) if passed else twin(torch.cat([inputs(), trapped])).double().split(8)
        )
    clean, other = (
        -torch.log_softmax(logits.double(), dim=1)[range(8), wanted].mean()
        for logits, wanted in zip(parts, (labels, traps), strict=True)
    )
    assert float(found.detach()) == pytest.approx(float(0.7 * clean + 0.3 * other), rel=1e-5)


def test_the_work_of_the_defaults_is_below_one_and_a_half() -> None:
    """Rows of forward passes in eight steps of 64: the classifier's, and the discriminator's, a copy of it."""
    log: list[tuple[int, bool]] = []
    classifier, trap = nn.Sequential(Rows(log), nn.Flatten(), nn.Linear(16, 3)), defense()
    for _ in range(8):
        batch = TrainingBatch(classifier.train(), inputs(64), torch.zeros(64, dtype=torch.int64), 0, 1)
        trap.training_loss(
            classifier, batch, lambda batch=batch: nn.functional.cross_entropy(batch.logits, batch.labels)
        )
    assert [rows for rows, _ in log] == [32, 16, 16] + [80] * 8  # discriminator's step, triggers' step, model's steps
    assert [mode for _, mode in log] == [True, False, False] + [True] * 8
    assert sum(rows for rows, _ in log) <= 1.5 * 8 * 64


def test_a_step_in_half_precision_is_finite() -> None:
    trap, classifier = defense(every=1), network().train()
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16):
            batch = TrainingBatch(classifier, inputs(), torch.arange(8) % 3, 0, 1)
            loss = trap.training_loss(
                classifier, batch, lambda batch=batch: nn.functional.cross_entropy(batch.logits, batch.labels)
            )
        loss.backward()
        assert loss.dtype == torch.float32
        assert bool(torch.isfinite(loss))
    assert all(bool(torch.isfinite(part.grad).all()) for part in classifier.parameters())


# training -------------------------------------------------------------------------------------------------

SPLIT = ToySplit((inputs(24, seed=3) + 1) / 2, torch.arange(24) % 3)


def small_trainer(
    trap: TrapMid, seed: int = 0, split: ToySplit = SPLIT, checkpoints: Checkpoints | None = None
) -> Trainer:
    return Trainer(
        trap.adapt_model(network(seed)), split, config=TrainingConfig(epochs=4, batch_size=8, augment="none"),
        adapter=lambda samples: 2 * samples - 1 if samples.is_floating_point() else samples,
        augment=ToyModality().augment, runtime=CPU.with_checkpoints(checkpoints or Checkpoints()), defenses=[trap],
    )  # fmt: skip


def test_a_killed_training_goes_on_bit_for_bit(tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    class Stopping(Checkpoints):
        def offer(self, state: Callable[[], dict[str, object]]) -> None:
            super().offer(state)
            if state()["epoch"] == 2:
                raise KilledError

    options = {"every": 2, "trapped": 0.5}
    whole, path = defense(**options), tmp_path / "state"
    straight = small_trainer(whole)
    straight.fit()
    with pytest.raises(KilledError):
        small_trainer(defense(**options), checkpoints=Stopping(path, 0)).fit()
    resumed = defense(**options)
    again = small_trainer(resumed, seed=9, checkpoints=Checkpoints(path))
    again.fit()
    ours, theirs = straight.module.state_dict(), again.module.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert torch.equal(whole.training_state()["triggers"], resumed.training_state()["triggers"])
    assert whole.training_state()["steps"] == resumed.training_state()["steps"] == 12
    for one, other in zip(*(item._planting.network.state_dict().values() for item in (whole, resumed)), strict=True):
        assert torch.equal(one, other)


def test_only_the_last_epoch_is_kept() -> None:
    assert [defense().is_complete(epoch, 4) for epoch in range(4)] == [False, False, False, True]


def test_what_cannot_be_trapped_is_refused() -> None:
    with pytest.raises(ModelError, match="no linear classification layer"):
        defense().adapt_model(nn.Conv2d(1, 1, 1))
    with pytest.raises(ModelError, match="real numbers"):
        small_trainer(defense(), split=ToySplit(torch.zeros(6, 1, 4, 4, dtype=torch.int64), torch.arange(6) % 3))
    trap = defense()
    module = trap.adapt_model(network())
    module[-1] = nn.Linear(8, 3)
    with pytest.raises(ModelError, match="replaced"):
        Trainer(
            module, SPLIT, config=TrainingConfig(epochs=1), adapter=lambda samples: samples,
            augment=ToyModality().augment, runtime=CPU, defenses=[trap],
        )  # fmt: skip
    with pytest.raises(ModelError, match="lacks origins, signatures"):
        defense().load_state({"triggers": torch.zeros(1), "threshold": torch.zeros(())})


@pytest.mark.parametrize(
    "options", [{"alpha": 0}, {"alpha": 1}, {"beta": 1}, {"trapped": 0}, {"every": 0}, {"quantile": 1}, {"flip": 2}]
)
def test_numbers_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        defense(**options)


# detection ------------------------------------------------------------------------------------------------


def test_signatures_and_scores_equal_their_formulas() -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(12, 5)), np.arange(12) % 3
    origins, predictions = rng.normal(size=(3, 5)), rng.integers(3, size=12)
    means = np.stack([features[labels == label].mean(axis=0) for label in range(3)])
    np.testing.assert_allclose(class_means(torch.tensor(features), torch.tensor(labels), 3).numpy(), means)
    wanted = (means - origins) / np.linalg.norm(means - origins, axis=1, keepdims=True)
    found = signatures_of(torch.tensor(features), torch.tensor(labels), torch.tensor(origins))
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-9)
    seen = features - origins[predictions]
    cosines = (seen * wanted[predictions]).sum(axis=1) / np.linalg.norm(seen, axis=1)
    scores = trap_scores(torch.tensor(features), torch.tensor(predictions), found, torch.tensor(origins))
    np.testing.assert_allclose(scores.numpy(), cosines, rtol=1e-9)
    assert float(threshold_of(scores, 0.95)) == pytest.approx(np.quantile(cosines, 0.95))


def test_the_tap_finds_the_rows_of_the_answers() -> None:
    trap, module = defense(), network().eval()
    plain = module(inputs())
    trap.adapt_model(module)
    assert torch.equal(module(inputs()), plain)
    assert not trap._tap.features.requires_grad
    features, _ = features_of(module, inputs())
    kept = [0, 2, 5]
    assert torch.equal(trap._tap.take(plain.softmax(dim=1)[kept]), features[kept])
    assert trap._tap.take(plain[:1]) is None  # taken once
    copied = copy.deepcopy(module)
    copied(inputs())
    assert trap._tap.features is None
    module.train()(inputs())
    assert trap._tap.features is None
    assert Tap().take(plain) is None


DIGITS = replace(
    image_toy(), dataset=open_digits(None), model=PluginUse(name="small-cnn", config={}),
    training=TrainingConfig(learning_rate=5e-3),
)  # fmt: skip
IMAGES = ImageModality()


@dataclass(frozen=True)
class Trained:
    defense: TrapMid
    module: nn.Module
    adapter: Callable[[Tensor], Tensor]

    def target(self, access: Access = Access.WHITE_BOX) -> Target:
        data = DIGITS.dataset
        return Target(
            self.module, access=access, adapter=self.adapter, input_spec=data.input, classes=data.classes,
            ledger=Ledger(), runtime=CPU, output_defenses=[self.defense],
        )  # fmt: skip

    def scores(self, given: Tensor) -> Tensor:
        features, logits = features_of(self.module, given)
        return self.defense.trap_scores(features, logits.argmax(dim=1))


@cache
def trained() -> Trained:
    """Return a target with working traps: blends of 0.2, as a few hundred steps learn no fainter ones."""
    trap, data = defense(alpha=0.2), DIGITS.dataset
    trainer, _ = train_setting(DIGITS, IMAGES, CPU, "classifier", [trap])
    adapter = IMAGES.adapter(data.input)
    fit_defenses(
        [trap], trainer.module, adapter=adapter, reference=data.split("private"), fresh=False, dataset=data, runtime=CPU
    )
    trainer.module.requires_grad_(False).eval()
    return Trained(trap, trainer.module, adapter)


def held_out() -> Tensor:
    split = DIGITS.dataset.split("holdout")
    return split.take(torch.arange(len(split)))


def test_the_traps_work_and_the_target_stays_useful() -> None:
    facts = trained().defense.facts()
    assert isinstance(trained().defense, Defense)
    assert facts["active"] is True
    assert facts["trapped_accuracy"] >= 0.9
    assert facts["detected"] > 0.8
    assert facts["false_positives"] < 0.15
    assert facts["fresh_reference"] is False
    assert holdout_accuracy(DIGITS, IMAGES, trained().module, CPU) >= 0.95


def test_an_untrained_target_has_no_working_traps() -> None:
    trap, data = defense(alpha=0.2), DIGITS.dataset
    trainer, _ = train_setting(DIGITS, IMAGES, CPU, "classifier", [], epochs=2)
    fit_defenses(
        [trap], trainer.module, adapter=trained().adapter, reference=data.split("private"), fresh=True, dataset=data,
        runtime=CPU,
    )  # fmt: skip
    assert trap.facts()["active"] is False


def test_the_detector_tells_trapped_from_clean_held_out_samples(record_property: Callable[[str, object], None]) -> None:
    made = trained()
    clean = made.adapter(held_out())
    with torch.no_grad():
        trapped, _, _ = all_traps(clean, made.defense._planting.triggers)
        scores = [made.scores(part).numpy() for part in (clean, trapped)]
    truth = np.repeat([0, 1], [len(part) for part in scores])
    auroc = roc_auc_score(truth, np.concatenate(scores))
    record_property("AUROC of trapped held-out samples", auroc)
    assert auroc > 0.9


def inverted(target: Target, starts: Tensor, steps: int = 60) -> Tensor:
    """Search pixels by the target's gradient, from starts (N, ...) that are spread over the classes."""
    images, labels = starts.clone().requires_grad_(True), torch.arange(len(starts)) % target.n_classes
    adam = torch.optim.Adam([images], 0.03)
    for _ in range(steps):
        loss = nn.functional.cross_entropy(target.module(images), labels, reduction="sum")
        (images.grad,) = torch.autograd.grad(loss, images)
        adam.step()
        images.data.clamp_(0, 1)
    return images.detach()


def test_a_gradient_attack_is_seen_among_the_queries(record_property: Callable[[str, object], None]) -> None:
    """Pixel search from public images runs into traps here, by far not always (see the README).

    A bundle that was loaded counts them as the defense that was trained.
    """
    made, shares = trained(), {}
    public = DIGITS.dataset.split("public").take(torch.arange(50))
    found = inverted(made.target(), public)
    loaded = defense(alpha=0.2)
    loaded.load_state(made.defense.state())
    watched = Trained(loaded, loaded.adapt_model(copy.deepcopy(made.module)), made.adapter)
    for name, samples in (("held-out", held_out()), ("reconstructions", found)):
        loaded._count = type(loaded._count)()
        answers = watched.target(Access.SCORES).scores(samples)
        told = loaded.findings()
        assert told["queries"] == told["judged"] == len(samples) == len(answers)
        shares[name] = told["share"]
        record_property(f"share that looks like traps, {name}", told["share"])
        flags = made.scores(made.adapter(samples)) > made.defense._kept["threshold"]
        assert told["like_traps"] == int(flags.sum())
        assert told["first_like_trap"] == (int(flags.nonzero()[0]) if flags.any() else None)
    assert shares["held-out"] < 0.15
    assert shares["reconstructions"] > shares["held-out"] + 0.2


def test_queries_that_cannot_be_judged_are_counted_as_such() -> None:
    trap = defense()
    assert trap.findings() == {}
    trap.observe(torch.full((4, 3), 1 / 3), inputs(4))
    assert trap.findings() == {"queries": 4, "judged": 0, "like_traps": 0, "share": None, "first_like_trap": None}
