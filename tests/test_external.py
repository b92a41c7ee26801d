"""Targets that only answer: what is sent, what comes back, and what a run grants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from micore import runs
from micore.artifacts import Card
from micore.contracts import Samples
from micore.errors import AccessDenied, TargetError, UsageError
from micore.external import External, SourceRequest
from micore.inputs import InputSpec
from micore.kit.case_rows import tiled
from micore.models import is_external
from micore.runtime import Runtime
from micore.target import AnswerForm, Target
from micore.threat import Access, Ledger
from tests import toys

RUNTIME = Runtime(device=torch.device("cpu"))
SPEC = InputSpec(shape=(4,))


class Oracle:
    """Answers with the softmax of its input, and remembers what it saw."""

    def __init__(self, answer=None) -> None:
        self.seen: list[Tensor] = []
        self.answer = answer or (lambda inputs: inputs.softmax(dim=1))

    def __call__(self, inputs: Tensor) -> Tensor:
        self.seen.append(inputs)
        return self.answer(inputs)


def make(oracle, access: Access = Access.SCORES, form: AnswerForm | None = None) -> Target:
    def adapter(samples: Samples) -> Tensor:
        return 2 * samples

    return Target(
        oracle, access=access, adapter=adapter, input_spec=SPEC, classes=["a", "b", "c", "d"], ledger=Ledger(),
        runtime=RUNTIME, form=form,
    )  # fmt: skip


def rows(n: int) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(n))


def test_it_answers_and_is_counted():
    target = make(Oracle())
    assert torch.equal(target.scores(rows(3)), (2 * rows(3)).softmax(dim=1))
    assert torch.equal(target.labels(rows(3)), rows(3).argmax(dim=1))
    assert target.ledger.total.queries == 6
    with pytest.raises(AccessDenied):
        _ = target.module


def test_white_box_access_finds_no_module():
    with pytest.raises(AccessDenied, match="gives no white-box access"):
        _ = make(Oracle(), Access.WHITE_BOX).module


def test_a_target_that_says_labels_only():
    target = make(Oracle(lambda inputs: inputs.argmax(dim=1)), Access.LABEL)
    assert torch.equal(target.labels(rows(3)), rows(3).argmax(dim=1))


@pytest.mark.parametrize("n", [1, 4, 5, 11])
def test_padding_is_never_sent(n):
    oracle = Oracle()
    target = make(oracle)
    owners = [f"case-{index % 2}" for index in range(n)]
    found = tiled(target.scores, 4, rows(n), ledger=target.ledger, owners=owners)
    assert torch.equal(found, (2 * rows(n)).softmax(dim=1))
    assert sum(len(batch) for batch in oracle.seen) == n == target.ledger.total.queries


@pytest.mark.parametrize(
    "answer",
    [
        lambda inputs: inputs.softmax(dim=1)[:, :3],
        lambda inputs: inputs.softmax(dim=1)[:1],
        lambda inputs: inputs,
        lambda inputs: torch.full_like(inputs, torch.nan),
        lambda inputs: torch.full((len(inputs),), 4),
        lambda inputs: torch.full((len(inputs),), 0.5),
    ],
    ids=["a class too few", "a row too few", "logits", "nan", "no such label", "labels in floating point"],
)
def test_answers_that_cannot_be_used(answer):
    with pytest.raises(TargetError, match="the target answered"):
        make(Oracle(answer)).scores(rows(3))


def test_top_k_and_rounding():
    scores = torch.tensor([[0.123, 0.456, 0.3, 0.121]])
    assert torch.equal(AnswerForm(top_k=2).apply(scores), torch.tensor([[0, 0.456, 0.3, 0]]))
    assert torch.allclose(AnswerForm(decimals=1).apply(scores), torch.tensor([[0.1, 0.5, 0.3, 0.1]]))
    assert torch.allclose(AnswerForm(top_k=1, decimals=1).apply(scores), torch.tensor([[0, 0.5, 0, 0]]))
    assert torch.equal(AnswerForm(top_k=9).apply(scores), scores)
    target = make(Oracle(), form=AnswerForm(top_k=1))
    assert ((target.scores(rows(5)) > 0).sum(dim=1) == 1).all()
    assert torch.equal(target.labels(rows(5)), rows(5).argmax(dim=1))
    for form in ({"top_k": 0}, {"decimals": -1}):
        with pytest.raises(UsageError, match="must be at least"):
            AnswerForm(**form)


def test_an_external_target_has_one_of_two():
    card = Card(role="classifier", modality="toy", model=toys.PluginUse(name="x"), input=SPEC, classes=("a",), data={})
    with pytest.raises(ValueError, match="either"):
        External(card=card, fingerprint="f")
    assert External(card=card, fingerprint="f", module=torch.nn.Flatten()).highest_access == Access.WHITE_BOX
    assert External(card=card, fingerprint="f", respond=Oracle(), access=Access.LABEL).highest_access == Access.LABEL


def test_a_source_needs_the_data_set():
    with pytest.raises(UsageError, match="give --data"):
        SourceRequest(uri="oracle:1", runtime=RUNTIME).card("oracle")


def test_schemes(tmp_path):
    assert is_external("https://host/x")
    assert not is_external("C:/x.safetensors")
    assert not is_external(str(tmp_path))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home of this test's own, so that nothing is cached."""
    monkeypatch.setenv("MI_HOME", str(tmp_path / "home"))


# whole runs -----------------------------------------------------------------------------------------


def request(**changes: Any) -> runs.AttackRequest:
    data = toys.DataRequest.parse("grids", toys.SMALL)
    return toys.toy_request("oracle:1", **{"attack": "by-label", "data": data, **changes})


def test_a_run_against_a_target_that_only_answers(tmp_path, home):
    run = runs.attack(toys.registry(), request(), tmp_path / "run")
    assert run.manifest["status"] == "finished"
    assert run.manifest["target"]["uri"] == "oracle:1"
    assert run.manifest["answers"] == {"top_k": None, "decimals": None}
    assert any("oracle" in note for note in run.manifest["notes"])
    assert any("not known" in note for note in run.manifest["notes"])
    run.manifest["status"] = "interrupted"
    run.save()
    assert runs.problem(runs.resume(toys.registry(), run.directory)) is None


def test_what_the_target_cannot_grant_is_refused(tmp_path, home):
    with pytest.raises(AccessDenied, match="gives label access"):
        runs.attack(
            toys.registry(), request(access=Access.SCORES, model_options={"answers": "label"}), tmp_path / "run"
        )
    with pytest.raises(UsageError, match="--top-k and --round"):
        runs.attack(toys.registry(), request(form=AnswerForm(top_k=2)), tmp_path / "run")
    with pytest.raises(UsageError, match="give --data"):
        runs.attack(toys.registry(), request(data=None), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_shown_is_recorded_and_part_of_the_preparation(tmp_path, home):
    shown = request(access=Access.SCORES, form=AnswerForm(top_k=2, decimals=1))
    run = runs.attack(toys.registry(), shown, tmp_path / "run")
    assert run.manifest["answers"] == {"top_k": 2, "decimals": 1}
    again = runs.AttackRequest.from_dict(run.manifest["request"])
    assert again.form == AnswerForm(top_k=2, decimals=1)
    whole = runs.attack(toys.registry(), request(access=Access.SCORES), tmp_path / "whole")
    assert run.manifest["preparation"]["key"] != whole.manifest["preparation"]["key"]
