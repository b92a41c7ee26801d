"""A request survives the manifest."""

from __future__ import annotations

import json

import pytest

from micore.artifacts import PluginUse
from micore.data import DataRequest
from micore.runs.request import AttackRequest
from micore.target import AnswerForm
from micore.threat import Access, Budget

PLAIN = AttackRequest(attack=PluginUse(name="scripted"), model="target.safetensors")
FULL = AttackRequest(
    attack=PluginUse(name="scripted", config={"steps": 3}), model="mem:1", preset="paper",
    model_options={"timeout": 3}, form=AnswerForm(top_k=2),
    data=DataRequest(uri="grids", options={"size": 4}), choice="0-2", evidence="bottom",
    access=Access.WHITE_BOX, budget=Budget(queries=7, seconds=1.5), seed=9, device="cuda:1", precision="bf16",
    compiled=True, batch=3, tile=5, judges=2, data_root="/data",
    evaluators=(PluginUse(name="mean"), PluginUse(name="judged", config={"x": 1})), evaluator_model="judge.safetensors",
)  # fmt: skip


@pytest.mark.parametrize("request_", [PLAIN, FULL, AttackRequest(attack=PluginUse(name="a"), model="m", evaluators=())])
def test_round_trip(request_):
    assert AttackRequest.from_dict(json.loads(json.dumps(request_.to_dict()))) == request_


def test_every_field_is_written():
    from dataclasses import fields

    assert FULL.to_dict().keys() == {field.name for field in fields(AttackRequest)}
    assert all(FULL.to_dict()[name] != PLAIN.to_dict()[name] for name in FULL.to_dict())


def test_another_budget_changes_nothing_else():
    changed = FULL.with_budget(Budget(queries=100))
    assert changed.budget == Budget(queries=100)
    assert changed.with_budget(FULL.budget) == FULL
