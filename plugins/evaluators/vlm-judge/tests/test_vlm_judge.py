"""The judge with a model that sees, and with models that lie, refuse, fail and do not know the key."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import micore
from mi_evaluator_vlm_judge.config import VlmJudgeConfig
from mi_evaluator_vlm_judge.evaluator import VisionLanguageJudge
from mi_image.modality import ImageModality
from micore.configs import make_config
from micore.contracts import Case, Evaluator, Measurement, Reconstruction, Reference, Subject
from micore.errors import ConfigError, DataError, MiError, TargetError
from micore.runtime import Random, Runtime
from micore.testing.check import check_plugin

CLASSES, SIZE, KEY = 3, 8, "sk-Secret-17"
PATTERNS = Random(1).uniform((CLASSES, 3, SIZE, SIZE)).round()


class Private:
    """Twelve images of each class: its pattern, with a little noise."""

    def __init__(self, n: int = 12, classes: int = CLASSES) -> None:
        self.labels: Tensor | None = torch.arange(classes).repeat(n)
        self.images = images_of(self.labels, 2)

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: Tensor) -> Tensor:
        return self.images[rows]


def images_of(labels: Tensor, seed: int) -> Tensor:
    return (PATTERNS[labels] + 0.05 * Random(seed).normal((len(labels), 3, SIZE, SIZE))).clamp(0, 1)


def subject(name: str = "attack", n: int = 2, shift: int = 0) -> Subject:
    """Return n samples for each class, which show the class ``shift`` further."""
    items = [
        Reconstruction(
            case=Case(id=f"class-{label}", goal="class", label=label),
            samples=images_of(torch.full((n,), (label + shift) % CLASSES), 10 + label), scores=torch.zeros(n),
        )
        for label in range(CLASSES)
    ]  # fmt: skip
    return Subject(name=name, reconstructions=items)


def options(endpoint: Any, **more: Any) -> dict[str, Any]:
    return {"url": endpoint.url, "model": "seer", "send_private": True, "resamples": 50, "limit": 2, **more}


def judged(endpoint: Any, *subjects: Subject, private: Any = None, **more: Any) -> dict[tuple[str, str], Measurement]:
    evaluator = VisionLanguageJudge(make_config(VlmJudgeConfig, options(endpoint, **more), "vlm-judge"))
    assert isinstance(evaluator, Evaluator)
    data = SimpleNamespace(split=lambda _: private or Private())
    reference = Reference(modality=ImageModality(), dataset=data, target=None)  # type: ignore[arg-type]
    found = evaluator.evaluate(subjects or [subject()], reference, Runtime.create("cpu"))
    return {(item.subject, item.name): item for item in found}


# figures --------------------------------------------------------------------------------------------------


def test_a_model_that_sees_tells_good_from_bad_attacks(endpoint: Any) -> None:
    found = judged(endpoint, subject(), subject("wrong", shift=1))
    assert found["attack", "vlm-accuracy"].value == 1
    assert found["wrong", "vlm-accuracy"].value == 0
    assert found["same-class", "vlm-accuracy"].value == 1
    assert found["other-class", "vlm-accuracy"].value == 0
    assert found["attack", "vlm-accuracy"].per_case == {f"class-{label}": 1.0 for label in range(CLASSES)}
    item = found["wrong", "vlm-accuracy"]
    assert (item.n, item.clusters, item.unit, item.direction) == (6, 3, "share", "up")
    assert item.evaluator.startswith("vlm-judge@")
    assert any("yes to 100% of pairs of one class and to 0% of two" in note for note in item.notes)
    assert any("asked of seer" in note for note in item.notes)


def test_a_model_that_says_yes_to_everything_is_seen(endpoint: Any) -> None:
    endpoint.model = lambda body: "Yes"
    found = judged(endpoint, subject("attack", shift=1))
    assert found["attack", "vlm-accuracy"].value == 1
    assert found["other-class", "vlm-accuracy"].value == 1
    assert any("figures mean nothing" in note for note in found["attack", "vlm-accuracy"].notes)


def test_refused_and_unclear_answers_are_counted_apart_and_never_dropped(endpoint: Any) -> None:
    endpoint.plan = [
        "Yes", "I'm sorry, I can't help with identifying people.", "yes and no",
        {"choices": [{"message": {"content": None}, "finish_reason": "content_filter"}]},
        {"status": 400, "error": {"code": "content_policy_violation"}}, "yes",
    ]  # fmt: skip
    found = judged(endpoint, workers=1)
    assert found["attack", "vlm-accuracy"].value == pytest.approx(2 / 6)
    assert found["attack", "vlm-refused"].value == pytest.approx(3 / 6)
    assert found["attack", "vlm-unclear"].value == pytest.approx(1 / 6)
    assert {found["attack", f"vlm-{name}"].n for name in ("accuracy", "refused", "unclear")} == {6}
    assert [found["attack", f"vlm-{name}"].direction for name in ("refused", "unclear")] == ["none", "none"]


def test_samples_are_limited_for_all_subjects_alike(endpoint: Any) -> None:
    found = judged(endpoint, subject(n=9), subject("holdout", n=2), limit=3)
    assert found["attack", "vlm-accuracy"].n == 9
    assert found["holdout", "vlm-accuracy"].n == 6
    assert found["same-class", "vlm-accuracy"].n == found["other-class", "vlm-accuracy"].n == 9
    assert len(endpoint.bodies) == 9 + 6 + 9 + 9


def test_earlier_stands_of_the_attack_are_not_paid_for(endpoint: Any) -> None:
    assert {name for name, _ in judged(endpoint, subject(), subject("snapshot-0"))} == {
        "attack", "same-class", "other-class",
    }  # fmt: skip


def test_a_class_without_private_images_is_not_asked_about(endpoint: Any) -> None:
    found = judged(endpoint, private=Private(classes=2))
    item = found["attack", "vlm-accuracy"]
    assert (item.n, item.clusters, set(item.per_case)) == (4, 2, {"class-0", "class-1"})
    assert any("2 samples without a finite value" in note for note in item.notes)


def test_one_private_image_is_no_pair(endpoint: Any) -> None:
    found = judged(endpoint, private=Private(n=1))
    assert {name for name, _ in found} == {"attack"}
    assert any("cannot" in note or "too few images" in note for note in found["attack", "vlm-accuracy"].notes)
    assert all(len(endpoint.seen(body)[1]) == 1 for body in endpoint.bodies)


def test_private_data_without_labels_are_refused(endpoint: Any) -> None:
    private = Private()
    private.labels = None
    with pytest.raises(DataError, match="no labels"):
        judged(endpoint, private=private)
    assert endpoint.bodies == []


# requests -------------------------------------------------------------------------------------------------


def test_a_request_shows_the_sample_and_private_images_of_its_class(endpoint: Any) -> None:
    judged(endpoint, workers=1, references=3)
    body = endpoint.bodies[0]
    assert (body["model"], body["temperature"], body["seed"], body["max_tokens"]) == ("seer", 0, 0, 16)
    text = body["messages"][0]["content"][0]["text"]
    assert "3 pictures B" in text
    assert text.endswith("yes or no.")
    one, others = endpoint.seen(body)
    assert others.shape == (3, 3, 224, 224)
    small = torch.nn.functional.interpolate(torch.cat([one[None], others]), SIZE, mode="area")
    assert float(((small > 0.5) == (PATTERNS[0] > 0.5)).float().mean()) > 0.99


def test_no_image_is_compared_with_itself(endpoint: Any) -> None:
    judged(endpoint, subject(n=1))
    for body in endpoint.bodies:
        one, others = endpoint.seen(body)
        assert float((others - one).abs().flatten(1).mean(dim=1).min()) > 0.001


def test_the_question_and_further_fields_are_the_users(endpoint: Any) -> None:
    judged(
        endpoint, question="Is it the same digit?", fields={"temperature": None, "reasoning": {"effort": "low"}},
        max_tokens=None,
    )  # fmt: skip
    body = endpoint.bodies[0]
    assert "Is it the same digit?" in body["messages"][0]["content"][0]["text"]
    assert not {"temperature", "max_tokens"} & body.keys()
    assert body["reasoning"] == {"effort": "low"}


def test_requests_depend_on_neither_workers_nor_order(endpoint: Any) -> None:
    turned = Subject(name="attack", reconstructions=subject().reconstructions[::-1])
    asked = []
    for one, workers in ((subject(), 1), (turned, 6)):
        endpoint.bodies.clear()
        judged(endpoint, one, workers=workers, cache=False)
        asked.append(sorted(json.dumps(body) for body in endpoint.bodies))
    assert asked[0] == asked[1]


def test_several_requests_are_under_way_but_not_more_than_allowed(endpoint: Any) -> None:
    running, most = [0], [0]

    def slow(body: dict[str, Any]) -> str:
        with endpoint.lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.1)
        with endpoint.lock:
            running[0] -= 1
        return "yes"

    endpoint.model = slow
    judged(endpoint, workers=3)
    assert most[0] == 3


def test_spoiled_pixels_are_sent_as_black(endpoint: Any) -> None:
    spoiled = subject(n=1)
    spoiled.reconstructions[0].samples.fill_(math.nan)
    judged(endpoint, spoiled, workers=1)
    assert float(endpoint.seen(endpoint.bodies[0])[0].max()) == 0


# bad days -------------------------------------------------------------------------------------------------


def test_requests_that_fail_are_sent_again(endpoint: Any) -> None:
    endpoint.plan = [503, 429, b"no JSON", {"choices": []}, 500]
    found = judged(endpoint, workers=1, retries=5)
    assert found["attack", "vlm-accuracy"].value == 1
    assert len(endpoint.bodies) == 5 + 6 + 6 + 6


def test_an_endpoint_that_fails_for_good_costs_nothing_that_was_answered(endpoint: Any) -> None:
    endpoint.plan = ["yes"] * 4 + [500] * 2
    with pytest.raises(TargetError, match="failed 2 times; the last time: status 500") as error:
        judged(endpoint, workers=1, retries=1)
    assert "judge again" in str(error.value.hint)
    assert len(endpoint.bodies) == 6, "requests that wait are not sent"
    endpoint.bodies.clear()
    found = judged(endpoint, workers=1)
    assert found["attack", "vlm-accuracy"].value == 1
    assert len(endpoint.bodies) == 2 + 6 + 6
    endpoint.bodies.clear()
    assert judged(endpoint) == found
    assert endpoint.bodies == [], "nothing is asked twice"
    judged(endpoint, question="Is it another question?")
    assert len(endpoint.bodies) == 18


def test_an_address_where_nobody_listens_is_said(endpoint: Any) -> None:
    endpoint.url = "http://127.0.0.1:9/v1"
    with pytest.raises(TargetError, match="failed 1 times; the last time: Connect"):
        judged(endpoint, retries=0)


def test_an_answer_that_takes_too_long_is_said(endpoint: Any) -> None:
    endpoint.model = lambda body: time.sleep(0.5) or "yes"
    with pytest.raises(TargetError, match="ReadTimeout"):
        judged(endpoint, retries=0, timeout=0.05, workers=1)


def test_a_wrong_path_is_said_at_once(endpoint: Any) -> None:
    endpoint.url = endpoint.url.removesuffix("/v1")
    with pytest.raises(TargetError, match="status 404: no such path"):
        judged(endpoint, workers=1)
    assert len(endpoint.bodies) == 1


# keys and consent -----------------------------------------------------------------------------------------


def everything_under(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


def test_the_key_is_sent_and_written_nowhere(endpoint: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEER_KEY", KEY)
    endpoint.key = KEY
    found = judged(endpoint, key_env="SEER_KEY")
    assert set(endpoint.keys) == {f"Bearer {KEY}"}
    assert KEY not in str(found)
    kept = everything_under(tmp_path)
    assert b"SQLite" in kept
    assert KEY.encode() not in kept
    assert b"image" not in kept, "and no picture either"


def test_a_whole_run_holds_no_key(endpoint: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("mi_attack_mi_face")
    monkeypatch.setenv("SEER_KEY", KEY)
    target = tmp_path / "target.safetensors"
    micore.train(data="digits", model="small-cnn", output=target, training={"epochs": 1}, device="cpu")
    judge = f"vlm-judge:url={endpoint.url},model=seer,send_private=true,key_env=SEER_KEY,limit=1,retries=0"
    endpoint.key = "another"
    with pytest.raises(TargetError, match="no valid key"):
        micore.attack(
            "mi-face", model=target, preset="smoke", output=tmp_path / "run", evaluators=[judge], device="cpu",
            classes="0-1",
        )  # fmt: skip
    assert KEY.encode() not in everything_under(tmp_path)
    endpoint.key = KEY
    run = micore.evaluate(tmp_path / "run", evaluators=[judge])
    names = {(item.subject, item.name) for item in run.measurements()}
    assert {("attack", "vlm-accuracy"), ("same-class", "vlm-accuracy"), ("holdout", "vlm-refused")} <= names
    report = (tmp_path / "run" / "report.html").read_text()
    assert "vlm-accuracy" in report
    assert "pairs of one class" in report
    assert KEY.encode() not in everything_under(tmp_path)


def test_without_key_env_no_key_is_sent(endpoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    judged(endpoint)
    assert set(endpoint.keys) == {None}


@pytest.mark.parametrize("status", [None, 418])
def test_no_error_repeats_the_key(endpoint: Any, monkeypatch: pytest.MonkeyPatch, status: int | None) -> None:
    monkeypatch.setenv("SEER_KEY", KEY)
    endpoint.key, endpoint.plan = ("another", []) if status is None else (KEY, [status] * 60)
    with pytest.raises(TargetError, match="no valid key" if status is None else "status 418") as error:
        judged(endpoint, key_env="SEER_KEY", workers=1)
    assert KEY not in f"{error.value} {error.value.__cause__} {error.value.__context__}"
    assert len(endpoint.bodies) == 1


LOCAL = "http://localhost:1/v1"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"send_private": False}, "sends private images of your data set to localhost"),
        ({"url": None}, "asks a model of yours"),
        ({"model": None}, "asks a model of yours"),
        ({"url": "localhost:8000"}, "no address"),
        ({"url": f"https://me:{KEY}@host/v1"}, "credentials"),
        ({"url": f"https://host/v1?key={KEY}"}, "credentials"),
        ({"key_env": KEY}, "no name of a variable"),
        ({"key_env": "NOT_THERE"}, "has no NOT_THERE"),
        ({"key_env": "SEER_KEY", "url": "http://example.org/v1"}, "unencrypted"),
    ],
)
def test_what_must_not_be_sent_is_refused_before_the_attack(
    changes: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEER_KEY", KEY)
    given = {"url": LOCAL, "model": "seer", "send_private": True} | changes
    with pytest.raises(ConfigError, match=says) as error:
        VisionLanguageJudge(make_config(VlmJudgeConfig, given, "vlm-judge"))
    assert error.value.hint
    assert KEY not in str(error.value)


def test_consent_is_asked_for_by_default() -> None:
    assert VlmJudgeConfig().send_private is False
    with pytest.raises(MiError):
        VisionLanguageJudge(VlmJudgeConfig())


def test_it_keeps_its_contract_with_a_model_that_sees(endpoint: Any) -> None:
    def nearest(body: dict[str, Any]) -> str:
        one, others = endpoint.seen(body)
        return "yes" if float((one - others).abs().flatten(1).mean(dim=1).min()) < 0.25 else "no"

    endpoint.model = nearest
    report = check_plugin("evaluator", "vlm-judge", options=options(endpoint, limit=2))
    assert report.passed, "\n" + report.text()
    assert "skipped" not in report.text()
