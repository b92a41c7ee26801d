"""Checks of modalities: that samples are stored, fitted, shown and changed as they should."""

from __future__ import annotations

import json
import re
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from micore.artifacts import read_tensors, write_tensors
from micore.contracts import Dataset, Modality, ShowsBlurred
from micore.errors import MiError
from micore.runs.subjects import truths
from micore.testing.bench import Bench
from micore.testing.checks_plugin import PLUGIN_CHECKS
from micore.testing.counting import differences, global_streams, same, scrambled
from micore.testing.devices import pretend_accelerator
from micore.testing.lab import holdout_accuracy
from micore.testing.report import Check, require, skip
from micore.testing.setting import ToySetting, private_samples

SCHEMA = "micore.check-samples/1"
FOREIGN = re.compile(r"""(src|href)\s*=\s*["']?(https?:)?//|<script|@import|url\(\s*["']?https?:""", re.IGNORECASE)


PIECE = re.compile(r"base64,[\w+/=]+|<[^>]{40,}>|[\w.]{4,}(?=[^<>]*(?:<|$))")
"""What shows something in HTML: embedded data, elements with many values, and words of the text."""


class ModalityBench(Bench):
    """A modality under check."""

    @cached_property
    def modality(self) -> Modality:
        """The implementation."""
        modality: Modality = self.kind()
        return modality

    @cached_property
    def setting(self) -> ToySetting:
        """The toy problem that the modality offers."""
        return self.lab.setting(self.spec.name)

    def samples(self, n: int = 6) -> Any:
        """Return private samples of several classes."""
        split = self.setting.dataset.split("private")
        return split.take(torch.linspace(0, len(split) - 1, n).long())


def offers_a_toy_problem(bench: ModalityBench) -> str:
    """Without one, no attack, defense or evaluator of the modality can be checked."""
    require(getattr(bench.modality, "toy", None) is not None, "has no method toy()")
    facts = []
    for setting in bench.lab.settings(bench.spec.name):
        goal, module = setting.goals[0], bench.lab.module(setting)
        if setting.role != "classifier":
            facts.append(f"toy target of goal {goal!r}: {setting.role}")
            continue
        reached = holdout_accuracy(setting, bench.modality, module, bench.runtime())
        require(reached >= 0.9, f"the toy target of goal {goal!r} reaches an accuracy of {reached:.2f} only")
        facts.append(f"toy target of goal {goal!r}: accuracy {reached:.2f}")
    return "; ".join(facts)


def toy_judge_knows_the_truth(bench: ModalityBench) -> None:
    """The judge of attacks must tell private samples from public ones and noise."""
    for setting in bench.lab.settings(bench.spec.name):
        _judge_knows_the_truth(bench, setting)


def _judge_knows_the_truth(bench: ModalityBench, setting: ToySetting) -> None:
    public = setting.dataset.split("public")
    cases = bench.lab.cases(setting, setting.goals[0])
    noise = setting.noise(32, bench.runtime().rng("noise"))
    floor = max(abs(float(torch.stack([setting.judge(case, samples).mean() for case in cases]).mean()))
                for samples in (noise, public.take(range(len(public)))))  # fmt: skip
    truth = truths(cases, setting.dataset, bench.modality)
    for case in cases:
        own = float(setting.judge(case, private_samples(setting, case, truth)).mean())
        require(own > floor + 0.2, f"{case.id}: private samples are judged {own:.2f}, others {floor:.2f}")


def stored_samples_come_back(bench: ModalityBench) -> None:
    """A run is judged from what it stored."""
    samples = bench.samples()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "samples.safetensors"
        write_tensors(path, bench.modality.pack(samples), {"schema": SCHEMA})
        stored, _ = read_tensors(path, SCHEMA)
    again = bench.modality.unpack(stored)
    require(len(again) == len(samples), f"{len(samples)} samples came back as {len(again)}")
    equal = same(bench.modality.pack(again), bench.modality.pack(samples))
    require(equal and _same_samples(again, samples), "stored samples come back changed")


def _same_samples(one: Any, other: Any) -> bool:
    return same(one, other) if isinstance(one, Tensor) else list(one) == list(other)


def join_keeps_everything(bench: ModalityBench) -> None:
    """Batches of cases become one collection."""
    samples = bench.samples(6)
    joined = bench.modality.join([samples[:2], samples[2:3], samples[3:]])
    require(same(bench.modality.pack(joined), bench.modality.pack(samples)), "joined parts differ from the whole")


def adapter_is_differentiable(bench: ModalityBench) -> None:
    """White-box attacks follow gradients through the conversion to the model's input."""
    samples = bench.samples()
    if not isinstance(samples, Tensor) or not samples.is_floating_point():
        skip("samples are not continuous")
    leaf = samples.clone().requires_grad_(True)
    given = bench.modality.adapter(bench.setting.dataset.input)(leaf)
    shape = bench.setting.dataset.input.shape
    require(tuple(given.shape[1:]) == tuple(shape), f"gives inputs of shape {tuple(given.shape[1:])}, not {shape}")
    require(given.requires_grad, "the model's input carries no gradient")
    (gradient,) = torch.autograd.grad(given.sum(), leaf)
    require(bool(gradient.isfinite().all()) and bool((gradient != 0).any()), "no gradient reaches the samples")


def adapter_keeps_the_device(bench: ModalityBench) -> None:
    """A conversion that makes tensors on the CPU breaks the first run on a GPU."""
    samples = bench.samples()
    if not isinstance(samples, Tensor):
        skip("samples are not tensors")
    adapter = bench.modality.adapter(bench.setting.dataset.input)
    with pretend_accelerator() as device:
        runtime = bench.runtime(device=device)
        given = adapter(samples.to(device))
        require(given.device == device, f"samples on {device} become inputs on {given.device}")
        changed = bench.modality.augment(samples.to(device), "strong", runtime.rng("augment"))
        require(changed.device == device, f"samples on {device} are changed to {changed.device}")
        bench.modality.pack(samples.to(device))


def cases_are_named_once(bench: ModalityBench) -> None:
    """A case's id seeds its randomness and names its files."""
    for setting in bench.lab.settings(bench.spec.name):
        dataset, goal = setting.dataset, setting.goals[0]
        cases, again = (bench.modality.cases(goal, dataset, dataset.classes, None) for _ in range(2))
        ids = [case.id for case in cases]
        require(bool(ids) and len(set(ids)) == len(ids), f"case ids are missing or not unique: {ids}")
        require(ids == [case.id for case in again], "asked again, the cases have other ids")
        require(all(re.fullmatch(r"[\w.-]+", name) for name in ids), f"case ids are no file names: {ids}")


def choice_of_cases_is_parsed(bench: ModalityBench) -> None:
    """A user attacks some classes only; nonsense must be refused."""
    for setting in bench.lab.settings(bench.spec.name):
        _choice_is_parsed(bench, setting.dataset, setting.goals[0])


def _choice_is_parsed(bench: ModalityBench, dataset: Dataset, goal: str) -> None:
    cases = {case.id: case for case in bench.modality.cases(goal, dataset, dataset.classes, None)}
    if len(cases) > 1:
        chosen = bench.modality.cases(goal, dataset, dataset.classes, "1")
        require([case.id for case in chosen] == [list(cases)[1]], f"choice '1' gives {[case.id for case in chosen]}")
    for nonsense in ("no-such-case", "999999"):
        try:
            bench.modality.cases(goal, dataset, dataset.classes, nonsense)
        except MiError:
            continue
        require(False, f"choice {nonsense!r} is accepted")


def augmented_samples_stay_canonical(bench: ModalityBench) -> None:
    """Training must see samples of the range that it will be queried with."""
    samples = bench.samples()
    kept = bench.modality.pack(samples)
    for strength in ("none", "light", "medium", "strong"):
        changed = bench.modality.augment(samples, strength, bench.runtime().rng("augment"))
        problem = bench.setting.problem(changed)
        require(
            problem is None and len(changed) == len(samples),
            f"strength {strength}: {problem or 'other number'}",
        )
        equal = same(bench.modality.pack(changed), kept)
        require(
            equal == (strength == "none"),
            f"strength {strength} {'changes nothing' if equal else 'changes samples'}",
        )
    require(same(bench.modality.pack(samples), kept), "augmentation changes the given samples")


def augmentation_follows_its_stream(bench: ModalityBench) -> None:
    """A training is repeated from its seed."""
    samples, runtime = bench.samples(), bench.runtime()
    with scrambled(1):
        before = global_streams()
        one = bench.modality.pack(bench.modality.augment(samples, "strong", runtime.rng("a")))
        changed = differences(before, global_streams())
    again, other = (bench.modality.pack(bench.modality.augment(samples, "strong", runtime.rng(x))) for x in "ab")
    require(not changed, f"moved the global generator of {', '.join(changed)}")
    require(same(one, again), "the same stream changes samples differently")
    require(not same(one, other), "another stream changes samples in the same way")


def previews_are_written(bench: ModalityBench) -> None:
    """A person wants to see what was recovered."""
    with tempfile.TemporaryDirectory() as folder:
        paths = bench.modality.export({"one": bench.samples(2), "two": bench.samples(3)}, Path(folder))
        require(len(paths) >= 2, f"{len(paths)} previews of 2 cases")
        for path in paths:
            require(path.is_file() and path.stat().st_size > 0, f"{path.name} is not there or empty")
            require(Path(folder).resolve() in path.resolve().parents, f"{path} lies outside the directory")


def fragment_is_self_contained(bench: ModalityBench) -> None:
    """A report is one file: it must open without a network and run nothing."""
    fragment = bench.modality.show(bench.samples(), 2)
    require(bool(fragment.strip()), "show() gives nothing")
    found = FOREIGN.search(fragment)
    require(found is None, f"the HTML refers to something outside or runs code: {found and found.group(0)!r}")
    more = bench.modality.show(bench.samples(), 6)
    require(len(fragment) < len(more), "show() ignores its limit")


def blurred_view_holds_nothing_finer(bench: ModalityBench) -> None:
    """A page's style hides nothing from who has the page: what is blurred must not be in it."""
    if not isinstance(bench.modality, ShowsBlurred):
        skip("the modality cannot show samples blurred")
    samples = bench.samples()
    plain, blurred = bench.modality.show(samples, 2), bench.modality.show_blurred(samples, 2)
    require(bool(blurred.strip()), "show_blurred() gives nothing")
    found = FOREIGN.search(blurred)
    require(found is None, f"the HTML refers to something outside or runs code: {found and found.group(0)!r}")
    shared = PIECE.findall(blurred) and set(PIECE.findall(plain)) & set(PIECE.findall(blurred))
    require(not shared, f"the blurred HTML holds what the plain one shows: {min(shared or {''})[:40]!r}")


def overlap_finds_copies(bench: ModalityBench) -> None:
    """Public data that contain the private samples make every attack look good."""
    apart = bench.modality.overlap(bench.setting.dataset)
    leaking = bench.modality.overlap(_Leaking(bench.setting.dataset))
    json.dumps([dict(apart), dict(leaking)], allow_nan=False)
    require(dict(apart) != dict(leaking), "private samples among the public ones are not noticed")


class _Leaking:
    """A data set whose public split is the private one."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def split(self, name: str) -> Any:
        return self._dataset.split("private" if name == "public" else name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)


MODALITY_CHECKS: tuple[Check, ...] = (
    *PLUGIN_CHECKS,
    offers_a_toy_problem,
    toy_judge_knows_the_truth,
    stored_samples_come_back,
    join_keeps_everything,
    adapter_is_differentiable,
    adapter_keeps_the_device,
    cases_are_named_once,
    choice_of_cases_is_parsed,
    augmented_samples_stay_canonical,
    augmentation_follows_its_stream,
    previews_are_written,
    fragment_is_self_contained,
    blurred_view_holds_nothing_finer,
    overlap_finds_copies,
)
