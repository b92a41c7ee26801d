"""Checks of defenses: that they compose, leave a useful model, and answer with probabilities."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from micore.answers import HasTask, answer_of, is_classifier
from micore.artifacts import Bundle
from micore.contracts import Defense
from micore.defending import fit_defenses
from micore.errors import ModelError
from micore.inputs import InputSpec
from micore.kit.training import Trainer, TrainingBatch, accuracy, placed
from micore.runtime import Runtime
from micore.testing.bench import Bench
from micore.testing.checks_plugin import CONFIG_CHECKS, PLUGIN_CHECKS
from micore.testing.counting import differences, global_streams, same, scrambled
from micore.testing.devices import pretend_accelerator
from micore.testing.lab import train_setting
from micore.testing.report import Check, require, skip
from micore.testing.setting import ToySetting
from micore.utility import NEIGHBOURS, answers, mean_loss, neighbour_overlap

STAGE_HOOKS = {
    "data": ("adapt_data", "adapt_inputs"),
    "training": ("adapt_model", "adapt_training", "begin", "training_loss"),
    "inference": ("adapt_output",),
    "monitoring": ("observe",),
}


class DefenseBench(Bench):
    """A defense under check."""

    @cached_property
    def setting(self) -> ToySetting:
        """The toy problem; the target is of the judge's architecture where its own lacks what the defense changes."""
        setting = super().setting
        try:
            with self.runtime().seeded("fits"):
                module = setting.build(len(setting.dataset.classes), setting.dataset.input, **setting.model.config)
                self.defense().adapt_model(module)
        except ModelError:
            return replace(setting, model=setting.judge_model, build=setting.judge_build)
        return setting

    def defense(self) -> Any:
        """Return a fresh defense."""
        return self.kind(self.config)

    def fitted(self) -> Any:
        """Return a defense that was fitted to the undefended target."""
        defense, setting, runtime = self.defense(), self.setting, self.runtime()
        fit_defenses(
            [defense], self.plain, adapter=self.modality.adapter(self.input),
            reference=setting.dataset.split("private"), fresh=False, dataset=setting.dataset, runtime=runtime,
        )  # fmt: skip
        return defense

    def train(self, *defenses: Any, runtime: Runtime | None = None, **changes: Any) -> tuple[Trainer, Bundle]:
        """Train the toy target with these defenses."""
        return train_setting(self.setting, self.modality, runtime or self.runtime(), "classifier", defenses, **changes)

    @cached_property
    def stream_changes(self) -> list[str]:
        """Which global generators a whole training moves; the plain target is trained before."""
        _ = self.plain
        with scrambled(1):
            before = global_streams()
            _ = self.trained
            return differences(before, global_streams())

    @cached_property
    def trained(self) -> Trainer:
        """The toy target, trained with the defense."""
        return self.train(self.defense())[0]

    @cached_property
    def plain(self) -> nn.Module:
        """The undefended target."""
        return self.lab.module(self.setting)

    def batch(self, module: nn.Module, device: torch.device | None = None) -> TrainingBatch:
        """Return the first private samples as a training step sees them, late in the training."""
        split, place = self.setting.dataset.split("private"), device or torch.device("cpu")
        rows = torch.arange(0, len(split), max(1, len(split) // 16))
        labels = split.labels if split.labels is not None else torch.zeros(len(split), dtype=torch.int64)
        inputs = self.modality.adapter(self.input)(self.placed(split.take(rows), place)).to(place)
        return TrainingBatch(module, inputs, labels[rows].to(place), epoch=9, epochs=10)

    @cached_property
    def input(self) -> InputSpec:
        """What the toy target takes."""
        return self.lab.bundle(self.setting).card.input

    def placed(self, samples: Any, device: torch.device) -> Any:
        """Return samples on a device, if they are somewhere at all."""
        return placed(samples, self.runtime(device=device))

    def answers(self) -> tuple[Tensor, Any]:
        """Return a plain target's scores of held-out samples, and the samples."""
        split = self.setting.dataset.split("holdout")
        samples = split.take(range(len(split)))
        with torch.no_grad():
            return answer_of(self.plain.eval(), self.modality.adapter(self.input)(samples)), samples


def stages_match_the_hooks(bench: DefenseBench) -> None:
    """Reports say where a defense acts; it must act there and nowhere else."""
    for stage, hooks in STAGE_HOOKS.items():
        acts = [hook for hook in hooks if getattr(bench.kind, hook, None) not in (None, getattr(Defense, hook))]
        declared = stage in bench.spec.stages
        require(declared or not acts, f"acts in {', '.join(acts)}, but does not declare stage {stage!r}")
        require(bool(acts) or not declared, f"declares stage {stage!r}, but has none of {', '.join(hooks)}")


def composes_with_others(bench: DefenseBench) -> None:
    """Several defenses compose: one that changes nothing must change nothing."""
    alone, between = (
        self_.module.state_dict()
        for self_, _ in (
            bench.train(bench.defense(), epochs=2),
            bench.train(Defense(None), bench.defense(), Defense(None), epochs=2),
        )
    )
    require(same(dict(alone), dict(between)), "trains another model between two defenses that change nothing")


def training_loss_gives_gradients(bench: DefenseBench) -> None:
    """A loss without finite gradients trains nothing."""
    with bench.runtime().seeded("loss"):
        module = bench.setting.build(len(bench.setting.dataset.classes), bench.setting.dataset.input)
        module = bench.defense().adapt_model(module).train()
        batch = bench.batch(module)
        loss = bench.defense().training_loss(module, batch, lambda: _task_loss(module, batch))
        require(loss.ndim == 0 and bool(torch.isfinite(loss)), f"the training loss is {loss!r}")
        require(loss.requires_grad, "the training loss has no gradient")
        loss.backward()
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    finite = all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
    require(
        finite and any(bool(gradient.any()) for gradient in gradients),
        "no finite gradient reaches a parameter",
    )


def _task_loss(module: nn.Module, batch: TrainingBatch) -> Tensor:
    if isinstance(module, HasTask):
        return module.task_loss(batch.inputs, batch.labels).mean()
    return functional.cross_entropy(batch.logits, batch.labels)


def model_stays_useful(bench: DefenseBench) -> str:
    """A defense that destroys the model protects nothing that anyone wants."""
    if isinstance(bench.plain, HasTask):
        return _loss_stays_low(bench)
    if not is_classifier(bench.plain):
        return _neighbours_stay(bench)
    setting, split = bench.setting, bench.setting.dataset.split("holdout")
    chance = 1 / len(setting.dataset.classes)
    labels = split.labels if split.labels is not None else torch.zeros(0)
    adapter = bench.modality.adapter(setting.dataset.input)
    plain, defended = (
        accuracy(answers(module, adapter, split, bench.runtime(), guards), labels)
        for module, guards in ((bench.plain, ()), (bench.trained.module, [bench.fitted()]))
    )
    facts = f"accuracy {defended:.2f}, undefended {plain:.2f}, chance {chance:.2f}"
    require(defended >= (chance + plain) / 2, facts)
    return facts


def _loss_stays_low(bench: DefenseBench) -> str:
    """Compare what a network of another task has learned with what the undefended one has."""
    setting, adapter = bench.setting, bench.modality.adapter(bench.input)
    with bench.runtime().seeded("untrained"):
        fresh = setting.build(len(setting.dataset.classes), setting.dataset.input, **setting.model.config)
    part = setting.dataset.split("private")
    plain, defended, untrained = (
        mean_loss(module, adapter, part, bench.runtime()) for module in (bench.plain, bench.trained.module, fresh)
    )
    facts = f"loss {defended:.2f}, undefended {plain:.2f}, untrained {untrained:.2f}"
    require(defended <= (plain + untrained) / 2, facts)
    return facts


def _neighbours_stay(bench: DefenseBench) -> str:
    """Compare whom embeddings find with whom they found."""
    raw, samples = bench.answers()
    share = neighbour_overlap(raw, bench.fitted().adapt_output(raw.clone(), samples))
    facts = f"{share:.2f} of the nearest neighbours are kept, {NEIGHBOURS / (len(raw) - 1):.2f} by chance"
    require(share >= (1 + NEIGHBOURS / (len(raw) - 1)) / 2, facts)
    return facts


def data_are_kept(bench: DefenseBench) -> None:
    """A changed split must still be one, and the original must stay as it is."""
    split = bench.setting.dataset.split("private")
    before = bench.modality.pack(split.take(range(len(split))))
    changed = bench.defense().adapt_data(split)
    require(len(changed) >= 1 and changed.labels is not None, "the changed training data are empty or unlabelled")
    labels = changed.labels
    require(labels is not None and len(labels) == len(changed), "the changed training data have other labels")
    problem = bench.setting.problem(changed.take(range(len(changed))))
    require(problem is None, f"changed training data: {problem}")
    after = bench.modality.pack(split.take(range(len(split))))
    require(same(before, after), "the original training data were changed in place")


def answers_are_probabilities(bench: DefenseBench) -> None:
    """Adversaries and users read the scores as probabilities, of all roles but an encoder."""
    scores, samples = bench.answers()
    kept = scores.clone()
    given = bench.fitted().adapt_output(scores, samples)
    require(tuple(given.shape) == tuple(kept.shape), f"scores {tuple(kept.shape)} became {tuple(given.shape)}")
    require(bool(torch.isfinite(given).all()), "scores are not finite")
    require(same(scores, kept), "the given scores were changed in place")
    if bench.setting.role == "encoder":
        return
    require(bool((given >= 0).all()), "scores are negative")
    worst = float((given.sum(dim=1) - 1).abs().max())
    require(worst < 1e-4, f"scores of one sample add up to {1 + worst:.4f} or {1 - worst:.4f}")


def answer_depends_on_the_sample_only(bench: DefenseBench) -> None:
    """An answer that depends on the other samples makes results depend on the batch."""
    scores, samples = bench.answers()
    defense = bench.fitted()
    together = defense.adapt_output(scores.clone(), samples)
    alone = defense.adapt_output(scores[1:2].clone(), samples[1:2])
    require(torch.allclose(together[1:2], alone, atol=1e-5), "a sample gets another answer when it is asked alone")


def state_is_all_there_is(bench: DefenseBench) -> None:
    """A bundle keeps what `state` gives: a defense that is loaded must answer as the one that was fitted."""
    fitted, loaded = bench.fitted(), bench.defense()
    state = {name: tensor.clone() for name, tensor in fitted.state().items()}
    require(not [name for name in state if "/" in name], "names in `state` must have no slash")
    loaded.load_state(state)
    scores, samples = bench.answers()
    given, again = (defense.adapt_output(scores.clone(), samples) for defense in (fitted, loaded))
    require(torch.equal(given, again), "a defense that took back its state answers differently")
    json.dumps(dict(fitted.facts()))  # cards are JSON


def weights_fit_a_rebuilt_model(bench: DefenseBench) -> None:
    """A bundle holds weights only: the structure is built again by the defense."""
    setting, inputs = bench.setting, bench.batch(bench.plain).inputs
    modules = []
    for seed in (0, 1):
        with bench.runtime(seed).seeded("rebuild"):
            module = setting.build(len(setting.dataset.classes), setting.dataset.input, **setting.model.config)
            modules.append(bench.defense().adapt_model(module).eval())
    try:
        modules[1].load_state_dict(modules[0].state_dict())
    except RuntimeError as error:
        require(False, f"the weights do not fit: {str(error).splitlines()[0]}")
    with torch.no_grad():
        equal = torch.equal(modules[0](inputs), modules[1](inputs))
    require(equal, "a model rebuilt from its weights answers differently: something is not in the state_dict")


def global_generators_are_untouched(bench: DefenseBench) -> None:
    """Drawing from a global generator changes what everything after it draws."""
    require(not bench.stream_changes, f"training moved the global generator of {', '.join(bench.stream_changes)}")


def devices_are_not_mixed(bench: DefenseBench) -> None:
    """A tensor left on the CPU never shows there and always breaks the first run on a GPU."""
    scores, samples = bench.answers()
    with pretend_accelerator() as device:
        bench.train(bench.defense(), runtime=bench.runtime(device=device), epochs=2)
        defense = bench.fitted()
        defense.load_state(dict(defense.state()))
        defense.adapt_output(scores.to(device), bench.placed(samples, device))


def inference_is_switched_on(bench: DefenseBench) -> None:
    """An inference-time defense that changes no answer is not there."""
    if "inference" not in bench.spec.stages:
        skip("not an inference-time defense")
    scores, samples = bench.answers()
    given = bench.fitted().adapt_output(scores.clone(), samples)
    require(not torch.equal(given, scores), "the scores are those of the undefended model")


def watching_changes_nothing(bench: DefenseBench) -> None:
    """A monitor sees every answer; what it tells must be JSON, and must have been seen."""
    if "monitoring" not in bench.spec.stages:
        skip("not a monitor")
    defense, (scores, samples) = bench.fitted(), bench.answers()
    kept = scores.clone()
    defense.observe(scores, samples)
    require(same(scores, kept), "the scores were changed in place")
    require(bool(defense.findings()), "it has no findings after queries were asked")
    json.dumps(dict(defense.findings()))


DEFENSE_CHECKS: tuple[Check, ...] = (
    *PLUGIN_CHECKS,
    *CONFIG_CHECKS,
    stages_match_the_hooks,
    global_generators_are_untouched,
    composes_with_others,
    training_loss_gives_gradients,
    model_stays_useful,
    data_are_kept,
    answers_are_probabilities,
    answer_depends_on_the_sample_only,
    inference_is_switched_on,
    state_is_all_there_is,
    watching_changes_nothing,
    weights_fit_a_rebuilt_model,
    devices_are_not_mixed,
)
