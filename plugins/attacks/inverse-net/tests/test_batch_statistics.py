"""Statistics of batch normalisation are those of all inputs under the final weights."""

import torch
from torch import nn

from mi_attack_inverse_net.batch_statistics import BATCH, settle_statistics
from micore.runtime import Random


def test_statistics_become_those_of_the_data_and_nothing_else_changes():
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, momentum=0.3)).eval()
    weights = network[0].weight.clone()
    inputs = Random(1).normal((50, 3)) * 5 + 2
    settle_statistics(network, inputs)
    hidden = network[0](inputs).detach()
    torch.testing.assert_close(network[1].running_mean, hidden.mean(dim=0))
    torch.testing.assert_close(network[1].running_var, hidden.var(dim=0))
    assert network[1].momentum == 0.3
    assert not network.training
    assert torch.equal(network[0].weight, weights)
    torch.testing.assert_close(network(inputs).std(dim=0), torch.ones(2), rtol=1e-3, atol=1e-3)


def test_no_part_is_a_single_row():
    network = nn.BatchNorm1d(1)
    inputs = Random(1).normal((BATCH + 1, 1))
    settle_statistics(network, inputs)
    torch.testing.assert_close(network.running_mean, inputs.mean(dim=0), rtol=0, atol=1e-3)
    assert network.num_batches_tracked == 2
