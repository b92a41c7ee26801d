"""From an embedding to the words of its text: a classifier of every word, and a decoder of sets."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class LabelNetwork(nn.Module):
    """Multi-label classifier: a perceptron with one hidden layer gives a logit for each word."""

    def __init__(self, inputs: int, hidden: int, size: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, size))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the logits (N, size) of embeddings (N, d)."""
        logits: Tensor = self.layers(embeddings)
        return logits.float()

    def losses(self, embeddings: Tensor, hot: Tensor, positive_weight: float) -> Tensor:
        """Return the binary cross-entropy, mean over the words, of true sets ``hot``, bool (N, size); (N,).

        Words that stand in the text count ``positive_weight`` times.
        """
        logits = self(embeddings)
        weight = torch.full((logits.shape[1],), positive_weight, device=logits.device)
        return functional.binary_cross_entropy_with_logits(
            logits, hot.float(), pos_weight=weight, reduction="none"
        ).mean(dim=1)

    @torch.no_grad()
    def confidences(self, embeddings: Tensor, threshold: float) -> Tensor:
        """Return the log-probability of each word above the threshold, -inf of the others, (N, size).

        The most likely word always counts, so that no set is empty.
        """
        found = functional.logsigmoid(self(embeddings))
        chosen = found.exp() > threshold
        chosen.scatter_(1, found.argmax(dim=1, keepdim=True), True)
        return found.masked_fill(~chosen, -torch.inf)


class SetNetwork(nn.Module):
    """Decoder of sets: a recurrent cell gives one word a step, in no order, then an end.

    The embedding starts the state and goes into every step. A word that was given is never given again.
    """

    def __init__(self, inputs: int, hidden: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.start = nn.Linear(inputs, hidden)
        self.seen = nn.Linear(inputs, hidden)
        self.given = nn.Embedding(size + 1, hidden)
        self.cell = nn.GRUCell(hidden, hidden)
        self.words = nn.Linear(hidden, size + 1)

    def losses(self, embeddings: Tensor, hot: Tensor, steps: int, explore: float) -> Tensor:
        """Return the mean loss of the steps of each text, (N,); true sets ``hot``: bool (N, size).

        The loss of a step is ``-1/|R| sum over R of log p``, R being the true words that were not given yet; once
        there are none, the loss is that of the end, and the last one. The word that a step gives is drawn from the
        network's own distribution, of all words (a share ``explore`` of the steps) or of those in R.
        """
        left, state = hot.clone(), _State(self, embeddings)
        total = torch.zeros(len(hot), device=hot.device)
        counted, running = torch.zeros_like(total), torch.ones_like(total, dtype=torch.bool)
        for _ in range(steps):
            found = state.step()
            wanted = torch.cat([left, ~left.any(dim=1, keepdim=True)], dim=1)
            total = total + torch.where(running, set_loss(found, wanted), 0.0)
            counted, running = counted + running, running & left.any(dim=1)
            given = _drawn(found.detach(), left, explore)
            left = left & ~functional.one_hot(given, self.size + 1)[:, :-1].bool()
            state.give(given)
        return total / counted

    @torch.no_grad()
    def confidences(self, embeddings: Tensor, steps: int) -> Tensor:
        """Return the log-probability with which each word was given, -inf of those that were not, (N, size).

        Each step gives the most likely word, up to the end or for ``steps`` steps; the first one never ends.
        """
        state = _State(self, embeddings)
        gave = torch.full((len(embeddings), self.size), -torch.inf, device=embeddings.device)
        running = torch.ones(len(embeddings), dtype=torch.bool, device=embeddings.device)
        for step in range(min(steps, self.size)):
            found = state.step()
            if step == 0:
                found[:, -1] = -torch.inf
            likelihood, given = found.max(dim=1)
            running = running & (given < self.size)
            words = functional.one_hot(given, self.size + 1)[:, :-1].bool() & running[:, None]
            gave = torch.where(words, likelihood[:, None], gave)
            state.give(given)
        return gave


class _State:
    """Where the decoding of some texts stands."""

    def __init__(self, network: SetNetwork, embeddings: Tensor) -> None:
        self.network = network
        self.seen = network.seen(embeddings)
        self.hidden = torch.tanh(network.start(embeddings))
        self.last = torch.full((len(embeddings),), network.size, device=embeddings.device)
        self.taken = torch.zeros(len(embeddings), network.size + 1, dtype=torch.bool, device=embeddings.device)

    def step(self) -> Tensor:
        """Return the log-probabilities of the next word and, last, of the end, (N, size + 1)."""
        self.hidden = self.network.cell(self.network.given(self.last) + self.seen, self.hidden)
        logits: Tensor = self.network.words(self.hidden).float()
        return logits.masked_fill(self.taken, -torch.inf).log_softmax(dim=1)

    def give(self, words: Tensor) -> None:
        """Go on after these words (N,); the end can be given more than once."""
        hot = functional.one_hot(words, self.network.size + 1).bool()
        self.taken = self.taken | (hot & (words < self.network.size)[:, None])
        self.last = words


def set_loss(log_probabilities: Tensor, wanted: Tensor) -> Tensor:
    """Return ``-1/|R| sum over R of log p`` for the sets R of each row, bool (N, K), none of them empty; (N,)."""
    found = torch.where(wanted, log_probabilities, 0.0).sum(dim=1)
    return -found / wanted.sum(dim=1)


def _drawn(log_probabilities: Tensor, left: Tensor, explore: float) -> Tensor:
    """Draw a word for each row (N,): of all, or of those that are left; the end where none is left.

    Drawn from the global generators, which a training seeds.
    """
    noise = -torch.empty_like(log_probabilities).exponential_().log()  # Gumbel: the largest sum is a draw
    noisy = log_probabilities + noise
    ended = ~left.any(dim=1)
    free = torch.rand(len(left), device=left.device) < explore
    among = torch.cat([left | free[:, None], torch.zeros_like(ended)[:, None]], dim=1)
    found = noisy.masked_fill(~among, -torch.inf).argmax(dim=1)
    return torch.where(ended, left.shape[1], found)
