"""What a run was asked to do: everything needed to do it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from micore.artifacts import PluginUse
from micore.data import DataRequest
from micore.target import AnswerForm
from micore.threat import Access, Budget


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackRequest:
    """One attack on one target.

    attack: name, with the user's options as its config (over ``preset``); model: a bundle's path or
    a URI; data: None takes what the bundle was trained on; choice: the cases, such as ``0-4``;
    evidence: what the adversary holds of each case, for goal ``instance``; None: the modality's usual;
    access: None grants the least that the attack needs; batch: cases between two checkpoints;
    model_options: of the source that opens a URI; form: what the target's interface shows of its scores;
    evaluators: None runs all that fit; evaluator_model: None trains one; judges: how many evaluator models.
    data_root: where the target's own data lie, if ``data`` does not say it.
    """

    attack: PluginUse
    model: str
    preset: str = "default"
    data: DataRequest | None = None
    choice: str | None = None
    evidence: str | None = None
    access: Access | None = None
    budget: Budget = field(default_factory=Budget)
    seed: int = 0
    device: str = "auto"
    precision: str = "fp32"
    compiled: bool = False
    batch: int = 16
    tile: int | None = None
    evaluators: tuple[PluginUse, ...] | None = None
    evaluator_model: str | None = None
    judges: int = 1
    model_options: Mapping[str, Any] = field(default_factory=dict)
    form: AnswerForm = field(default_factory=AnswerForm)
    data_root: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "attack": _use_dict(self.attack),
            "model": self.model,
            "preset": self.preset,
            "data": self.data.to_dict() if self.data else None,
            "choice": self.choice,
            "evidence": self.evidence,
            "access": self.access.label if self.access else None,
            "budget": {"queries": self.budget.queries, "seconds": self.budget.seconds},
            "seed": self.seed,
            "device": self.device,
            "precision": self.precision,
            "compiled": self.compiled,
            "batch": self.batch,
            "tile": self.tile,
            "evaluators": None if self.evaluators is None else [_use_dict(use) for use in self.evaluators],
            "evaluator_model": self.evaluator_model,
            "judges": self.judges,
            "model_options": dict(self.model_options),
            "form": self.form.to_dict(),
            "data_root": self.data_root,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AttackRequest:
        """Read the JSON form."""
        uses = data["evaluators"]
        plain = {key: data[key] for key in ("model", "preset", "choice", "seed", "device", "precision")}
        plain |= {key: data[key] for key in ("compiled", "batch", "tile", "evaluator_model")}
        return cls(
            attack=PluginUse(**data["attack"]),
            judges=data.get("judges", 1),
            model_options=data.get("model_options", {}),
            form=AnswerForm(**data.get("form", {})),
            data_root=data.get("data_root"),
            evidence=data.get("evidence"),  # runs of before the goal `instance` have none
            data=DataRequest.from_dict(data["data"]) if data["data"] else None,
            access=Access.parse(data["access"]) if data["access"] else None,
            budget=Budget(**data["budget"]),
            evaluators=None if uses is None else tuple(PluginUse(**use) for use in uses),
            **plain,
        )

    def with_budget(self, budget: Budget) -> AttackRequest:
        """Return the same request with another budget (for resuming)."""
        return replace(self, budget=budget)


def _use_dict(use: PluginUse) -> dict[str, Any]:
    return {"name": use.name, "config": dict(use.config)}
