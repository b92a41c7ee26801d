"""Answers as models give them, and documents as servers send them."""

from __future__ import annotations

from typing import Any

import pytest

from mi_evaluator_vlm_judge.verdicts import UnreadableError, Verdict, parse, verdict_of

YES, NO, UNCLEAR, REFUSED = Verdict.YES, Verdict.NO, Verdict.UNCLEAR, Verdict.REFUSED


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("yes", YES),
        (" Yes.\n", YES),
        ("**YES**", YES),
        ("Yes, they cannot be told apart.", YES),
        ("Answer: yes", YES),
        ("The answer is yes.", YES),
        ("<think>No glasses in B. No beard. But the nose... yes.</think>\n\nyes", YES),
        ("no", NO),
        ("No, A is somebody else.", NO),
        ('{"answer": "no"}', NO),
        ("<think>yes, at first sight</think>No", NO),
        ("yes no", UNCLEAR),
        ("No... on second thought, yes", UNCLEAR),
        ("Yes or no? Hard to say.", UNCLEAR),
        ("I would not say yes", UNCLEAR),
        ("I don't think the answer is yes", UNCLEAR),
        ("Yes is not the answer", UNCLEAR),
        ("Maybe.", UNCLEAR),
        ("yesterday nobody knew", UNCLEAR),
        ("<think>yes, that is the same", UNCLEAR),
        ("", REFUSED),
        ("  \n", REFUSED),
        ("I'm sorry, but I can't help with identifying people.", REFUSED),
        ("I cannot compare faces.", REFUSED),
        ("I\u2019m unable to determine identity", REFUSED),
    ],
)  # fmt: skip
def test_answers_are_told_apart(text: str, verdict: Verdict) -> None:
    assert parse(text) is verdict


@pytest.mark.parametrize(
    ("choice", "verdict"),
    [
        ({"message": {"content": "Yes"}}, YES),
        ({"message": {"content": [{"type": "text", "text": "no"}]}}, NO),
        ({"message": {"content": None}}, REFUSED),
        ({"message": {"content": "yes", "refusal": "I can't do that"}}, REFUSED),
        ({"message": {"content": "yes"}, "finish_reason": "content_filter"}, REFUSED),
    ],
)
def test_documents_are_read(choice: dict[str, Any], verdict: Verdict) -> None:
    assert verdict_of({"choices": [choice]}) is verdict


@pytest.mark.parametrize(
    "document",
    [None, [], {}, {"choices": []}, {"choices": [3]}, {"choices": [{}]}, {"choices": [{"message": {"content": 7}}]}],
)
def test_what_is_no_answer_is_said(document: Any) -> None:
    with pytest.raises(UnreadableError):
        verdict_of(document)
