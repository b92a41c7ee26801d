"""The student in the target's place: a base attack sees a target whose network is the adversary's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mi_image.adapter import ImageAdapter
from mi_image.students import restore_students
from micore.inputs import InputSpec
from micore.kit.target_views import TargetView
from micore.runtime import Runtime
from micore.target import CountedModule, Target
from micore.threat import Access, Ledger

__all__ = ["Committee", "student_view"]


class Committee(nn.Module):
    """Several students: the mean of their logits. Features are those of the last one."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, K)."""
        return torch.stack([member(images) for member in self.members]).mean(dim=0)


def student_view(target: Target, students: Mapping[str, Any], runtime: Runtime) -> TargetView:
    """Return a target that is the students, open to white-box attacks and counted in a ledger of its own.

    students: what `mi_attack_surrogate.teaching.taught` returned. The target itself is asked nothing.
    """
    networks = restore_students(students, runtime)
    network = networks[0] if len(networks) == 1 else Committee(networks)
    arguments = students["arguments"]
    spec = InputSpec(shape=(arguments["channels"], arguments["size"], arguments["size"]))
    ledger = Ledger()
    module = CountedModule(network, ImageAdapter(spec), ledger)

    @torch.no_grad()
    def scores(images: Tensor) -> Tensor:
        logits: Tensor = module(images)
        return logits.float().softmax(dim=1)

    return TargetView(
        target, module=module, scores=scores, labels=lambda images: scores(images).argmax(dim=1), ledger=ledger,
        access=Access.WHITE_BOX, input_spec=spec,
    )  # fmt: skip
