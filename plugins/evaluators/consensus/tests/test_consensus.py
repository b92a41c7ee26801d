"""Votes and their quorum, small changes against independent oracles, and noise that fools one judge of several."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy
import pytest
import torch
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from mi_evaluator_consensus.evaluator import ConsensusConfig, ConsensusEvaluator, Panel, puts_first
from mi_evaluator_consensus.probe import PROBE, SURE, fitted
from mi_evaluator_consensus.stability import blurred, noisy
from micore.contracts import Case, EvaluatorModel, Reconstruction, Reference, Subject
from micore.errors import DataError, ModelError
from micore.kit.measuring import Rows
from micore.runtime import Runtime

CPU = Runtime.create("cpu")
K = 4
PICTURES = SimpleNamespace(join=lambda parts: torch.cat(list(parts)), bounds=(0.0, 1.0))
WORDS = SimpleNamespace(join=lambda parts: [word for part in parts for word in part])


def model(module, name="net", fingerprint="0123456789abcdef", adapter=lambda samples: samples, notes=()):
    card = SimpleNamespace(model=SimpleNamespace(name=name))
    bundle = SimpleNamespace(fingerprint=fingerprint, card=card)
    return EvaluatorModel(bundle=bundle, module=module.eval().requires_grad_(False), adapter=adapter, notes=notes)


def subject(samples, labels, name="attack"):
    """Make one case for each label that occurs."""
    items = [
        Reconstruction(case=Case(id=f"class-{label}", goal="class", label=label),
                       samples=[samples[i] for i, own in enumerate(labels) if own == label]
                       if isinstance(samples, list) else samples[torch.tensor(labels) == label],
                       scores=torch.zeros(labels.count(label)))
        for label in sorted(set(labels))
    ]  # fmt: skip
    return Subject(name=name, reconstructions=items)


def measure(judges, *subjects, modality=PICTURES, **options):
    reference = Reference(modality=modality, dataset=None, target=None, evaluator_models=judges)
    evaluator = ConsensusEvaluator(ConsensusConfig(resamples=200, **options))
    return {(item.subject, item.name): item for item in evaluator.evaluate(subjects, reference, CPU)}


# votes ----------------------------------------------------------------------------------------------------


class Says(nn.Module):
    """A judge that reads one of the votes that are written into a sample: which class it puts first."""

    def __init__(self, place):
        super().__init__()
        self.place = place

    def forward(self, inputs):
        return functional.one_hot((inputs[:, self.place] * K).long(), K).float()


def voted(labels, *answers, names=("a", "b", "c"), **options):
    """Measure samples that the judges take for these classes."""
    samples = (torch.tensor(answers).T + 0.5) / K
    judges = [model(Says(place), name, f"{place}" * 16) for place, name in enumerate(names)]
    return measure(judges, subject(samples, labels), noise=0.0, probes=0, **options)


def test_figures_count_votes():
    found = voted([0, 0, 0, 0, 1, 1], [0, 0, 0, 2, 1, 0], [0, 0, 1, 0, 0, 0], [0, 2, 2, 0, 0, 0])
    value = {name: item.value for (_, name), item in found.items()}
    assert value["first-judge-accuracy"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert value["consensus-accuracy"] == pytest.approx((3 / 4 + 0) / 2)
    assert value["consensus-all"] == pytest.approx((1 / 4 + 0) / 2)
    assert value["false-positive-share"] == pytest.approx(2 / 4), "of four that the first accepts, whatever their class"
    assert found["attack", "consensus-accuracy"].evaluator == "consensus@000000-111111-222222"
    false = found["attack", "false-positive-share"]
    assert (false.n, false.clusters) == (4, 2)
    assert false.per_case == pytest.approx({"class-0": 1 / 3, "class-1": 1.0})
    assert false.interval.low <= 0.5 <= false.interval.high


def test_what_no_judge_accepts_has_no_false_positives_and_says_so():
    found = voted([0, 1], [2, 2], [0, 1], [0, 1])["attack", "false-positive-share"]
    assert math.isnan(found.value)
    assert found.interval is None
    assert (found.n, found.clusters) == (0, 0)
    assert found.notes[0] == "the first judge accepts no sample"


@pytest.mark.parametrize(
    ("names", "votes", "quorum", "expected"),
    [
        ("abc", [1, 1, 0], 2 / 3, True),
        ("abc", [1, 0, 0], 2 / 3, False),
        ("abc", [1, 1, 0], 1.0, False),
        ("abcd", [1, 1, 0, 0], 2 / 3, False),
        ("abcd", [1, 1, 1, 0], 2 / 3, True),
        ("aba", [1, 0, 1], 2 / 3, False),  # two of one architecture have one vote of two
        ("aba", [0, 1, 1], 2 / 3, True),
        ("aaa", [1, 1, 0], 2 / 3, True),
    ],
)
def test_a_quorum_is_of_votes_and_an_architecture_has_one(names, votes, quorum, expected):
    panel = Panel([model(nn.Identity(), name) for name in names], quorum)
    assert panel.agrees(torch.tensor(votes).bool()[:, None]).tolist() == [expected]


def test_ties_and_unreadable_samples_are_not_accepted():
    logits = torch.tensor([[2.0, 1.0], [1.0, 1.0], [0.0, 1.0], [torch.inf, 0.0], [2.0, torch.nan]])
    assert puts_first(logits, torch.zeros(5, dtype=torch.int64)).tolist() == [True, False, False, False, False]


def test_notes_name_the_judges_and_what_they_share():
    notes = voted([0], [0], [0], [0], names=("a", "b", "a"))["attack", "consensus-all"].notes
    assert notes == (
        "0.67 of the votes must accept; judges: a, b, a",
        "judges of one architecture (a) share one vote: they err alike",
    )
    notes = voted([0], [0], [0], [0], names=("a", "a", "a"))["attack", "consensus-all"].notes
    assert "all judges are of one architecture: what fools one may fool all" in notes


def test_fewer_than_three_judges_are_refused():
    with pytest.raises(ModelError, match="at least 3 evaluator models, not 2") as caught:
        measure([model(Says(0)), model(Says(0))], subject(torch.zeros(1, 1), [0]))
    assert caught.value.hint == "--judges 3"


def test_a_subject_without_samples_is_refused():
    with pytest.raises(DataError, match="no samples"):
        measure([model(Says(0))] * 3, Subject(name="attack", reconstructions=[]))


# small changes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deviation", [0.6, 1.0, 2.3])
def test_the_blur_is_that_of_scipy(deviation):
    pictures = torch.rand((2, 3, 12, 9), generator=torch.Generator().manual_seed(1))
    reach = {"mode": "nearest", "radius": math.ceil(3 * deviation)}
    planes = pictures.flatten(0, 1).double().numpy()
    wanted = numpy.stack([gaussian_filter(plane, deviation, **reach) for plane in planes])
    found = blurred(pictures, deviation).flatten(0, 1).double().numpy()
    numpy.testing.assert_allclose(found, wanted, atol=1e-5)
    assert blurred(pictures, 0.0) is pictures


def test_noise_has_its_deviation_stays_in_range_and_is_each_cases_own():
    both = Rows.of(subject(torch.full((40, 500), 0.5), [0] * 20 + [1] * 20))
    changed = noisy(both, 0.1, (-1.0, 2.0), CPU)
    assert float((changed - 0.5).std()) == pytest.approx(0.3, rel=0.03)
    assert float(noisy(both, 0.9, (0.0, 1.0), CPU).min()) == 0.0
    alone = noisy(Rows.of(subject(torch.full((20, 500), 0.5), [1] * 20)), 0.1, (-1.0, 2.0), CPU)
    assert torch.equal(changed[20:], alone)


class Brighter(nn.Module):
    """Class 1 where the mean of a sample lies beyond a half."""

    def forward(self, inputs):
        mean = inputs.flatten(1).mean(dim=1) - 0.5
        return torch.stack([-mean, mean], dim=1)


class Rough(nn.Module):
    """Class 1 where neighbouring pixels differ."""

    def forward(self, inputs):
        rough = (inputs[..., 1:] - inputs[..., :-1]).abs().flatten(1).mean(dim=1) - 0.3
        return torch.stack([-rough, rough], dim=1)


def three(module):
    return [model(module, name) for name in "abc"]


def test_what_noise_changes_is_not_stable():
    samples = torch.cat([torch.full((30, 1, 2, 2), 0.5001), torch.full((30, 1, 2, 2), 0.9)])
    found = measure(three(Brighter()), subject(samples, [1] * 60), probes=0, blur=0.0)
    assert found["attack", "consensus-accuracy"].value == 1.0
    assert 0.6 < found["attack", "stable-accuracy"].value < 0.95, "the faint half survives by chance"


def test_what_blur_changes_is_not_stable():
    checks = torch.tensor([[0.0, 1.0] * 4, [1.0, 0.0] * 4]).repeat(4, 1)[None, None]
    found = measure(three(Rough()), subject(checks, [1]), probes=0, noise=0.0)
    assert found["attack", "consensus-accuracy"].value == 1.0
    assert found["attack", "stable-accuracy"].value == 0.0
    flat = measure(three(Rough()), subject(checks[:, 0], [1]), probes=0, noise=0.0)
    assert flat["attack", "stable-accuracy"].value == 1.0, "only pictures are blurred"


class Longer(nn.Module):
    """Class 1 for words of more than three letters."""

    def forward(self, inputs):
        return torch.stack([3.5 - inputs, inputs - 3.5], dim=1)


def test_samples_that_are_no_tensors_have_no_stability_and_a_note_says_why():
    lengths = {"adapter": lambda words: torch.tensor([float(len(word)) for word in words])}
    judges = [model(Longer(), name, **lengths) for name in "abc"]
    found = measure(judges, subject(["long words", "no", "longest"], [1, 0, 0]), modality=WORDS)
    assert {name for _, name in found} == {
        "consensus-accuracy", "consensus-all", "first-judge-accuracy", "false-positive-share",
    }  # fmt: skip
    assert found["attack", "consensus-accuracy"].value == pytest.approx((1 + 1 / 2) / 2)
    assert {one for one, _ in found} == {"attack"}
    assert any("cannot be changed a little" in note for note in found["attack", "consensus-accuracy"].notes)


# noise that fools one judge -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    data = load_digits()
    samples = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    return samples, torch.tensor(data.target)


@pytest.fixture(scope="module")
def trained(digits):
    """Three networks of other kinds, each trained on the first thousand digits."""
    samples, labels = (part[:1000] for part in digits)
    with CPU.seeded("networks"):
        modules = {
            "convolutions": nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2),
                                          nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)),
            "layers": nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10)),
            "linear": nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
        }  # fmt: skip
        for module in modules.values():
            optimizer = torch.optim.Adam(module.parameters(), 5e-3)
            for _ in range(150):
                optimizer.zero_grad()
                functional.cross_entropy(module(samples), labels).backward()
                optimizer.step()
    return [model(module, name) for name, module in modules.items()]


def test_the_consensus_rejects_noise_that_the_first_judge_accepts(trained, digits):
    held_out, labels = digits[0][1000:1200], digits[1][1000:1200].tolist()
    found = measure(trained, subject(held_out, labels, "holdout"), probes=10, blur=0.5)
    assert found["holdout", "consensus-accuracy"].value > 0.85
    assert found["holdout", "false-positive-share"].value < 0.1
    noise = {name: item for (one, name), item in found.items() if one == PROBE}
    assert noise["first-judge-accuracy"].value > 0.95
    assert noise["consensus-accuracy"].value < 0.5
    assert noise["false-positive-share"].value > 0.5
    assert noise["stable-accuracy"].value <= noise["consensus-accuracy"].value
    assert (noise["consensus-accuracy"].n, noise["consensus-accuracy"].clusters) == (100, 10)


def test_noise_is_fitted_to_one_judge_within_the_range(trained):
    noise = fitted(trained[0], 3, (5, 1, 8, 8), (0.0, 1.0), 20, CPU)
    start = fitted(trained[0], 3, (5, 1, 8, 8), (0.0, 1.0), 0, CPU)
    assert float(noise.min()) >= 0.0
    assert float(noise.max()) <= 1.0
    assert float((noise - start).abs().max()) <= 20 * 0.02 + 1e-6
    assert not torch.equal(noise, start)
    assert not noise.requires_grad
    longer = fitted(trained[0], 3, (5, 1, 8, 8), (0.0, 1.0), 400, CPU)
    sure = trained[0].module(longer).softmax(dim=1)[:, 3]
    assert float(sure.min()) >= SURE
    assert float(sure.max()) < 0.9999, "a sample stands still once the judge is sure"


def test_without_probes_there_is_no_further_subject(trained, digits):
    found = measure(trained, subject(digits[0][:20], digits[1][:20].tolist()), probes=0)
    assert {one for one, _ in found} == {"attack"}
