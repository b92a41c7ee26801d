"""Defenses of answers are fitted, stored, rebuilt and told; a finished target is given more of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from micore import api
from micore.artifacts import Bundle, PluginUse
from micore.contracts import Defense, Fitting
from micore.data import DataRequest
from micore.defending import defend, labelled_public
from micore.errors import ModelError, UsageError
from micore.hookspecs import hookimpl
from micore.kit.training import Trainer, TrainingBatch
from micore.models import load_modality, open_guarded, restore_network
from micore.runtime import Runtime
from micore.specs import DefenseSpec
from micore.threat import Access, Ledger
from micore.training import train
from tests import toys

HERE = __name__
RUNTIME = Runtime(device=torch.device("cpu"))
KEPT_ASIDE = toys.QUICK.model_copy(update={"validation": 0.25})


class Towards(Defense):
    """Mixes each answer with the mean answer to the reference samples."""

    mean: Tensor
    facts_found: Mapping[str, Any] = {}

    def fit(self, fitting: Fitting) -> None:
        """Measure the mean answer."""
        reference = fitting.reference
        samples = reference.take(range(len(reference)))
        self.mean = fitting.answer(samples).mean(dim=0)
        public = fitting.public
        self.facts_found = {
            "samples": len(reference), "fresh": fitting.reference_is_fresh, "noise": float(torch.rand(())),
            "public": None if public is None or public.labels is None else sorted(set(public.labels.tolist())),
            "frozen": not any(p.requires_grad for p in fitting.module.parameters()) and not fitting.module.training,
        }  # fmt: skip

    def state(self) -> Mapping[str, Tensor]:
        """Keep the mean."""
        return {"mean": self.mean}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take the mean back."""
        self.mean = state["mean"]

    def facts(self) -> Mapping[str, Any]:
        """Tell what was fitted on."""
        return self.facts_found

    def adapt_output(self, scores: Tensor, inputs: Any) -> Tensor:
        """Mix."""
        return 0.5 * scores + 0.5 * self.mean.to(scores)


class Ramp(Defense):
    """Is complete from the second epoch on, and counts its beginnings."""

    begun = 0

    def begin(self, trainer: Trainer) -> None:
        """Count."""
        self.begun += 1

    def is_complete(self, epoch: int, epochs: int) -> bool:
        """Tell."""
        return epoch >= 1

    def adapt_inputs(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Darken."""
        return inputs * 0.5

    def training_loss(self, module: nn.Module, batch: TrainingBatch, task_loss: Any) -> Tensor:
        """Change nothing."""
        return task_loss()


class Watch(Defense):
    """Counts what is asked."""

    seen = 0

    def observe(self, scores: Tensor, inputs: Any) -> None:
        """Count."""
        self.seen += len(inputs)

    def findings(self) -> Mapping[str, Any]:
        """Tell."""
        return {"seen": self.seen}


class Defenders:
    """Offers the defenses above."""

    @hookimpl
    def mi_defenses(self) -> list[DefenseSpec]:
        """Offer them."""
        return [
            DefenseSpec(name="towards", target=f"{HERE}:Towards", summary="Toy", stages=("inference",), claims=("x",)),
            DefenseSpec(name="rival", target=f"{HERE}:Towards", summary="Toy", stages=("inference",), claims=("x",)),
            DefenseSpec(name="ramp", target=f"{HERE}:Ramp", summary="Toy", stages=("data", "training")),
            DefenseSpec(name="counter", target=f"{HERE}:Watch", summary="Toy", stages=("monitoring",)),
        ]


@pytest.fixture(scope="module")
def plugins():
    return toys.registry(defenders=Defenders())


@pytest.fixture(scope="module")
def plain(plugins):
    return toys.toy_bundle(plugins)


def use(name: str) -> PluginUse:
    return PluginUse(name=name)


def trained(plugins, *defenses: str, config=KEPT_ASIDE) -> Bundle:
    data = DataRequest.parse("grids", toys.SMALL)
    return train(
        plugins, Runtime.create("cpu"), data=data, model=use("conv"), training=config, defenses=list(map(use, defenses))
    )


def answered(plugins, bundle: Bundle) -> tuple[Tensor, Mapping[str, Defense]]:
    modality = load_modality(plugins, "toy")
    guarded = open_guarded(plugins, bundle, access=Access.SCORES, ledger=Ledger(), runtime=RUNTIME, modality=modality)
    target, defenses = guarded.target, guarded.defenses
    dataset = DataRequest.parse("grids", toys.SMALL).open(plugins)
    return target.scores(dataset.split("holdout").take(range(6))), defenses


def test_a_training_fits_stores_and_tells(plugins, tmp_path):
    bundle = trained(plugins, "towards")
    facts = bundle.card.metrics["defenses"]["towards"]
    assert facts["fresh"] is True
    assert facts["frozen"] is True
    assert facts["samples"] == 8  # two of the six samples of each of four classes
    assert bundle.card.metrics["train_samples"] == 16
    assert facts["public"] == list(range(len(facts["public"])))
    assert trained(plugins, "towards").card.metrics["defenses"] == bundle.card.metrics["defenses"], "draws are seeded"
    assert 0 < bundle.card.metrics["holdout_score_change"] < 2
    bundle.save(tmp_path / "b.safetensors")
    again = Bundle.load(tmp_path / "b.safetensors")
    assert again.fingerprint == bundle.fingerprint
    assert set(again.weights) == set(restore_network(plugins, again)[0].state_dict())
    assert torch.equal(answered(plugins, again)[0], answered(plugins, bundle)[0])


def test_what_a_defense_keeps_is_part_of_the_identity(plugins):
    bundle = trained(plugins, "towards")
    other = replace(bundle, defense_state={"towards": {"mean": bundle.defense_state["towards"]["mean"] + 1}})
    assert other.fingerprint != bundle.fingerprint


def test_without_a_share_kept_aside_it_is_fitted_on_the_training_data(plugins):
    facts = trained(plugins, "towards", config=toys.QUICK).card.metrics["defenses"]["towards"]
    assert (facts["samples"], facts["fresh"]) == (24, False)


def test_a_finished_target_is_defended(plugins, plain, tmp_path):
    bundle = defend(plugins, RUNTIME, plain, defenses=[use("half"), use("towards")], output=tmp_path / "d.safetensors")
    assert [item.name for item in bundle.card.defenses] == ["half", "towards"]
    assert Bundle.load(tmp_path / "d.safetensors").fingerprint == bundle.fingerprint
    before, after = answered(plugins, plain)[0], answered(plugins, bundle)[0]
    mean = bundle.defense_state["towards"]["mean"]
    assert torch.allclose(after, 0.5 * (0.5 * before) + 0.5 * mean)  # the later one was fitted behind the earlier
    assert mean.sum() == pytest.approx(0.5, abs=1e-5)
    assert bundle.card.metrics["holdout_score_change"] > 0
    assert bundle.card.training == plain.card.training


def test_the_same_samples_are_kept_aside_as_in_the_training(plugins):
    together = trained(plugins, "towards")
    later = defend(plugins, RUNTIME, trained(plugins), defenses=[use("towards")])
    facts = later.card.metrics["defenses"]["towards"]
    assert (facts["samples"], facts["fresh"]) == (8, True)
    assert torch.allclose(later.defense_state["towards"]["mean"], together.defense_state["towards"]["mean"])


def test_defenses_can_be_added_one_after_the_other(plugins, plain):
    once = defend(plugins, RUNTIME, plain, defenses=[use("towards"), use("half")])
    twice = defend(plugins, RUNTIME, defend(plugins, RUNTIME, plain, defenses=[use("towards")]), defenses=[use("half")])
    assert once.fingerprint == twice.fingerprint
    assert "towards" in twice.card.metrics["defenses"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no defense"),
        (["tail"], "'tail' acts on training: a finished target cannot be given it"),
        (["ramp"], "'ramp' acts on data and training"),
        (["towards", "rival"], "'towards' and 'rival' exclude each other: both replace the target's x"),
        (["towards", "towards"], "named twice"),
        (["alien"], "for modality other"),
    ],
)
def test_what_cannot_be_added_is_refused(plugins, plain, names, message):
    with pytest.raises(UsageError, match=message):
        defend(plugins, RUNTIME, plain, defenses=list(map(use, names)))


def test_one_that_the_target_has_already_is_refused(plugins, plain):
    bundle = defend(plugins, RUNTIME, plain, defenses=[use("towards")])
    with pytest.raises(UsageError, match="exclude each other"):
        defend(plugins, RUNTIME, bundle, defenses=[use("rival")])
    with pytest.raises(UsageError, match="named twice"):
        defend(plugins, RUNTIME, bundle, defenses=[use("towards")])


def test_data_of_other_classes_are_refused(plugins, plain):
    data = DataRequest.parse("grids", {**toys.SMALL, "n_classes": 3})
    with pytest.raises(ModelError, match="the target's 4 classes are not the 3"):
        defend(plugins, RUNTIME, plain, defenses=[use("half")], data=data)
    nameless = replace(plain, card=replace(plain.card, data={}))
    with pytest.raises(UsageError, match="names no data set"):
        defend(plugins, RUNTIME, nameless, defenses=[use("half")])


def test_the_api_and_the_command_defend(plugins, plain, tmp_path):
    plain.save(tmp_path / "plain.safetensors")
    bundle = api.defend(
        tmp_path / "plain.safetensors", defenses=["half:factor=0.25"], output=tmp_path / "d.safetensors",
        registry=plugins, device="cpu",
    )  # fmt: skip
    assert bundle.card.defenses == (PluginUse(name="half", config={"factor": 0.25}),)
    assert (tmp_path / "d.safetensors").exists()


def test_only_complete_epochs_are_kept(plugins):
    assert trained(plugins, "ramp").card.metrics["epoch"] == 2
    assert "epoch" not in trained(plugins, "ramp", config=toys.QUICK).card.metrics


def test_labelled_public_samples_count_their_classes_from_0(plugins):
    dataset = DataRequest.parse("grids", toys.SMALL).open(plugins)
    public = labelled_public(dataset)
    judging, names = dataset.judging()
    assert public is not None
    assert public.labels is not None
    assert sorted(set(public.labels.tolist())) == list(range(len(names) - len(dataset.classes)))
    first = int((judging.labels >= len(dataset.classes)).nonzero()[0])
    assert torch.equal(public.take([0]), judging.take([first]))


def test_watchers_see_what_is_asked_without_padding(plugins, plain):
    bundle = defend(plugins, RUNTIME, plain, defenses=[use("counter"), use("half")])
    defenses = answered(plugins, bundle)[1]
    assert defenses["counter"].findings() == {"seen": 6}
    assert list(defenses) == ["counter", "half"]
    guarded = open_guarded(
        plugins, bundle, access=Access.SCORES, ledger=Ledger(), runtime=RUNTIME, modality=load_modality(plugins, "toy")
    )
    target, defenses = guarded.target, guarded.defenses
    with target.ledger.owned_by(["a case"], padding=2, rows=3):
        target.scores(torch.rand(6, *bundle.card.input.shape))
    assert defenses["counter"].findings() == {"seen": 2}  # one of three rows, in each of two passes
