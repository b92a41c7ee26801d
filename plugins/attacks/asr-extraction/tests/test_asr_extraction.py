"""Noise masking: what transcripts say of hidden digits, the order of guesses, and the planted problem."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchaudio.functional import edit_distance

from mi_attack_asr_extraction.attack import MaskedRanking, MaskedRankingConfig, NoiseMasking, NoiseMaskingConfig
from mi_attack_asr_extraction.guesses import beginnings, hidden_part, ranked
from mi_audio.evidence import Masked
from micore.contracts import Case
from micore.errors import UsageError
from micore.inputs import InputSpec
from micore.runtime import Runtime
from micore.target import Target
from micore.testing import Trial
from micore.threat import Access, Ledger

CPU = Runtime(device=torch.device("cpu"))
HELD = Masked(
    waveform=torch.linspace(-0.5, 0.5, 4000), span=(1600, 3200), prefix="12", hidden=2,
    candidates=tuple(f"{number:02d}" for number in range(100)),
)  # fmt: skip
CASE = Case(id="canary-0-r1", goal="corpus", evidence=HELD)

digits = st.text("0123", max_size=6)


# guesses --------------------------------------------------------------------------------------------------


@given(digits, digits)
def test_distances_of_beginnings_are_edit_distances(said, prefix):
    expected = [edit_distance(said[:end], prefix) for end in range(len(said) + 1)]
    assert beginnings(said, prefix) == expected


@pytest.mark.parametrize(
    ("said", "hidden"),
    [("1234", "34"), ("12", ""), ("134", "34"), ("10234", "34"), ("9234", "34"), ("", ""), ("1212", "12")],
)
def test_what_is_hidden_is_behind_what_is_most_like_the_known_digits(said, hidden):
    assert hidden_part(said, "12", 2) == hidden


def test_guesses_are_counted_and_those_of_another_length_come_last():
    guesses, scores = ranked(["1234", "1256", "1256", "123", "123", "123"], "12", 2)
    assert guesses == ["56", "34", "3"]
    assert scores == pytest.approx([2 / 6, 1 / 6, 3 / 6 - 1])


# against a target that is known ---------------------------------------------------------------------------


def target(access: Access, **services: object) -> Target:
    return Target(
        lambda inputs: torch.zeros(len(inputs), 1), access=access, adapter=lambda samples: samples,
        input_spec=InputSpec(shape=(4000,), options={"sampling_rate": 16000}), classes=tuple("0123456789"),
        ledger=Ledger(), runtime=CPU, role="recogniser", services=services,  # type: ignore[arg-type]
    )  # fmt: skip


def test_transcripts_are_asked_for_once_for_each_draw_of_each_fill():
    asked = []

    def transcribe(clips, beam):
        asked.append((clips, beam))
        return ["1234"] * 3 + ["1256"] * 2 + ["12"]

    attack = NoiseMasking(NoiseMaskingConfig(fills=("white", "silence"), draws=3, beam=4))
    (found,) = attack.run(target(Access.LABEL, transcribe=(Access.LABEL, transcribe)), [CASE], None, CPU)
    ((clips, beam),) = asked
    assert beam == 4
    assert clips.shape == (6, 4000)
    assert attack.forecast(10, 0).per_case.queries == 6
    assert bool((clips[3:, 1600:3200] == 0).all())
    assert len(clips[:3].unique(dim=0)) == 3
    assert torch.equal(clips[:, :1600], HELD.waveform[:1600].expand(6, -1))
    assert found.samples == ["1234", "1256", "12"]
    assert found.scores.tolist() == pytest.approx([1 / 2, 1 / 3, 1 / 6 - 1])


def test_all_candidates_are_ranked_by_their_mean_over_draws():
    table = torch.arange(200.0).view(2, 100).flip(1)
    table[1, 7] = 1e4

    def likelihoods(clips, transcripts):
        assert list(transcripts) == ["12" + text for text in HELD.candidates]
        return table

    service = {"log_likelihoods": (Access.SCORES, likelihoods)}
    attack = MaskedRanking(MaskedRankingConfig(draws=2))
    (found,) = attack.run(target(Access.SCORES, **service), [CASE], None, CPU)
    assert found.samples[:3] == ["1207", "1200", "1201"]
    torch.testing.assert_close(found.scores, table.mean(0).sort(descending=True).values)
    (short,) = MaskedRanking(MaskedRankingConfig(keep=2)).run(target(Access.SCORES, **service), [CASE], None, CPU)
    assert short.samples == ["1207", "1200"]


def test_other_evidence_and_other_targets_are_refused():
    with pytest.raises(UsageError, match="holds NoneType, not Masked"):
        next(NoiseMasking(NoiseMaskingConfig()).run(target(Access.LABEL), [Case(id="a", goal="corpus")], None, CPU))
    with pytest.raises(UsageError, match="does not offer 'transcribe'"):
        next(NoiseMasking(NoiseMaskingConfig()).run(target(Access.LABEL), [CASE], None, CPU))


# the planted problem --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), [("asr-extraction", {"keep": 1}), ("asr-extraction-label", {})])
def test_trained_secrets_are_found_and_the_one_that_was_never_trained_on_is_not(name, options):
    trial = Trial(name, **options)
    _, found = trial.run()
    judged = {item.case.id: float(trial.setting.judge(item.case, item.samples)[0]) for item in found}
    trained = [value for key, value in judged.items() if not key.endswith("-r0")]
    assert sum(value == 1 for value in trained) >= 2
    assert judged["canary-3-r0"] < 1
