"""The client against a real server on this machine: right answers, bad days, limits, credentials."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
import torch

from mi_model_endpoint.config import TOKEN
from mi_model_endpoint.loading import load
from micore.errors import ConfigError, ModelError, TargetError, UsageError
from micore.external import External, SourceRequest
from micore.inputs import InputSpec
from micore.runtime import Runtime
from micore.target import AnswerForm
from micore.threat import Access

SHAPE, CLASSES = (1, 4, 4), ("zero", "one", "two")
DATASET = SimpleNamespace(
    name="toy", modality="image", classes=CLASSES, input=InputSpec(shape=SHAPE, mean=(0.5,), std=(0.5,))
)
NAN = '{"outputs": [{"name": "scores", "datatype": "FP32", "shape": [2, 3], "data": [NaN, 0, 0, 0, 0, 1]}]}'


def opened(url: str, dataset: object = DATASET, **options: object) -> External:
    request = SourceRequest(uri=url, runtime=Runtime(device=torch.device("cpu")), options=options, dataset=dataset)
    return load(request)


def pictures(n: int) -> torch.Tensor:
    return torch.randint(0, 256, (n, *SHAPE), generator=torch.Generator().manual_seed(n)) / 255


def ask(target: External, images: torch.Tensor) -> torch.Tensor:
    assert target.respond is not None
    return target.respond(images)


@pytest.mark.parametrize("encoding", ["tensor", "png"])
def test_scores_in_the_order_of_the_samples(serving, encoding):
    setup = serving()
    target = opened(setup.url, batch=2, concurrency=3, encoding=encoding)
    assert target.access == Access.SCORES
    assert target.card.input.mean == (), "a server normalises by itself"
    assert torch.allclose(ask(target, pictures(9)), setup.expected(pictures(9)), atol=1e-6)
    assert setup.served.counter.samples == 9
    assert setup.served.counter.requests == 5


def test_labels(serving):
    setup = serving(Access.LABEL)
    label_only = opened(setup.url)
    assert label_only.access == Access.LABEL
    assert torch.equal(ask(label_only, pictures(4)), setup.expected(pictures(4)).argmax(dim=1))
    chosen = opened(serving().url, answer="label")
    assert chosen.access == Access.LABEL
    assert not ask(chosen, pictures(4)).is_floating_point()


def test_what_the_interface_shows(serving):
    setup = serving(form=AnswerForm(top_k=1, decimals=2))
    shown = ask(opened(setup.url), pictures(4))
    assert torch.allclose(shown, AnswerForm(top_k=1, decimals=2).apply(setup.expected(pictures(4))))


@pytest.mark.parametrize("step", [429, 500, 503, "{not json", "[]", NAN], ids=str)
def test_what_goes_away_is_asked_again(serving, step):
    setup = serving()
    setup.misbehaviour.plan[:] = [step, step]
    assert torch.allclose(ask(opened(setup.url), pictures(2)), setup.expected(pictures(2)), atol=1e-6)
    assert setup.misbehaviour.plan == []


def test_an_answer_that_takes_too_long_is_asked_again(serving):
    setup = serving()
    setup.misbehaviour.plan[:] = [1.0]
    assert torch.allclose(ask(opened(setup.url, timeout=0.5), pictures(2)), setup.expected(pictures(2)), atol=1e-6)


def test_it_ends(serving):
    setup = serving()
    target = opened(setup.url, attempts=2)
    setup.misbehaviour.plan[:] = [500, 500, 500]
    with pytest.raises(TargetError, match="failed 2 times; the last time: status 500"):
        ask(target, pictures(2))
    assert setup.misbehaviour.plan == [500]


def test_what_does_not_go_away_ends_at_once(serving):
    setup = serving()
    target = opened(setup.url)
    setup.misbehaviour.plan[:] = [404, 500]
    with pytest.raises(TargetError, match="status 404: unwell"):
        ask(target, pictures(2))
    assert setup.misbehaviour.plan == [500]


def test_nobody_there():
    with pytest.raises(TargetError, match="failed 2 times; the last time: ConnectError"):
        opened("http://127.0.0.1:9/v2/models/target", attempts=2)


def test_the_rate_is_kept(serving):
    target = opened(serving().url, rate=20, batch=5)
    started = time.monotonic()
    ask(target, pictures(40))
    assert time.monotonic() - started >= 1.0, "20 at once, then 20 a second"


def test_answers_are_kept(serving, tmp_path, monkeypatch):
    monkeypatch.setenv("MI_HOME", str(tmp_path))
    setup = serving()
    first = ask(opened(setup.url, cache=True), pictures(6))
    again = ask(opened(setup.url, cache=True), torch.cat([pictures(6), pictures(2)]))
    assert torch.equal(again[:6], first)
    assert setup.served.counter.samples == 8
    labels = opened(setup.url, cache=True, answer="label")
    assert torch.equal(ask(labels, pictures(6)), first.argmax(dim=1))
    assert setup.served.counter.samples == 14, "another kind of answer is kept apart"
    assert torch.equal(ask(labels, pictures(6)), first.argmax(dim=1))
    assert setup.served.counter.samples == 14


def test_the_same_sample_twice_in_a_batch_is_sent_once_with_a_cache(serving, tmp_path, monkeypatch):
    monkeypatch.setenv("MI_HOME", str(tmp_path))
    setup = serving()
    ask(opened(setup.url, cache=True), pictures(1).repeat(5, 1, 1, 1))
    assert setup.served.counter.samples == 1


# credentials ----------------------------------------------------------------------------------------


def test_a_token_is_sent_and_stays_secret(serving, monkeypatch):
    setup = serving(token="s3cret")
    with pytest.raises(TargetError, match=rf"status 401.*set {TOKEN}"):
        opened(setup.url)
    monkeypatch.setenv(TOKEN, "s3cret")
    target = opened(setup.url)
    assert torch.allclose(ask(target, pictures(2)), setup.expected(pictures(2)), atol=1e-6)
    assert "s3cret" not in str(target.card) + target.fingerprint + str(target.notes)


def test_credentials_in_the_address_are_refused():
    with pytest.raises(ModelError, match=rf"credentials in it.*{TOKEN}"):
        opened("https://me:secret@host/v2/models/x")


def test_a_token_is_never_sent_unencrypted(monkeypatch):
    monkeypatch.setenv(TOKEN, "s3cret")
    with pytest.raises(ModelError, match="unencrypted"):
        opened("http://models.example.org/v2/models/x")


# what does not fit ----------------------------------------------------------------------------------


def test_what_does_not_fit_is_said_before_anything_is_asked(serving):
    url = serving().url
    with pytest.raises(UsageError, match="give --data"):
        opened(url, dataset=None)
    with pytest.raises(ModelError, match=r"takes samples of shape \[1, 4, 4\]; the data set has \[3, 8, 8\]"):
        opened(url, dataset=SimpleNamespace(**{**vars(DATASET), "input": InputSpec(shape=(3, 8, 8))}))
    with pytest.raises(ConfigError, match=r"no option 'timout'.*timeout"):
        opened(url, timout=3)
    with pytest.raises(ModelError, match="no output that gives scores; it has: labels"):
        opened(serving(Access.LABEL).url, answer="scores")
    with pytest.raises(ModelError, match="does not describe its inputs"):
        opened(url.rpartition("/v2")[0] + "/v2")
    with pytest.raises(ModelError, match="is no address"):
        opened("http:target")


def test_other_classes_than_the_data_set_has(serving):
    two = SimpleNamespace(**{**vars(DATASET), "classes": ("a", "b")})
    with pytest.raises(ModelError, match="gives 3 scores a sample; the data set has 2 classes"):
        opened(serving().url, dataset=two)


def test_an_answer_with_other_classes_than_the_data_set_has(serving):
    setup = serving()
    target = opened(setup.url, attempts=1)
    setup.misbehaviour.plan = ['{"outputs": [{"name": "scores", "datatype": "FP32", "shape": [1, 2], "data": [1, 0]}]}']
    with pytest.raises(TargetError, match="it has 2 scores a sample; the data set has 3 classes"):
        ask(target, pictures(1))


def test_the_fingerprint_is_of_what_is_answered(serving):
    url = serving().url
    assert opened(url).fingerprint == opened(url, timeout=3, batch=7).fingerprint
    assert opened(url).fingerprint != opened(url, answer="label").fingerprint
