"""A finished target is given defenses of its answers by the command line, and attacked behind them."""

from __future__ import annotations

import json

import torch

from micore.artifacts import Bundle
from tests.e2e.outcomes import manifest

ATTACK = ("attack", "--plugin", "mirror-bb", "--preset", "smoke", "--classes", "0-1", "-e", "distance")


def test_a_defended_target_is_attacked_behind_its_defenses(mi, target, tmp_path):
    guarded = tmp_path / "guarded.safetensors"
    defenses = ("--defense", "round-scores:decimals=1", "--defense", "output-noise:scale=0.05", "--defense",
                "query-monitor:window=64")  # fmt: skip
    done = mi("defend", target, *defenses, "-o", guarded, "--json")
    card = json.loads(done.stdout)
    assert [use["name"] for use in card["defenses"]] == ["round-scores", "output-noise", "query-monitor"]
    assert card["metrics"]["holdout_score_change"] > 0.01
    plain, bundle = Bundle.load(target), Bundle.load(guarded)
    assert all(torch.equal(bundle.weights[name], tensor) for name, tensor in plain.weights.items())
    assert bundle.fingerprint != plain.fingerprint
    mi(*ATTACK, "--model", guarded, "-o", tmp_path / "run")
    document = manifest(tmp_path / "run")
    (found,) = document["monitors"]["query-monitor"]
    assert found["queries"] == document["ledger"]["total"]["queries"] > 0
    assert document["access"]["granted"] == "scores"


def test_what_cannot_be_added_leaves_nothing_behind(refused, target, tmp_path):
    out = tmp_path / "guarded.safetensors"
    error, hint = refused(2, "defend", target, "--defense", "midre", "-o", out)
    assert "'midre' acts on data: a finished target cannot be given it" in error
    assert "mi train --defense" in hint
    error, _ = refused(3, "defend", target, "--defense", "round-scores:decimals=0", "-o", out)
    assert "'decimals'" in error
    error, _ = refused(5, "defend", tmp_path / "none.safetensors", "--defense", "ssd", "-o", out)
    assert "does not exist" in error
    assert not out.exists()
    out.write_text("mine")
    error, hint = refused(2, "defend", target, "--defense", "ssd", "-o", out)
    assert "exists already" in error
    assert "--force" in hint
    assert out.read_text() == "mine"
