"""Descriptions are refused when they are made, not when they are used."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from micore.hookspecs import SPEC_HOOKS
from micore.specs import (
    ANY,
    KINDS,
    AttackSpec,
    CommandSpec,
    DatasetSpec,
    DefenseSpec,
    EvaluatorSpec,
    ModalitySpec,
    ModelSpec,
    SourceSpec,
    TrackerSpec,
)
from micore.threat import Access

BASE = {"name": "a-name", "target": "package.module:Name", "summary": "One line"}
GOOD = {
    ModalitySpec: {},
    DatasetSpec: {"modality": "toy", "licence": "MIT"},
    ModelSpec: {"modality": "toy"},
    SourceSpec: {"scheme": "hf"},
    AttackSpec: {"modality": "toy", "goal": "class", "access": Access.LABEL},
    DefenseSpec: {"stages": ("data", "training")},
    EvaluatorSpec: {"modality": ANY, "goals": ("class", "prompt")},
    CommandSpec: {},
    TrackerSpec: {},
}


def test_every_kind_has_a_hook_and_a_sound_example():
    assert set(KINDS.values()) == {*SPEC_HOOKS.values(), TrackerSpec} == set(GOOD)
    for kind, fields in GOOD.items():
        spec = kind(**BASE, **fields)
        assert KINDS[spec.kind] is kind
        with pytest.raises(FrozenInstanceError):
            spec.name = "other"


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Upper"}, "must be like 'my-name'"),
        ({"name": "a--b"}, "must be like 'my-name'"),
        ({"name": "../x"}, "must be like 'my-name'"),
        ({"name": "x\n"}, "must be like 'my-name'"),
        ({"target": "package.module"}, "must be 'module:Name'"),
        ({"target": "package:a.b"}, "must be 'module:Name'"),
        ({"summary": " "}, "must be one line"),
        ({"summary": "two\nlines"}, "must be one line"),
    ],
)
def test_what_all_kinds_share_is_checked(kind, changes, message):
    with pytest.raises(ValueError, match=f"{kind.__name__}: .*{message}"):
        kind(**{**BASE, **GOOD[kind], **changes})


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (DatasetSpec, {"splits": ("private", "secret")}, "splits .'secret'."),
        (ModelSpec, {"roles": ("oracle",)}, "roles .'oracle'."),
        (SourceSpec, {"scheme": "no scheme"}, "is not a URI scheme"),
        (AttackSpec, {"goal": "world"}, "goal .'world'."),
        (AttackSpec, {"access": 2}, "access 2 is not an Access"),
        (DefenseSpec, {"stages": ()}, "must not be empty"),
        (DefenseSpec, {"stages": ("later",)}, "stages .'later'."),
        (EvaluatorSpec, {"goals": ("world",)}, "goals .'world'."),
    ],
)
def test_what_a_kind_adds_is_checked(kind, changes, message):
    with pytest.raises(ValueError, match=message):
        kind(**{**BASE, **GOOD[kind], **changes})


def test_fields_are_named():
    with pytest.raises(TypeError):
        ModalitySpec("a-name", "m:N", "summary")
