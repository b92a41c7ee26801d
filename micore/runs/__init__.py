"""Runs: what was asked, what was done, what came of it."""

from micore.runs.compare import Comparison, compare
from micore.runs.evaluation import evaluate_run
from micore.runs.request import AttackRequest
from micore.runs.runner import attack, problem, resume
from micore.runs.session import Session, open_session
from micore.runs.store import Run

__all__ = [
    "AttackRequest",
    "Comparison",
    "Run",
    "Session",
    "attack",
    "compare",
    "evaluate_run",
    "open_session",
    "problem",
    "resume",
]
