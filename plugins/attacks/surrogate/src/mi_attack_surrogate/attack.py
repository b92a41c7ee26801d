"""Surrogate: a student learns the target's answers, and a white-box attack is run on the student.

Threat model: labels of all queries, or scores where the run grants them; unlabelled public images of the same kind; an
adversary who does not trust the target's gradients or who has none.

A defense can make gradients useless (they point to a planted trap, or are tiny, or the answers are rounded or noisy)
without hiding what the network knows, for its answers still tell it. This attack

1. asks the target once about each public image, and about random views and mixtures of them if it is told to,
2. trains a student on these answers (scores by distillation, labels as they are, with random views of the images),
3. runs any attack, white-box ones above all, on the student: preparation, search and choice ask the target nothing.

What the base attack spends on the student is free: the run's cost is that of the first step alone.

Fidelity notes
- There is no paper that it follows: attacking a copy that was distilled is the oldest way around gradient masking
  (Papernot et al., ASIA CCS 2017). LOKT is the published form of it for label-only inversion: there generated images
  are labelled, here public ones, so that any attack fits.
- Students and their training are those of LOMMA for scores (`mi_image.students`) and of LOKT for labels
  (`mi_image.surrogates`).
- The samples of a case come best first by the student; the target is not asked for a last look.
- Scores of which an interface shows a part (``--top-k``, ``--round``) are brought to the sum 1 before they are learned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from mi_attack_surrogate.config import SurrogateConfig
from mi_attack_surrogate.student_view import student_view
from mi_attack_surrogate.teaching import asked_images, taught
from micore.contracts import Case, Config, Forecast, Prepared, Reconstruction, Split
from micore.errors import DataError
from micore.kit.stages import Stages
from micore.kit.wrappers import Wrapper
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Spending


class Surrogate(Wrapper):
    """The attack surrogate (see the module's documentation)."""

    Config: ClassVar[type[Config]] = SurrogateConfig
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "default": {
            "student_network": "small-resnet", "student_widths": [16], "student_epochs": 30,
            "student_learning_rate": 0.05, "views": 1, "view_area": 0.8, "view_rotation": 10.0,
        },
        "smoke": {
            "base_preset": "smoke", "student_network": "small-cnn", "student_widths": [8], "student_epochs": 20,
            "student_batch_size": 32, "student_learning_rate": 0.05, "views": 3, "view_area": 0.8,
        },
        "paper": {"base_preset": "paper"},
    }  # fmt: skip
    PREPARE_FIELDS: ClassVar[frozenset[str]] = frozenset(SurrogateConfig.model_fields)
    ATTACKS_OWN_MODEL: ClassVar[bool] = True

    def __init__(self, config: SurrogateConfig) -> None:
        super().__init__(config)
        self.config = config

    def prepare(self, target: Target, public: Split | None, runtime: Runtime) -> Prepared:
        """Have public images answered, train the student and prepare the base attack on it.

        Raises: DataError without public images; MiError for images that are too small for a student.
        """
        base, stages = self.wrapped(), Stages(runtime)
        images = asked_images(self.config, public, runtime)
        students = taught(self.config, target, images, stages, runtime)
        view = student_view(target, students, runtime)

        def prepare_base(stage: Runtime) -> Mapping[str, Any]:
            prepared = base.prepare(view, public, stage)
            return {} if prepared is None else {"state": dict(prepared.state)}

        return Prepared(state={"students": students, "base": stages.run("base", prepare_base)})

    def run(
        self, target: Target, cases: Sequence[Case], prepared: Prepared | None, runtime: Runtime
    ) -> Iterator[Reconstruction]:
        """Run the base attack on the student; the target is not asked."""
        if prepared is None:
            raise DataError("surrogate was not prepared")
        view = student_view(target, prepared.state["students"], runtime)
        for item in self.wrapped().run(view, cases, self.base_prepared(prepared), runtime):
            yield replace(item, snapshots=())  # their queries are the student's

    def cost(self, base: Forecast, n_public: int) -> Forecast:
        """Count one query for each image that is asked about; the search is free."""
        return Forecast(preparation=Spending(queries=self.config.queries(n_public)), per_case=Spending())

    def base_prepared(self, prepared: Prepared | None) -> Prepared | None:
        """Return what the base attack prepared on the student."""
        state = {} if prepared is None else prepared.state["base"]
        return Prepared(state=state["state"]) if "state" in state else None
