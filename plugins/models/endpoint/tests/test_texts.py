"""OpenAI's interface, spoken with a small server of our own on this machine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fastapi import FastAPI, Request

from mi_model_endpoint.config import TOKEN
from mi_model_endpoint.loading import load
from mi_model_endpoint.texts import GENERATE, LIKELIHOODS
from micore.errors import ModelError, TargetError, UsageError
from micore.external import External, SourceRequest
from micore.runtime import Random, Runtime
from micore.target import Target
from micore.threat import Access, Ledger

TEXTS = ["ann lives in rome", "ben", "cleo works", "ann lives in oslo"]
CPU = Runtime(device=torch.device("cpu"))
DATASET = SimpleNamespace(name="toy", modality="text", classes=("a", "b"))


def sampling(**changes: Any) -> SimpleNamespace:
    values = {"max_tokens": 4, "temperature": 0.5, "top_k": None, "top_p": 0.9, "hot": None}
    return SimpleNamespace(**{**values, **changes})


def log_likelihoods(text: str) -> list[float | None]:
    return [None, *(-0.5 * len(word) for word in text.split()[1:])]


def service(models: list[str], *, echoes: bool = True) -> tuple[FastAPI, list[dict[str, Any]]]:
    """Return a server whose answers follow from the texts, in reverse order, and what it is sent."""
    app, sent = FastAPI(), list[dict[str, Any]]()

    @app.get("/v1/models")
    def listed() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": name} for name in models]}

    @app.post("/v1/embeddings")
    async def embeddings(request: Request) -> dict[str, Any]:
        body = await request.json()
        sent.append(body)
        rows = [{"index": place, "embedding": vector(text)} for place, text in enumerate(body["input"])]
        return {"data": rows[::-1]}

    @app.post("/v1/completions")
    async def completions(request: Request) -> dict[str, Any]:
        body = await request.json()
        sent.append(body)
        rows = [{"index": place, "text": f" after {text} "} for place, text in enumerate(body["prompt"])]
        if body.get("echo"):
            told = [{"token_logprobs": log_likelihoods(text)} if echoes else None for text in body["prompt"]]
            rows = [{**row, "logprobs": item} for row, item in zip(rows, told, strict=True)]
        return {"choices": rows[::-1]}

    return app, sent


def vector(text: str) -> list[float]:
    return [float(len(text)), float(text.count("n")), 1.0]


class Running:
    """A server under way: what it is sent, and what it does wrong."""

    def __init__(self, hosting: Any) -> None:
        self.hosting, self.misbehaviour = hosting, hosting.misbehaviour
        self.sent: list[dict[str, Any]] = []

    def start(self, *models: str, echoes: bool = True) -> str:
        app, self.sent = service(list(models) or ["tiny"], echoes=echoes)
        return f"{self.hosting.start(app)}/v1"


@pytest.fixture
def running(hosting: Any) -> Running:
    """Start servers of the interface."""
    return Running(hosting)


def opened(url: str, dataset: object = DATASET, **options: object) -> External:
    asked = {"protocol": "openai", **options}
    return load(SourceRequest(uri=url, runtime=CPU, options=asked, dataset=dataset))


def target_of(external: External) -> Target:
    return Target(
        external.respond, access=external.access, adapter=list, input_spec=external.card.input,
        classes=external.card.classes, ledger=Ledger(), runtime=CPU, role=external.card.role,
        services=external.services,
    )  # fmt: skip


def test_embeddings_in_the_order_of_the_texts(running):
    external = opened(running.start(), batch=3, max_tokens=32)
    assert (external.card.role, external.card.modality, external.card.classes) == ("encoder", "text", ("a", "b"))
    assert external.card.input.shape == (32,)
    assert external.card.input.options == {"untokenized": True}
    target = target_of(external)
    assert target.scores(TEXTS).tolist() == [vector(text) for text in TEXTS]
    assert target.ledger.total.queries == 4
    assert sorted(len(body["input"]) for body in running.sent) == [1, 3]
    assert {body["model"] for body in running.sent} == {"tiny"}
    with pytest.raises(UsageError, match="does not offer 'generate'"):
        target.ask(GENERATE, TEXTS)


def test_the_same_text_is_asked_once_with_a_cache(running, tmp_path, monkeypatch):
    monkeypatch.setenv("MI_HOME", str(tmp_path))
    external = opened(running.start(), cache=True)
    for texts in (TEXTS[:2], [*TEXTS, TEXTS[0]]):
        assert external.respond(texts).tolist() == [vector(text) for text in texts]
    assert sum(len(body["input"]) for body in running.sent) == 4


def test_completions(running):
    target = target_of(opened(running.start(), role="language-model"))
    found = target.ask(GENERATE, TEXTS, sampling=sampling(), rng=Random(0))
    assert found == [f"after {text}" for text in TEXTS]
    assert running.sent[0] == {
        "model": "tiny", "prompt": TEXTS, "max_tokens": 4, "temperature": 0.5, "top_p": 0.9
    }  # fmt: skip
    target.ask(GENERATE, TEXTS[:1], sampling=sampling(top_p=None, top_k=5, temperature=0), rng=Random(0))
    assert running.sent[1] == {
        "model": "tiny", "prompt": TEXTS[:1], "max_tokens": 4, "temperature": 0, "top_k": 5
    }  # fmt: skip
    with pytest.raises(UsageError, match="takes one temperature for a whole text"):
        target.ask(GENERATE, TEXTS, sampling=sampling(hot=2.0), rng=Random(0))


def test_likelihoods(running):
    target = target_of(opened(running.start(), role="language-model", batch=2))
    found = target.ask(LIKELIHOODS, TEXTS)
    assert [row.tolist() for row in found] == [log_likelihoods(text)[1:] for text in TEXTS]
    body = running.sent[0]
    assert (body["max_tokens"], body["echo"], body["logprobs"]) == (0, True, 1)


def test_a_server_without_log_probabilities(running):
    url = running.start(echoes=False)
    target = target_of(opened(url, role="language-model"))
    with pytest.raises(TargetError, match="gives no log-probabilities of a prompt") as caught:
        target.ask(LIKELIHOODS, TEXTS)
    assert "-M answer=label" in caught.value.hint
    assert len(running.sent) == 1, "asking again would not help"
    label = opened(url, role="language-model", answer="label")
    assert (label.access, list(label.services)) == (Access.LABEL, [GENERATE])


def test_there_is_no_distribution_of_the_next_token(running):
    target = target_of(opened(running.start(), role="language-model"))
    with pytest.raises(UsageError, match="gives no distribution of the next token, which this attack needs"):
        target.scores(TEXTS)
    assert running.sent == []


def test_which_model_is_asked(running):
    url = running.start("one", "two")
    with pytest.raises(ModelError, match="serves 2 models: one, two") as caught:
        opened(url)
    assert caught.value.hint == "-M model=NAME"
    opened(url, model="two").respond(TEXTS)
    assert running.sent[0]["model"] == "two"
    assert opened(url, model="two").fingerprint != opened(url, model="one").fingerprint


@pytest.mark.parametrize(
    "answer",
    [
        '{"data": []}', '{"data": [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}]}',
        '{"data": [{"index": 0, "embedding": [NaN]}, {"index": 1, "embedding": [1]}]}',
        '{"data": [{"index": 0, "embedding": ["a"]}, {"index": 1, "embedding": [1]}]}', '{"error": "busy"}', "not json",
    ],
)  # fmt: skip
def test_bad_answers_are_asked_for_again(running, answer):
    url = running.start()
    running.misbehaviour.plan = [answer, 503]
    assert opened(url).respond(TEXTS[:2]).tolist() == [vector(text) for text in TEXTS[:2]]
    running.misbehaviour.plan = [answer]
    with pytest.raises(TargetError, match="failed 1 times"):
        opened(url, attempts=1).respond(TEXTS[:2])


def test_the_key_comes_from_the_environment(running, monkeypatch):
    monkeypatch.setenv(TOKEN, "secret")
    external = opened(running.start())
    external.respond(TEXTS)
    assert {request.headers.get("authorization") for request in running.misbehaviour.seen} == {"Bearer secret"}
    assert "secret" not in str(external.card.to_dict())
    with pytest.raises(ModelError, match="unencrypted"):
        opened("http://example.org/v1")


def test_data_that_do_not_fit(running):
    url = running.start()
    assert opened(url, dataset=None).card.classes == ()
    with pytest.raises(ModelError, match="sends texts; the data are of modality image"):
        opened(url, dataset=SimpleNamespace(name="toy", modality="image", classes=()))
    with pytest.raises(ModelError, match="protocol json sends no texts"):
        opened(url, protocol="json")
    with pytest.raises(ModelError, match="an encoder has no labels"):
        opened(url, answer="label")
