"""A causal language model as a target: likelihoods, continuations, the next token."""

from __future__ import annotations

import pytest
import torch

from mi_text.adapter import pad
from mi_text.language_model import CausalLanguageModel
from mi_text.sampling import Sampling
from mi_text.tokenizing import BEGIN_ID, END_ID, PAD_ID
from mi_text.transformer import Size
from micore.errors import UsageError
from micore.runtime import Random, Runtime
from micore.threat import Access

TEXTS = [[7, 8, 9], [10], [11, 12, 13, 14, 15]]


def model(tokens=18):
    with Runtime(device=torch.device("cpu")).seeded("parameters"):
        found = CausalLanguageModel(Size(vocabulary=20, tokens=tokens, width=16, layers=2, heads=2)).eval()
        for parameter in found.parameters():  # so that the distributions are far from uniform
            parameter.data *= 3
    return found


def by_hand(net, ids):
    """The log-likelihoods of a text and its end, one token after the other, in float64."""
    net = net.double()
    whole = [BEGIN_ID, *ids, END_ID]
    found = []
    for place in range(1, len(whole)):
        states, _ = net.network(net.network.embed(torch.tensor([whole[:place]])))
        row = torch.nn.functional.linear(states[0, -1], net.network.tokens.weight).log_softmax(dim=0)
        found.append(float(row[whole[place]]))
    net.float()
    return found


@torch.no_grad()
def test_likelihoods_are_those_of_the_chain_rule():
    net = model()
    found = net.serve("likelihoods", pad(TEXTS))
    assert found.shape == (3, 9)
    for row, ids in zip(found, TEXTS, strict=True):
        torch.testing.assert_close(
            row[: len(ids) + 1].double(), torch.tensor(by_hand(net, ids)).double(), atol=1e-4, rtol=0
        )
        assert (row[len(ids) + 1 :] == 0).all()


@torch.no_grad()
def test_the_loss_is_the_mean_over_the_tokens_and_the_end():
    net = model()
    found = net.task_loss(pad(TEXTS), torch.zeros(3, dtype=torch.int64))
    expected = [-sum(values) / len(values) for values in (by_hand(net, ids) for ids in TEXTS)]
    torch.testing.assert_close(found.double(), torch.tensor(expected).double(), atol=1e-4, rtol=0)


@torch.no_grad()
def test_the_answer_is_the_distribution_behind_each_text_whatever_the_padding():
    net = model()
    together = net.answer(pad(TEXTS))
    alone = torch.cat([net.answer(torch.tensor([ids])) for ids in TEXTS])
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(together.sum(dim=1), torch.ones(3))


@torch.no_grad()
def test_going_on_greedily_takes_the_most_likely_token_each_time():
    net = model()
    found = net.serve("generate", pad(TEXTS), sampling=Sampling(max_tokens=6, temperature=0), rng=Random(0))
    for row, ids in zip(found.tolist(), TEXTS, strict=True):
        text = list(ids)
        for token in row:
            states, _ = net.network(net.network.embed(torch.tensor([[BEGIN_ID, *text]])))
            logits = net.network.logits(states[:, -1])[0]
            logits[[PAD_ID, BEGIN_ID]] = -torch.inf
            best = int(logits.argmax())
            if best == END_ID:
                assert token == PAD_ID
                break
            assert token == best
            text.append(best)


@torch.no_grad()
def test_prompts_of_other_lengths_do_not_disturb_each_other():
    net, sampling = model(), Sampling(max_tokens=5, temperature=0)
    together = net.serve("generate", pad([*TEXTS, []]), sampling=sampling, rng=Random(0))
    alone = [net.serve("generate", pad([ids]), sampling=sampling, rng=Random(0))[0] for ids in [*TEXTS, []]]
    assert torch.equal(together, torch.stack(alone))


@torch.no_grad()
def test_nothing_follows_the_end_and_the_room_is_kept():
    net = model(tokens=8)
    found = net.serve("generate", pad([[7, 8, 9, 10]] * 64), sampling=Sampling(max_tokens=12), rng=Random(3))
    written = found != PAD_ID
    assert (written.long().diff(dim=1) <= 0).all()
    assert int(written.sum(dim=1).max()) <= 3


def test_the_same_stream_gives_the_same_texts():
    net, sampling = model(), Sampling(max_tokens=6)
    one, again, other = (net.serve("generate", pad([[7]] * 8), sampling=sampling, rng=Random(s)) for s in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_services_say_the_access_that_they_need():
    assert model().services == {"generate": Access.LABEL, "likelihoods": Access.SCORES}
    with pytest.raises(UsageError, match="no 'sing'"):
        model().serve("sing", pad(TEXTS))
