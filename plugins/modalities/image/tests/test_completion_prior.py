"""How attacks on instances prepare the completion network: its cost, what is shared, what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from mi_image.completion_prior import CompletionConfig, completion_cost, prepare_completion
from mi_image.inpainting_training import restore_inpainting
from mi_image.modality import ImageModality
from micore.errors import ConfigError, DataError, MiError
from micore.inputs import InputSpec
from micore.runtime import Runtime
from micore.shelf import Shelf
from micore.target import Target
from micore.threat import Access, Ledger

CPU = Runtime(device=torch.device("cpu"), seed=1)
TINY = {"latent_dim": 3, "width": 2, "critic_width": 2, "iterations": 2, "gan_batch_size": 4}


@dataclass(frozen=True)
class Public:
    """Public images without labels."""

    samples: Tensor
    labels: None = None

    def __len__(self) -> int:
        return len(self.samples)

    def take(self, indices: Sequence[int] | Tensor) -> Tensor:
        return self.samples[torch.as_tensor(indices)]


PUBLIC = Public(torch.rand(12, 1, 16, 16, generator=torch.Generator().manual_seed(0)))


def target(access: Access = Access.WHITE_BOX) -> Target:
    spec = InputSpec(shape=(1, 16, 16), mean=(0.5,), std=(0.5,))
    with CPU.seeded("linear"):
        module = nn.Sequential(nn.Flatten(), nn.Linear(256, 5), nn.ReLU(), nn.Linear(5, 3))
    return Target(
        module, access=access, adapter=ImageModality().adapter(spec), input_spec=spec, classes=list("abc"),
        ledger=Ledger(), runtime=CPU,
    )  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"diversity": "pixels"}, {"diversity_weight": 0.0}])
def test_it_costs_the_target_what_was_counted(options: dict[str, object]) -> None:
    config, asked = CompletionConfig(**TINY, **options), target()
    prepared = prepare_completion("test", config, asked, PUBLIC, CPU)
    assert asked.ledger.total == completion_cost(config)
    assert completion_cost(config).queries == (0 if options else 2 * 4 * 2)
    torch.testing.assert_close(prepared.state["mean"], PUBLIC.samples.mean(dim=(0, 2, 3)))
    assert restore_inpainting(prepared.state, CPU).generator.size == 16


def test_pixels_need_no_white_box_and_are_shared(tmp_path: Path) -> None:
    runtime, config = replace(CPU, shelf=Shelf(tmp_path)), CompletionConfig(**TINY, diversity="pixels")
    for _ in range(2):
        prepare_completion("test", config, target(Access.SCORES), PUBLIC, runtime)
    prepare_completion("test", config.model_copy(update={"evidence": "bottom"}), target(Access.LABEL), PUBLIC, runtime)
    assert len(list(tmp_path.glob("completion-*.safetensors"))) == 2


def test_what_cannot_work_is_refused_before_any_query() -> None:
    asked = target()
    with pytest.raises(DataError, match="test needs public images"):
        prepare_completion("test", CompletionConfig(**TINY), asked, None, CPU)
    with pytest.raises(MiError, match="square images"):
        prepare_completion("test", CompletionConfig(**TINY), asked, Public(torch.zeros(3, 1, 12, 12)), CPU)
    with pytest.raises(ConfigError, match="nothing ties completions") as caught:
        prepare_completion("test", CompletionConfig(**TINY, evidence="blur"), asked, PUBLIC, CPU)
    assert "evidence_weight" in (caught.value.hint or "")
    with pytest.raises(ValidationError, match="no kind of evidence"):
        CompletionConfig(evidence="fog")
    assert asked.ledger.total.queries == 0


def test_blurred_evidence_is_fine_with_a_weight() -> None:
    config = CompletionConfig(**TINY, evidence="blur", evidence_weight=0.1)
    assert "generator" in prepare_completion("test", config, target(), PUBLIC, CPU).state
