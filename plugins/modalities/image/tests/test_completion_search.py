"""Completions as queries: cut-outs, votes on a class, seeds, a search that depends on no other case."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from mi_image.completion_search import (
    Answers,
    Ground,
    Refinement,
    ask,
    complete_unguided,
    confident_seeds,
    cut_outs,
    give_back,
    give_back_guesses,
    guesses,
    open_ground,
    probabilities,
    pseudo_labels,
)
from mi_image.corruptions import corrupt_case
from mi_image.inpainting_training import _networks
from mi_image.modality import ImageModality
from micore.contracts import Case, Reconstruction
from micore.errors import AccessDenied, BudgetExceeded, UsageError
from micore.inputs import InputSpec
from micore.kit.latent_objective import identity_of
from micore.kit.losses import cross_entropy
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Access, Budget, Ledger

CPU = Runtime(device=torch.device("cpu"), seed=1, tile=4)
ARGUMENTS = {"latent_dim": 3, "size": 16, "channels": 1, "width": 2, "critic_width": 2}
GREY = torch.tensor([0.25])


def case(number: int, kind: str = "centre") -> Case:
    image = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(number))
    name = f"image-{number}"
    return Case(id=name, goal="instance", evidence=corrupt_case(image, kind, name))


def ground(numbers: Sequence[int] = (0, 1, 2), kind: str = "centre") -> Ground:
    networks = _networks(ARGUMENTS, CPU).networks()
    state = {"arguments": ARGUMENTS, **{name: network.state_dict() for name, network in networks.items()}}
    return open_ground(state, [case(number, kind) for number in numbers], kind, CPU)


def target(access: Access = Access.WHITE_BOX, budget: Budget | None = None) -> Target:
    spec = InputSpec(shape=(1, 16, 16), mean=(0.5,), std=(0.5,))
    with CPU.seeded("linear"):
        module = nn.Sequential(nn.Flatten(), nn.Linear(256, 4))
        module[1].weight.data *= 10
    return Target(
        module, access=access, adapter=ImageModality().adapter(spec), input_spec=spec, classes=list("abcd"),
        ledger=Ledger(budget=budget or Budget()), runtime=CPU,
    )  # fmt: skip


# what the target says --------------------------------------------------------------------------------------


def test_cut_outs_equal_a_plain_loop() -> None:
    images = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))
    colour = torch.tensor([0.1, 0.2, 0.3])
    views = cut_outs(images, colour).unflatten(0, (16, 2))
    assert images.max() > 0.9  # the images themselves are not painted
    for cell in range(16):
        top, left = cell // 4 * 2, cell % 4 * 3
        wanted = images.clone()
        for channel in range(3):
            wanted[:, channel, top : top + 2, left : left + 3] = colour[channel]
        assert torch.equal(views[cell], wanted)


def answers(own: list[list[list[float]]], overall: list[list[list[float]]] | None = None) -> Answers:
    said = torch.tensor(own)
    asked = said.sum(dim=2) > 0
    return Answers(own=said, overall=said if overall is None else torch.tensor(overall), asked=asked)


def test_a_class_that_no_completion_was_assigned_to_is_passed_over() -> None:
    own = [[[0.5, 0.4, 0.1], [0.1, 0.4, 0.5]]]  # class 1 has the largest mean and never wins
    overall = [[[0.3, 0.6, 0.1], [0.0, 0.6, 0.4]]]
    item = answers(own, overall)
    assert guesses(item).tolist() == [1]
    assert pseudo_labels(item).tolist() == [2]  # mean 0.25 of class 2 against 0.15 of class 0


def test_a_completion_that_was_not_asked_about_does_not_vote() -> None:
    item = answers([[[0.1, 0.2, 0.7], [0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    assert pseudo_labels(item).tolist()[0] == 2
    assert not item.enough


def test_seeds_are_the_surest_of_the_label_and_then_spare_ones() -> None:
    item = answers([[[0.9, 0.1], [0.3, 0.7], [0.8, 0.2], [0.6, 0.4]]])
    latents = torch.arange(8.0).view(1, 4, 2)
    spare = -torch.arange(1.0, 13.0).view(1, 6, 2)
    labels = torch.tensor([0])
    assert torch.equal(confident_seeds(item, labels, latents, spare[:, :2]), latents[:, [0, 2]])
    seeds = confident_seeds(item, labels, latents, spare)  # six wanted, three are there
    assert torch.equal(seeds, torch.cat([latents[:, [0, 2, 3]], spare[:, 3:]], dim=1))


@pytest.mark.parametrize(("views", "each"), [(False, 1), (True, 17)])
def test_each_case_pays_for_its_completions_and_their_views(views: bool, each: int) -> None:
    place, asked = ground(), target(Access.SCORES)
    latents = place.latents(5, "latents")  # 15 rows in tiles of 4
    item = ask(
        place, latents, probabilities(asked, Access.SCORES), 4, asked.ledger,
        (lambda images: cut_outs(images, GREY)) if views else None,
    )  # fmt: skip
    assert item.enough
    assert {spent.queries for spent in asked.ledger.cases.values()} == {5 * each}
    assert asked.ledger.shared.queries == 0
    images = place.complete(latents.flatten(0, 1), place.pieces(5))
    own = target().scores(images)
    torch.testing.assert_close(item.own.flatten(0, 1), own)
    shown = torch.cat([images, cut_outs(images, GREY)]) if views else images
    mean = target().scores(shown).unflatten(0, (each, -1)).mean(dim=0)
    torch.testing.assert_close(item.overall.flatten(0, 1), mean)


def test_white_box_answers_are_those_of_the_scores() -> None:
    images = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    answered = probabilities(target(), Access.WHITE_BOX)(images)
    torch.testing.assert_close(answered, probabilities(target(Access.SCORES), Access.SCORES)(images))
    with pytest.raises(AccessDenied):
        probabilities(target(Access.SCORES), Access.WHITE_BOX)


def test_a_budget_that_ends_among_the_questions_leaves_the_best_answer() -> None:
    place, asked = ground(), target(budget=Budget(queries=9))
    latents = place.latents(5, "latents")
    item = ask(place, latents, probabilities(asked, Access.WHITE_BOX), 4, asked.ledger)
    assert item.asked.tolist() == [[True] * 5, [True, True, True, False, False], [False] * 5]
    labels = guesses(item)
    found: list[Reconstruction] = []
    with pytest.raises(BudgetExceeded, match="asked about completions"):
        found.extend(give_back_guesses(place, latents, item, labels))
    assert [one.case.id for one in found] == ["image-0", "image-1"]
    for row, one in enumerate(found):
        own = item.own[row, :, labels[row]]
        assert float(one.scores) == float(own[item.asked[row]].max())
        assert not one.complete
        assert one.samples.shape == (1, 1, 16, 16)


# the search --------------------------------------------------------------------------------------------------


def refined(
    place: Ground, asked: Target, steps: int = 6, keep: int | None = None, **options: float
) -> list[Reconstruction]:
    labels = torch.tensor([int(item.id.removeprefix("image-")) % 4 for item in place.cases])
    identity = identity_of(asked.module, cross_entropy) if asked.access == Access.WHITE_BOX else None
    search = Refinement(steps=steps, learning_rate=0.01, **options)
    rows, found = search.run(place, place.latents(2, "latents"), labels, identity, asked.ledger)
    assert steps == 0 or found.values.abs().max() <= search.box
    return list(give_back(place, rows, found, probabilities(asked, asked.access), asked.ledger, keep))


def test_the_search_raises_the_guessed_classes_probability_and_pays_per_case() -> None:
    asked = target()
    before = refined(ground(), target(), steps=0)
    after = refined(ground(), asked, steps=30)
    assert all(new.scores[0] > old.scores[0] for old, new in zip(before, after, strict=True))
    assert {(s.queries, s.gradients) for s in asked.ledger.cases.values()} == {(2 * 30 + 2, 2 * 30)}


def test_a_case_alone_is_recovered_as_among_others() -> None:
    together, alone = refined(ground((0, 1, 2)), target()), refined(ground((2,)), target())
    assert torch.equal(together[2].samples, alone[0].samples)
    assert torch.equal(together[2].scores, alone[0].scores)


def test_without_an_identity_only_the_last_look_is_paid() -> None:
    asked = target(Access.SCORES)
    (one,) = refined(ground((3,)), asked, keep=1)
    assert len(one.samples) == 1
    assert (asked.ledger.total.queries, asked.ledger.total.gradients) == (2, 0)


def test_what_is_visible_is_given_back_as_it_was() -> None:
    for one in refined(ground(), target()):
        evidence = one.case.evidence
        shown = (evidence.mask == 0).expand_as(evidence.image)
        assert all(torch.equal(sample[shown], evidence.image[shown]) for sample in one.samples)


def test_the_evidence_pulls_a_blurred_case_back() -> None:
    def distance(weight: float) -> float:
        from mi_image.corruptions import CORRUPTIONS

        found = refined(ground((0,), "blur"), target(), steps=40, identity_weight=0.0, evidence_weight=weight, box=3.0)
        soften = CORRUPTIONS["blur"].soften
        assert soften is not None
        return float((soften(found[0].samples) - found[0].case.evidence.image).abs().sum(dim=(1, 2, 3)).min())

    assert distance(1.0) < distance(0.0)


def test_the_control_has_its_own_random_numbers_and_asks_nothing() -> None:
    first, again = (list(complete_unguided(ground(), 2, 1.0)) for _ in range(2))
    assert [len(item.samples) for item in first] == [2, 2, 2]
    assert all(torch.equal(one.samples, other.samples) for one, other in zip(first, again, strict=True))
    (alone,) = complete_unguided(ground((2,)), 2, 1.0)
    assert torch.equal(alone.samples, first[2].samples)
    assert not torch.equal(first[0].latents, first[1].latents)


def test_evidence_of_another_kind_is_refused() -> None:
    state = {"arguments": ARGUMENTS, **{k: v.state_dict() for k, v in _networks(ARGUMENTS, CPU).networks().items()}}
    with pytest.raises(UsageError, match="prepared for evidence 'centre'"):
        open_ground(state, [case(0, "bottom")], "centre", CPU)
