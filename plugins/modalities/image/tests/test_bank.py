"""The candidate bank: what it holds, what it costs, and that a killed one goes on to the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mi_image.bank import BankSettings, CandidateBank, fill_bank
from micore.artifacts import load_state, save_state
from micore.contracts import Case
from micore.runtime import Checkpoints, Runtime

CPU = Runtime(device=torch.device("cpu"), seed=3, tile=4)


@dataclass
class Stripes:
    """A prior of two layers: the first code sets the left half of a picture, the second one the right half."""

    n_classes: int = 0
    latent_dim: int = 2
    labels: list[Tensor] = field(default_factory=list)
    rendered: int = 0

    def map(
        self, latents: Tensor, labels: Tensor | None = None, *, psi: float = 1.0, cutoff: int | None = None
    ) -> Tensor:
        if labels is not None:
            self.labels.append(labels)
        ws = latents[:, None].expand(-1, 2, -1)
        return torch.cat([ws[:, :cutoff] * psi, ws[:, cutoff:]], dim=1) if cutoff else ws * psi

    def render(self, ws: Tensor) -> Tensor:
        self.rendered += len(ws)
        halves = ws.sigmoid().mean(dim=2)[:, None, None, :]
        return halves.repeat_interleave(2, dim=3).expand(-1, 1, 4, -1)


@dataclass
class Halves:
    """A target of two classes: the brightness of the left and of the right half."""

    batches: list[int] = field(default_factory=list)

    def __call__(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        return images.mean(dim=(1, 2)).unflatten(1, (2, -1)).mean(dim=2).mul(4).softmax(dim=1)


def filled(settings: BankSettings, runtime: Runtime = CPU) -> tuple[CandidateBank, Stripes, Halves]:
    prior, scores = Stripes(), Halves()
    return fill_bank(prior, scores, settings, runtime), prior, scores


def test_it_holds_the_first_code_and_the_answer_to_the_picture() -> None:
    bank, prior, scores = filled(BankSettings(size=10, psi=0.5, cutoff=1))
    latents = CPU.rng("bank", "latents").normal((10, 2))
    assert torch.equal(bank.styles, latents * 0.5)
    wanted = Halves()(Stripes().render(torch.stack([latents * 0.5, latents], dim=1)))
    torch.testing.assert_close(bank.scores, wanted)
    assert prior.rendered == 10
    assert scores.batches == [4, 4, 2]


def test_mirror_images_are_averaged_in_one_batch() -> None:
    bank, _, scores = filled(BankSettings(size=6, cutoff=1, psi=0.0, mirror=True))
    assert scores.batches == [8, 4]
    torch.testing.assert_close(bank.scores, torch.full((6, 2), 0.5))  # left and right change places
    assert BankSettings(size=6, mirror=True).views == 2


def test_select_gives_distinct_best_rows_per_class() -> None:
    scores = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.8, 0.2], [0.6, 0.4]])
    bank = CandidateBank(styles=torch.arange(4.0)[:, None], scores=scores)
    assert bank.select(3).indices.tolist() == [[1, 2, 3], [0, 3, 1]]
    cases = [Case(id=f"class-{label}", goal="class", label=label) for label in (1, 0)]
    assert bank.starts(cases, 2).squeeze(2).tolist() == [[0, 3], [1, 2]]
    with pytest.raises(ValueError, match="candidates"):
        bank.select(5)


def test_what_the_target_sees_may_be_a_part_of_the_picture() -> None:
    prior, scores = Stripes(), Halves()
    bank = fill_bank(prior, scores, BankSettings(size=4, cutoff=1, psi=0.0), CPU, lambda images: images[..., :2])
    torch.testing.assert_close(bank.scores, torch.full((4, 2), 0.5))


def test_a_conditional_prior_draws_its_classes_uniformly() -> None:
    prior = Stripes(n_classes=3)
    fill_bank(prior, Halves(), BankSettings(size=300), CPU)
    drawn = torch.cat(prior.labels).bincount(minlength=3)
    assert len(drawn) == 3
    assert drawn.min() > 70


class _KilledError(BaseException):
    pass


class _Killing(Checkpoints):
    def __init__(self, path: Path, last: int) -> None:
        super().__init__(path, interval_s=0.0)
        self._left = last

    def offer(self, state: Callable[[], Mapping[str, Any]]) -> None:
        super().offer(state)
        self._left -= 1
        if not self._left:
            raise _KilledError


def test_a_killed_bank_goes_on_without_asking_again(tmp_path: Path) -> None:
    settings, path = BankSettings(size=11, psi=0.7), tmp_path / "bank.safetensors"
    whole, _, _ = filled(settings)
    with pytest.raises(_KilledError):
        filled(settings, CPU.with_checkpoints(_Killing(path, 2)))
    again, _, scores = filled(settings, CPU.with_checkpoints(Checkpoints(path, interval_s=1e9)))
    assert scores.batches == [3]
    assert torch.equal(again.styles, whole.styles)
    assert torch.equal(again.scores, whole.scores)


def test_it_can_be_stored(tmp_path: Path) -> None:
    bank, _, _ = filled(BankSettings(size=5))
    save_state(tmp_path / "bank.safetensors", bank.state())
    again = CandidateBank.restore(load_state(tmp_path / "bank.safetensors")[0], CPU)
    assert torch.equal(again.scores, bank.scores)
    assert torch.equal(
        again.starts([Case(id="a", goal="class", label=1)], 3), bank.starts([Case(id="a", goal="class", label=1)], 3)
    )


def test_another_seed_is_another_bank() -> None:
    settings = BankSettings(size=5)
    other, _, _ = filled(settings, Runtime(device=torch.device("cpu"), seed=4, tile=4))
    assert not torch.equal(other.styles, filled(settings)[0].styles)
