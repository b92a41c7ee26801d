"""The small transformer: its cache, its masks, relaxed tokens."""

from __future__ import annotations

import pytest
import torch

from mi_text.transformer import Size, Transformer
from micore.errors import ModelError
from micore.runtime import Runtime

SIZE = Size(vocabulary=20, tokens=12, width=16, layers=2, heads=2)


def network(causal=True):
    runtime = Runtime(device=torch.device("cpu"))
    with runtime.seeded("parameters"):
        return Transformer(SIZE, causal=causal).eval()


def tokens(n, length, seed=0):
    return torch.randint(20, (n, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_going_on_from_the_cache_equals_one_pass():
    net, ids = network(), tokens(3, 9)
    whole, _ = net(net.embed(ids))
    first, cache = net(net.embed(ids[:, :4]))
    states = [first]
    for place in range(4, 9):
        step, cache = net(net.embed(ids[:, place : place + 1]), cache=cache)
        states.append(step)
    torch.testing.assert_close(torch.cat(states, dim=1), whole)
    assert cache.length == 9


@torch.no_grad()
def test_several_tokens_can_follow_a_cache():
    net, ids = network(), tokens(2, 9)
    whole, _ = net(net.embed(ids))
    _, cache = net(net.embed(ids[:, :5]))
    rest, _ = net(net.embed(ids[:, 5:]), cache=cache)
    torch.testing.assert_close(rest, whole[:, 5:])


@torch.no_grad()
def test_a_causal_state_knows_nothing_of_later_tokens():
    net, ids = network(), tokens(1, 8)
    changed = ids.clone()
    changed[0, 6] = (changed[0, 6] + 1) % 20
    one, other = (net(net.embed(row))[0] for row in (ids, changed))
    assert torch.equal(one[:, :6], other[:, :6])
    assert not torch.allclose(one[:, 6], other[:, 6])


@torch.no_grad()
@pytest.mark.parametrize("causal", [True, False])
def test_padding_that_is_not_visible_changes_nothing(causal):
    net, ids = network(causal), tokens(2, 6)
    padded = torch.cat([ids, tokens(2, 3, seed=1)], dim=1)
    visible = torch.ones(2, 9, dtype=torch.bool)
    visible[:, 6:] = False
    alone, _ = net(net.embed(ids), visible=torch.ones(2, 6, dtype=torch.bool))
    together, _ = net(net.embed(padded), visible=visible)
    torch.testing.assert_close(together[:, :6], alone)
    assert torch.isfinite(together).all()


@torch.no_grad()
def test_certain_relaxed_tokens_are_the_tokens():
    net, ids = network(), tokens(2, 5)
    relaxed = torch.nn.functional.one_hot(ids, 20).float()
    torch.testing.assert_close(net.embed(relaxed), net.embed(ids))


def test_more_positions_than_there_are_is_an_error():
    net = network()
    with pytest.raises(ModelError, match="13 positions; this network has 12"):
        net(net.embed(tokens(1, 13)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 15}, "no multiple of 2 heads"),
        ({"layers": 0}, "layers must be at least 1"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_sizes_that_make_no_network_are_refused(change, message):
    with pytest.raises(ModelError, match=message):
        Size(**{"vocabulary": 20, "tokens": 12, "width": 16, "layers": 2, "heads": 2, **change})
