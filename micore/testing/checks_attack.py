"""Checks of attacks: what they give back, and that nothing but case and seed decides it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from micore.artifacts import load_state, save_state, write_tensors
from micore.contracts import Case, HasControl, HasGenerator, HasPrior, Prepared, Reconstruction
from micore.runs.subjects import modality_floors, truths
from micore.runtime import Checkpoints, Runtime
from micore.testing.attack_bench import AttackBench, Outcome
from micore.testing.checks_plugin import CONFIG_CHECKS, PLUGIN_CHECKS, PRESET_CHECKS
from micore.testing.checks_threat import THREAT_CHECKS
from micore.testing.counting import same
from micore.testing.devices import pretend_accelerator
from micore.testing.pace import slowness
from micore.testing.report import Check, require, skip
from micore.testing.setting import held_out_samples

SMOKE_SECONDS = 5.0
CONTROL_SEEDS = 8
CONTROL_SHARE = 0.3
"""Part of the way from floor to ceiling that an attack's own control may reach by chance, over all seeds."""


def outputs_are_valid(bench: AttackBench) -> None:
    """Samples outside the canonical range, or without a score, cannot be judged or shown."""
    for item in bench.reference.found:
        where = item.case.id
        problem = bench.setting.problem(item.samples)
        require(problem is None, f"{where}: {problem}")
        n = len(item.samples)
        require(
            n >= 1 and tuple(item.scores.shape) == (n,),
            f"{where}: {n} samples, scores {tuple(item.scores.shape)}",
        )
        require(bool(torch.isfinite(item.scores).all()), f"{where}: scores are not finite")
        require(item.latents is None or len(item.latents) == n, f"{where}: latents do not fit the samples")


def one_reconstruction_per_case(bench: AttackBench) -> None:
    """A case that is missing or given twice cannot be accounted for."""
    found = [item.case.id for item in bench.run(bench.cases, prepared=bench.reference.prepared).found]
    wanted = [case.id for case in bench.cases]
    require(sorted(found) == sorted(wanted), f"reconstructions of {sorted(found)} for cases {sorted(wanted)}")


def best_sample_comes_first(bench: AttackBench) -> None:
    """Evaluators and previews take the first sample for the attack's choice."""
    for item in bench.reference.found:
        falls = bool((item.scores[:-1] >= item.scores[1:]).all())
        require(falls, f"{item.case.id}: scores do not fall: {item.scores.tolist()}")


def samples_are_detached(bench: AttackBench) -> None:
    """A sample that carries its graph keeps the whole search in memory."""
    for item in bench.reference.found:
        for name, value in (("samples", item.samples), ("scores", item.scores), ("latents", item.latents)):
            require(not getattr(value, "requires_grad", False), f"{item.case.id}: {name} require gradients")


def same_seed_same_result(bench: AttackBench) -> None:
    """A figure that cannot be repeated proves nothing; global generators are anybody's."""
    again = bench.run(bench.cases, streams=2)
    _require_same(bench, bench.reference, again, bench.cases, "with other global generators")


def another_seed_another_result(bench: AttackBench) -> None:
    """If the seed changes nothing, repeated runs measure no spread."""
    if not bench.reference.draws:
        skip("the attack draws no random numbers")
    other = bench.run(bench.cases, seed=1)
    require(
        not same(bench.content(bench.reference), bench.content(other)),
        "seeds 0 and 1 give the same reconstructions",
    )


def global_generators_are_untouched(bench: AttackBench) -> None:
    """Drawing from a global generator changes what everything after it draws."""
    changed = bench.reference.stream_changes
    require(not changed, f"the run moved the global generator of {', '.join(changed)}")


def case_alone_equals_case_among_others(bench: AttackBench) -> None:
    """A resumed or distributed run sees other batches, and must find the same."""
    for case in (bench.cases[0], bench.cases[-1]):
        alone = bench.run([case], prepared=bench.reference.prepared)
        _require_same(bench, bench.reference, alone, [case], "alone")


def order_of_cases_does_not_matter(bench: AttackBench) -> None:
    """Ranks take every n-th case, so a case stands elsewhere in each of them."""
    turned = bench.run(bench.cases[::-1], prepared=bench.reference.prepared)
    _require_same(bench, bench.reference, turned, bench.cases, "in the opposite order")


def any_batch_size_works(bench: AttackBench) -> None:
    """The last batch is rarely full: one case, and a number that divides nothing."""
    for cases, tile in ((bench.cases[:1], 1), (bench.cases[:3], 2), (bench.cases[:3], 64)):
        found = bench.run(cases, prepared=bench.reference.prepared, tile=tile).by_case()
        missing = {case.id for case in cases} - found.keys()
        require(not missing, f"{len(cases)} cases with tile {tile}: nothing for {', '.join(sorted(missing))}")


def prepared_attack_can_be_stored(bench: AttackBench) -> None:
    """The next run takes the prepared attack from a file, and must find the same."""
    prepared = bench.reference.prepared
    if prepared is None:
        skip("the attack prepares nothing")
    with tempfile.TemporaryDirectory() as folder:
        save_state(Path(folder) / "prepared.safetensors", dict(prepared.state))
        stored, _ = load_state(Path(folder) / "prepared.safetensors")
    case = bench.cases[:1]
    again = bench.run(case, prepared=Prepared(state=stored))
    _require_same(bench, bench.reference, again, case, "from a stored preparation")


def prepared_attack_is_left_unchanged(bench: AttackBench) -> None:
    """All batches share what was prepared; a run that changes it makes results depend on order."""
    prepared = bench.reference.prepared
    if prepared is None:
        skip("the attack prepares nothing")
    used = bench.run(bench.cases[:2], prepared=prepared).prepared
    require(used is not None and same(dict(used.state), dict(prepared.state)), "the run changed what was prepared")


class _KilledError(BaseException):
    """Stands for a kill; no attack catches it by mistake."""


class _Killing(Checkpoints):
    """Saves every state, and kills the work at one of them."""

    def __init__(self, path: Path, last: int) -> None:
        super().__init__(path, interval_s=0.0)
        self._left = last

    def offer(self, state: Callable[[], Mapping[str, Any]]) -> None:
        super().offer(state)
        self._left -= 1
        if self._left == 0:
            raise _KilledError


def interrupted_preparation_resumes(bench: AttackBench) -> str | None:
    """Preparing may take hours; a killed preparation must go on and end the same."""
    offers, reference = bench.reference.offers, bench.reference.prepared
    if not offers or reference is None:
        skip("the preparation offers no checkpoints")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.safetensors"
        with contextlib.suppress(_KilledError):
            bench.run([], checkpoints=_Killing(path, (offers + 1) // 2))
        require(path.exists(), "nothing was saved when the preparation was killed")
        prepared = bench.run([], checkpoints=Checkpoints(path, interval_s=1e9)).prepared
    equal = prepared is not None and same(dict(prepared.state), dict(reference.state))
    require(equal, "a preparation that was killed and resumed differs from an uninterrupted one")
    return f"killed at checkpoint {(offers + 1) // 2} of {offers}"


def devices_are_not_mixed(bench: AttackBench) -> None:
    """A tensor left on the CPU never shows there and always breaks the first run on a GPU."""
    cases = bench.cases[:2]
    bench.lab.bundle(bench.setting)  # trained outside, on the CPU
    with pretend_accelerator() as device, tempfile.TemporaryDirectory() as folder:
        outcome = bench.run(cases, device=device)
        for item in [*outcome.found, *_unguided(bench, cases, outcome.prepared, bench.runtime(device=device))]:
            stored = {**bench.modality.pack(item.samples), "scores": item.scores}
            write_tensors(Path(folder) / "case.safetensors", {k: v.cpu() for k, v in stored.items()}, {"schema": "toy"})


def prior_samples_are_valid(bench: AttackBench) -> None:
    """The prior's own samples are the run's negative control."""
    attack, prepared = bench.attack(), bench.reference.prepared
    if not isinstance(attack, HasPrior) or prepared is None:
        skip("the attack offers no prior")
    runtime = bench.runtime()
    prior = attack.prior(prepared, runtime)
    one, again = (prior.sample(5, runtime.rng("prior")) for _ in range(2))
    problem = bench.setting.problem(one)
    require(problem is None, f"prior: {problem}")
    require(len(one) == 5, f"asked for 5 samples, the prior gave {len(one)}")
    require(same(bench.modality.pack(one), bench.modality.pack(again)), "the same stream gives other samples")


def generator_renders_the_latents(bench: AttackBench) -> None:
    """A wrapper tunes the generator around the reconstructions, so their latents must be its own."""
    attack, prepared = bench.attack(), bench.reference.prepared
    if not isinstance(attack, HasGenerator) or prepared is None:
        skip("the attack offers no generator")
    runtime = bench.runtime()
    network = attack.generator(prepared, runtime)
    again = attack.generator(attack.with_generator(prepared, network.state_dict()), runtime)
    for item in bench.reference.found:
        require(item.latents is not None, f"{item.case.id}: no latents")
        labels = torch.full((len(item.scores),), item.case.label or 0)
        for which, module in (("the generator", network), ("the generator with its own weights", again)):
            with torch.no_grad():
                samples = module(item.latents, labels)
            close = torch.allclose(samples, item.samples, rtol=0, atol=1e-3)
            require(close, f"{item.case.id}: {which} makes other samples of these latents")


def control_recovers_nothing(bench: AttackBench) -> str:
    """What the attack gives unguided is its floor: as many samples, of each case by itself, and nothing private."""
    prepared = bench.reference.prepared
    if not isinstance(bench.attack(), HasControl):
        skip("the attack offers no control")
    found = _unguided(bench, bench.cases, prepared, bench.runtime())
    ours, wanted = ({item.case.id: len(item.samples) for item in items} for items in (found, bench.reference.found))
    require(ours == wanted, f"the control gives samples {ours}, the attack {wanted}")
    for item in found:
        problem = bench.setting.problem(item.samples)
        require(problem is None, f"control of {item.case.id}: {problem}")
        require(tuple(item.scores.shape) == (len(item.samples),), f"control of {item.case.id}: scores do not fit")
    (alone,) = _unguided(bench, bench.cases[-1:], prepared, bench.runtime())
    last = next(item for item in found if item.case.id == alone.case.id)
    equal = same(bench.modality.pack(alone.samples), bench.modality.pack(last.samples))
    require(equal, f"another control of {alone.case.id} alone")
    return _judge_control(bench, prepared)


def _judge_control(bench: AttackBench, prepared: Prepared | None) -> str:
    many = [_unguided(bench, bench.cases, prepared, bench.runtime(seed)) for seed in range(CONTROL_SEEDS)]
    reached, floor, ceiling = _judged(bench, [item for found in many for item in found]), _floor(bench), _ceiling(bench)
    facts = f"the control recovers {reached:.3f}; no attack {floor:.3f}, held-out private samples {ceiling:.3f}"
    require(reached < floor + CONTROL_SHARE * (ceiling - floor), facts)
    return facts


def _unguided(
    bench: AttackBench, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
) -> list[Reconstruction]:
    attack = bench.attack()
    return list(attack.control(cases, prepared, runtime)) if isinstance(attack, HasControl) else []


def beats_the_baseline(bench: AttackBench) -> str:
    """An attack must recover more than the adversary had before; a control must not.

    One that says of itself that its evidence gives as much without a target must beat noise.
    """
    control = getattr(bench.spec, "control", False)
    outcomes = [bench.reference]
    if control:
        prepared = bench.reference.prepared
        seeds = range(1, CONTROL_SEEDS)
        outcomes += [bench.run(bench.cases, seed=seed, prepared=prepared) for seed in seeds]
    reached = _judged(bench, [item for outcome in outcomes for item in outcome.found])
    floor, ceiling = _floor(bench), _ceiling(bench)
    bar = floor + bench.setting.margin * (ceiling - floor)
    facts = f"recovered {reached:.3f}; no attack {floor:.3f}, held-out private samples {ceiling:.3f}"
    if control:
        require(reached < bar, f"a negative control recovers something: {facts}")
    else:
        require(reached > bar, f"does not beat having no attack: {facts}")
    return facts


def _judged(bench: AttackBench, found: Sequence[Reconstruction]) -> float:
    values = [bench.setting.judge(item.case, item.samples).mean() for item in found]
    return float(torch.stack(values).double().mean())


def _floor(bench: AttackBench) -> float:
    """Judge what the adversary has without an attack: public samples or noise, and the modality's own floors."""
    dataset = bench.setting.dataset
    data = dataset.split("public") if "public" in bench.spec.needs else None
    noise = bench.setting.noise(64, bench.runtime().rng("floor"))
    samples = data.take(range(len(data))) if data is not None else noise
    plain = torch.stack([bench.setting.judge(case, samples).mean() for case in bench.cases]).double().mean()
    if getattr(bench.spec, "below_floors", False):
        return float(plain)
    further = modality_floors(bench.modality, bench.cases, dataset).values()
    return max([float(plain), *(_judged(bench, items) for items in further)])


def _ceiling(bench: AttackBench) -> float:
    truth = truths(bench.cases, bench.setting.dataset, bench.modality)
    values = [bench.setting.judge(case, held_out_samples(bench.setting, case, truth)).mean() for case in bench.cases]
    return float(torch.stack(values).double().mean())


def smoke_is_quick(bench: AttackBench) -> str:
    """The smoke preset is what people try first and what every test runs; a slow or busy machine is given more time."""
    seconds = bench.reference.seconds
    bound = SMOKE_SECONDS if seconds < SMOKE_SECONDS else SMOKE_SECONDS * slowness()
    require(seconds < bound, f"the smoke preset took {seconds:.1f} s, more than {bound:.1f} s")
    return f"{seconds:.2f} s"


def _require_same(bench: AttackBench, one: Outcome, other: Outcome, cases: Sequence[Case], circumstance: str) -> None:
    ours, theirs = bench.content(one), bench.content(other)
    different = [case.id for case in cases if case.id not in theirs or not same(ours[case.id], theirs[case.id])]
    require(not different, f"another result {circumstance}: {', '.join(different)}")


ATTACK_CHECKS: tuple[Check, ...] = (
    *PLUGIN_CHECKS,
    *CONFIG_CHECKS,
    *PRESET_CHECKS,
    outputs_are_valid,
    one_reconstruction_per_case,
    best_sample_comes_first,
    samples_are_detached,
    same_seed_same_result,
    another_seed_another_result,
    global_generators_are_untouched,
    case_alone_equals_case_among_others,
    order_of_cases_does_not_matter,
    any_batch_size_works,
    prepared_attack_can_be_stored,
    prepared_attack_is_left_unchanged,
    interrupted_preparation_resumes,
    prior_samples_are_valid,
    generator_renders_the_latents,
    control_recovers_nothing,
    *THREAT_CHECKS,
    devices_are_not_mixed,
    beats_the_baseline,
    smoke_is_quick,
)
