"""What the templates of ``mi new`` say that is another thing for each modality."""

from __future__ import annotations

from collections.abc import Mapping

ATTACKS: Mapping[str, tuple[str, str, str, str]] = {
    "image": ("class", "WHITE_BOX", "", "Gradient ascent from noise to samples that the target is sure of"),
    "audio": ("class", "SCORES", "public", "The public clips that the target is surest of"),
    "text": ("instance", "SCORES", "public", "The words of public texts whose embeddings are near the private one"),
    "graph": ("structure", "SCORES", "", "Nodes that the target answers alike are taken for neighbours"),
    "tabular": ("attribute", "SCORES", "", "The sensitive value with which the target finds the true label likeliest"),
}
"""Goal, least access, what it needs, and what the new attack does."""

ATTACKED = {"text": "encoder", "graph": "gnn"}
ANSWERING = {"graph": "gnn"}
CLASSIFIER = "classifier"
"""Roles of targets: of those that are attacked, and of those that answer with the scores of classes."""

DATA: Mapping[str, str] = {
    "image": "Drawn bars, turned by another angle for each class",
    "audio": "Drawn tones, at another pitch for each class",
    "text": "Made sentences with words of their own for each class",
    "graph": "A drawn graph, whose nodes of one class are joined more often",
    "tabular": "Drawn people, of whom a habit makes some ill",
}
"""What a new data set consists of."""

JUDGED: Mapping[str, str] = {
    "text": "the words that both texts have",
    "graph": "the recovered edges that are there",
    "tabular": "whether the sensitive value is the true one",
}
"""What a new evaluator compares with the truth."""

GRAPH_TRAINING = """
            training={"epochs": 200, "batch_size": 4096, "learning_rate": 1e-2, "augment": "none"},"""
"""All nodes at once, as graph networks are trained."""

MAY_JUDGE = " It may also judge: take the role `evaluator` out of `plugin.py` if it should not."


def wording(kind: str, modality: str) -> dict[str, str]:
    """Return the words for a kind of plugin of a modality."""
    goal, access, needs, does = ATTACKS[modality]
    role = ATTACKED.get(modality, CLASSIFIER) if kind == "attack" else ANSWERING.get(modality, CLASSIFIER)
    return {
        "goal": goal, "access": access, "does": does, "role": role,
        "needs": f'\n            needs=("{needs}",),' if needs else "",
        "defended": "any" if modality in ("image", "audio") else modality,
        "roles": f'("{role}",)' if modality == "graph" else f'("{role}", "evaluator")',
        "training": GRAPH_TRAINING if modality == "graph" else "",
        "may_judge": "" if modality == "graph" else MAY_JUDGE,
        "summary": DATA[modality], "judged": JUDGED.get(modality, ""),
    }  # fmt: skip
