"""The adversary's decoder and its training."""

from __future__ import annotations

import pytest
import torch

from mi_text.adapter import pad
from mi_text.decoder import Decoder, standardised, statistics_of
from mi_text.sampling import Sampling
from mi_text.steps import StepPlan, batch_of, train_steps
from mi_text.tokenizing import END_ID
from mi_text.transformer import Size
from micore.errors import ModelError
from micore.runtime import Checkpoints, Runtime

RUNTIME = Runtime(device=torch.device("cpu"))
SIZE = Size(vocabulary=20, tokens=16, width=16, layers=1, heads=2)
TEXTS = [[7, 8, 9], [10, 11], [12, 13, 14, 15], [16]]


def decoder():
    with RUNTIME.seeded("parameters"):
        return Decoder(SIZE, {"embedding": (4, 2)})


def values(seed=0):
    return torch.randn(4, 4, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_losses_are_those_of_the_chain_rule():
    net = decoder().eval()
    prefix = net.prefix({"embedding": values()})
    assert prefix.shape == (4, 2, 16)
    found = net.losses(prefix, pad(TEXTS))
    for row, ids in enumerate(TEXTS):
        total = 0.0
        for place, token in enumerate([*ids, END_ID]):
            before = net.network.embed(torch.tensor([ids[:place]], dtype=torch.int64).reshape(1, place))
            states, _ = net.network(torch.cat([prefix[row : row + 1], before], dim=1))
            total -= float(net.network.logits(states[:, -1]).log_softmax(dim=1)[0, token])
        assert float(found[row]) == pytest.approx(total / (len(ids) + 1), rel=1e-4)


@torch.no_grad()
def test_a_text_written_greedily_has_the_likelihood_that_its_loss_says():
    net = decoder().eval()
    prefix = net.prefix({"embedding": values()}, context=pad(TEXTS, width=4))
    written, likelihood = net.write(prefix, Sampling(max_tokens=5, temperature=0), torch.zeros(5, 4))
    lengths = (written != 0).sum(dim=1)
    ended = lengths < 5
    losses = net.losses(prefix, torch.nn.functional.pad(written, (0, 1)))
    torch.testing.assert_close(-(losses * (lengths + 1))[ended], likelihood[ended], atol=1e-4, rtol=1e-4)


def rows_of(net, inputs):
    tokens = pad(TEXTS)
    return lambda rows: net.losses(net.prefix({"embedding": inputs[rows]}), tokens[rows])


def test_it_learns_to_write_what_belongs_to_a_vector():
    net, inputs = decoder(), values()
    history = train_steps(
        net, rows_of(net, inputs), [3, 2, 4, 1], StepPlan(steps=150, batch_size=4, learning_rate=1e-2), RUNTIME, "learn"
    )
    assert history[-1] < 0.2 < history[0]
    with torch.no_grad():
        written, _ = net.write(
            net.prefix({"embedding": inputs}), Sampling(max_tokens=6, temperature=0), torch.zeros(6, 4)
        )
    assert [[token for token in row if token] for row in written.tolist()] == TEXTS


class Killing(Checkpoints):
    """Saves at once, and kills the work after some steps."""

    def __init__(self, path, left):
        super().__init__(path, interval_s=0.0)
        self.left = left

    def offer(self, state):
        super().offer(state)
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def test_a_killed_training_goes_on_bit_for_bit(tmp_path):
    plan, inputs, nets = StepPlan(steps=30, batch_size=2), values(), [decoder(), decoder(), decoder()]
    whole = train_steps(nets[0], rows_of(nets[0], inputs), [3, 2, 4, 1], plan, RUNTIME, "learn")
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train_steps(
            nets[1], rows_of(nets[1], inputs), [3, 2, 4, 1], plan, RUNTIME.with_checkpoints(Killing(path, 13)), "learn"
        )
    again = RUNTIME.with_checkpoints(Checkpoints(path, interval_s=1e9))
    assert train_steps(nets[2], rows_of(nets[2], inputs), [3, 2, 4, 1], plan, again, "learn") == whole
    for one, other in zip(nets[0].parameters(), nets[2].parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_pass_takes_every_row_once_and_neighbours_in_length():
    lengths = [(7 * k) % 50 for k in range(640)]
    batches = [batch_of(step, lengths, 16, RUNTIME, "order") for step in range(40)]
    assert sorted(torch.cat(batches).tolist()) == list(range(640))
    spreads = [max(lengths[row] for row in batch) - min(lengths[row] for row in batch) for batch in batches]
    assert sum(spreads) / 40 < 8
    assert not torch.equal(batches[0], batch_of(40, lengths, 16, RUNTIME, "order"))


def test_fewer_examples_than_a_batch_are_all_taken():
    assert sorted(batch_of(3, [1, 2, 3], 64, RUNTIME, "few").tolist()) == [0, 1, 2]


def test_a_loss_that_is_no_number_ends_the_training():
    net = decoder()
    sound = rows_of(net, values())
    with pytest.raises(ModelError, match="learn diverged"):
        train_steps(
            net, lambda rows: sound(rows) * torch.nan, [3, 2, 4, 1], StepPlan(steps=4, batch_size=4), RUNTIME, "learn"
        )


def test_the_rate_warms_up_and_ends_at_nothing():
    plan = StepPlan(steps=1000, warmup=100)
    assert plan.rate(0) == pytest.approx(0.01)
    assert plan.rate(99) == 1
    assert plan.rate(550) == pytest.approx(0.5)
    assert plan.rate(1000) == pytest.approx(0, abs=1e-6)


def test_standardised_vectors_have_unit_scale():
    vectors = 3 + 5 * torch.randn(1000, 6, generator=torch.Generator().manual_seed(0))
    found = standardised(vectors, statistics_of(vectors))
    torch.testing.assert_close(found.mean(dim=0), torch.zeros(6), atol=1e-5, rtol=0)
    assert float(found.std(dim=0).mean()) == pytest.approx(1, rel=1e-4)
