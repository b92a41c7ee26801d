"""The stages: where each begins, what it may change, and which one is reported."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from mi_attack_if_gmi.selection import StageResult, best_stage
from mi_attack_if_gmi.stages import Stage, next_stage, style_stage
from mi_image.bank import BankSettings, CandidateBank
from mi_image.stylegan2 import StyleGan2Generator
from mi_image.stylegan_attacks import StyleGround
from mi_image.stylegan_prior import StyleGanPrior
from micore.kit.search import Found, RowStatus
from micore.runtime import Random, Runtime

CPU = Runtime(device=torch.device("cpu"), tile=2)
STYLES = Random(1).normal((3, 8))


@pytest.fixture(scope="module")
def ground() -> StyleGround:
    with CPU.seeded("stages"):
        generator = StyleGan2Generator(latent_dim=8, size=16, channels=1, w_dim=8, channel_base=64, channel_max=8)
    nothing = CandidateBank(styles=torch.empty(0), scores=torch.empty(0))
    return StyleGround(
        generator=StyleGanPrior(generator), bank=nothing, settings=BankSettings(size=1), centre=0.75
    )  # fmt: skip


def walk(ground: StyleGround, *, carry_image: bool = True) -> list[Stage]:
    stages = [style_stage(ground, STYLES)]
    for _ in range(2):
        stages.append(next_stage(stages[-1], stages[-1].starts, CPU, carry_image=carry_image))
    return stages


def test_every_stage_begins_at_the_picture_where_the_one_before_ended(ground: StyleGround) -> None:
    wanted = ground.render(STYLES)
    assert wanted.shape == (3, 1, 12, 12)
    for stage in walk(ground):
        torch.testing.assert_close(stage.render(stage.starts, stage.pictures), wanted, rtol=0, atol=1e-5)


def test_rows_hold_code_and_features(ground: StyleGround) -> None:
    first, second, third = walk(ground)
    assert first.features(first.starts) is None
    assert first.constants == {}
    assert second.shape == (8, 4, 4)
    assert third.shape == (8, 8, 8)
    features, picture = ground.generator.start(STYLES, 2)
    found = third.features(third.starts)
    assert found is not None
    assert third.pictures is not None
    torch.testing.assert_close(found, features, rtol=0, atol=1e-5)
    torch.testing.assert_close(third.pictures, picture, rtol=0, atol=1e-5)
    assert all(torch.equal(stage.styles(stage.starts), STYLES) for stage in (first, second, third))


def test_without_the_earlier_picture_only_later_blocks_draw(ground: StyleGround) -> None:
    _, second, _ = walk(ground, carry_image=False)
    assert second.pictures is None
    features, _ = ground.generator.start(STYLES, 1)
    wanted = ground.cut(ground.generator.finish(features, None, STYLES, 1))
    torch.testing.assert_close(second.render(second.starts), wanted, rtol=0, atol=1e-5)


def test_changed_features_change_the_next_stage(ground: StyleGround) -> None:
    _, second, _ = walk(ground)
    moved = second.starts.clone()
    moved[:, 8:] += 0.5
    third = next_stage(second, moved, CPU, carry_image=True)
    picture = second.render(moved, second.pictures)
    torch.testing.assert_close(third.render(third.starts, third.pictures), picture, rtol=0, atol=1e-5)
    assert not torch.allclose(picture, ground.render(STYLES), atol=1e-3)


def test_both_parts_stay_in_balls_around_their_own_start(ground: StyleGround) -> None:
    _, second, _ = walk(ground)
    wild = second.starts + Random(2).normal(second.starts.shape)
    kept = second.project(wild, second.starts, 1.5, 4.0) - second.starts
    torch.testing.assert_close(kept[:, :8].abs().sum(dim=1), torch.full((3,), 1.5), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(kept[:, 8:].abs().sum(dim=1), torch.full((3,), 4.0), rtol=1e-4, atol=1e-4)
    near = second.starts + 1e-3
    assert torch.equal(second.project(near, second.starts, 1.5, 4.0), near)


# which stage is reported ----------------------------------------------------------------------------------


def result(
    number: float, scores: Sequence[float], statuses: Sequence[RowStatus] | None = None, *, scored: bool = True
) -> StageResult:
    n = len(scores)
    found = Found(
        values=torch.zeros(n, 1), losses=torch.full((n,), float(number)), steps=torch.ones(n, dtype=torch.int64),
        statuses=tuple(statuses or [RowStatus.DONE] * n), history=torch.full((n, 1), float(number)),
    )  # fmt: skip
    return StageResult(
        found=found, styles=torch.full((n, 1), float(number)), images=torch.full((n, 1, 2, 2), float(number)),
        scores=torch.tensor(scores), scored=scored,
    )  # fmt: skip


def numbers(styles: Tensor) -> list[float]:
    return styles.flatten().tolist()


def test_each_class_has_its_own_best_stage() -> None:
    best, stages = best_stage([result(0, [0.9, 0.1, 0.2, 0.2]), result(1, [0.3, 0.4, 0.5, 0.1])], 2)
    assert stages.tolist() == [0, 1]
    assert numbers(best.styles) == [0, 0, 1, 1]
    assert numbers(best.images.mean(dim=(1, 2, 3))) == [0, 0, 1, 1]
    torch.testing.assert_close(best.scores, torch.tensor([0.9, 0.1, 0.5, 0.1]))
    assert numbers(best.found.losses) == [0, 0, 1, 1]
    assert best.found.steps.tolist() == [2] * 4
    assert best.found.history.tolist() == [[0, 1]] * 4
    assert best.complete


def test_the_earliest_of_equal_stages_departs_least_from_the_prior() -> None:
    assert best_stage([result(0, [0.5]), result(1, [0.5])], 1)[1].tolist() == [0]


def test_a_row_that_left_the_finite_numbers_is_failed_only_where_its_stage_is_chosen() -> None:
    lost = [RowStatus.FAILED, RowStatus.DONE]
    assert best_stage([result(0, [0.2, 0.2]), result(1, [0.0, 0.9], lost)], 1)[0].found.statuses == tuple(lost)
    assert best_stage([result(0, [0.6, 0.6]), result(1, [0.0, 0.9], lost)], 1)[0].found.complete


@pytest.mark.parametrize("scored", [True, False])
def test_a_budget_that_ended_the_last_stage_leaves_unfinished_rows(scored: bool) -> None:
    stopped = [RowStatus.STOPPED, RowStatus.WAITING]
    best, stages = best_stage([result(0, [0.5, 0.5]), result(1, [0.9, 0.0], stopped, scored=scored)], 1)
    assert stages.tolist() == [0]
    assert best.found.statuses == (RowStatus.STOPPED,) * 2
    assert not best.complete
    first, _ = best_stage([result(0, [0.9, 0.0], stopped, scored=scored)], 1)
    assert first.found.statuses == tuple(stopped)
