"""Noise on the hidden features of nodes: what it leaves of links and neighbours, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mi_defense_embedding_noise.defense import EmbeddingNoise

pytest.importorskip("mi_graph.toy")

from mi_graph.batch import Graphs
from mi_graph.cases import marked
from mi_graph.datasets.bundled import open_blocks
from mi_graph.evidence import Known
from mi_graph.graphs import Graph
from mi_graph.measures import auc
from mi_graph.similarity import correlation, scores_of
from micore import api
from micore.artifacts import Bundle
from micore.configs import make_config
from micore.contracts import Fitting
from micore.errors import ModelError
from micore.models import load_modality, open_guarded
from micore.registry import Registry
from micore.runtime import Runtime
from micore.target import Target
from micore.threat import Access, Ledger

DATA = open_blocks(None, nodes=200, kept=0.5)
KNOWN = Known(features=DATA.graph.features, n_edges=DATA.graph.n_edges)
CPU = Runtime(device=torch.device("cpu"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    place = tmp_path_factory.mktemp("nodes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MI_HOME", str(place / "home"))
        return api.train(
            data="blocks", model="gcn", data_options={"nodes": 200, "kept": 0.5}, output=place / "plain.safetensors",
            device="cpu",
        )  # fmt: skip


def defended(plain: Bundle, **options: Any) -> Bundle:
    settings = ",".join(f"{name}={value}" for name, value in options.items())
    return api.defend(plain.source, defenses=[f"embedding-noise:{settings}"], device="cpu")


def opened(bundle: Bundle, access: Access = Access.SCORES) -> Target:
    registry = Registry.discover()
    return open_guarded(
        registry, bundle, access=access, ledger=Ledger(), runtime=CPU, modality=load_modality(registry, "graph"),
        dataset=DATA,
    ).target  # fmt: skip


def leaks(values: Tensor) -> tuple[float, float]:
    """Return how well similar nodes tell edges from other pairs, and kept edges from removed ones (AUC)."""
    truth, scores = marked(DATA, None).scores, scores_of(values, correlation)
    assert truth is not None
    counted, edges = truth != 0.5, truth >= 0.5
    return auc(scores[counted], truth[counted] == 1), auc(scores[edges], truth[edges] == 1)


def test_noise_takes_links_and_neighbours_away_together_and_leaves_classes(plain: Bundle) -> None:
    clear, before = opened(plain), leaks(opened(plain).ask("embed", KNOWN.nodes()))
    assert before[0] > 0.8
    assert before[1] > 0.6
    found, kept = [], []
    for sigma in (0.01, 0.3, 2.0):
        bundle = defended(plain, sigma=sigma)
        target = opened(bundle)
        assert torch.equal(target.scores(KNOWN.nodes()), clear.scores(KNOWN.nodes()))
        assert bundle.card.metrics["holdout_accuracy"] == plain.card.metrics["holdout_accuracy"]
        found.append(leaks(target.ask("embed", KNOWN.nodes())))
        kept.append(bundle.card.metrics["defenses"]["embedding-noise"]["embed_neighbour_overlap"])
    assert found[0][0] == pytest.approx(before[0], abs=0.01)
    assert found[0][0] > found[1][0] + 0.05 > found[2][0] + 0.1
    assert found[2] == pytest.approx((0.5, 0.5), abs=0.06)
    assert kept[0] > 0.6 > kept[1] > kept[2]


def test_asking_again_tells_nothing_new_unless_the_noise_is_fresh(plain: Bundle) -> None:
    clean = opened(plain).ask("embed", KNOWN.nodes())
    errors = []
    for keyed in (True, False):
        target = opened(defended(plain, sigma=1, keyed=keyed, renormalise=False))
        asked = torch.stack([target.ask("embed", KNOWN.nodes()) for _ in range(30)])
        assert (float(asked.std(dim=0).max()) < 1e-4) == keyed
        errors.append(float((asked.mean(dim=0) - clean).norm() / clean.norm()))
    # 16 dimensions of one length each are 4 lengths; of 30 draws the mean is off by 4 / sqrt(30)
    assert errors == pytest.approx([4.0, 0.73], rel=0.15)


def test_noise_does_not_pile_up_and_company_changes_nothing(plain: Bundle) -> None:
    target = opened(defended(plain, sigma=0.2))
    whole = target.ask("embed", KNOWN.nodes())
    some = torch.tensor([7, 150, 3])
    torch.testing.assert_close(target.ask("embed", KNOWN.nodes(some)), whole[some], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(target.ask("embed", KNOWN.nodes()), whole)


def test_explanations_and_the_weights_are_left_alone(plain: Bundle) -> None:
    bundle = defended(plain, sigma=2)
    named = KNOWN.nodes(torch.arange(4))
    assert torch.equal(opened(bundle).ask("explain", named), opened(plain).ask("explain", named))
    own = Graphs.nodes_of(Graph(DATA.graph.features, DATA.graph.edges))
    white = [opened(item, Access.WHITE_BOX) for item in (bundle, plain)]
    assert torch.equal(white[0].module(own), white[1].module(own))
    assert torch.equal(white[0].ask("embed", KNOWN.nodes()), white[1].ask("embed", KNOWN.nodes()))


def test_bundles_of_encoders_that_know_of_no_classes_are_read_as_before() -> None:
    made = EmbeddingNoise(make_config(EmbeddingNoise.Config, {}, "embedding-noise"))
    made.load_state({"key": torch.tensor([3])})
    assert not torch.equal(made.adapt_output(torch.eye(3), ["a", "b", "c"]), torch.eye(3))
    assert made.adapt_service("embed", "anything", ["a"]) == "anything"


def test_a_target_that_gives_no_embeddings_is_refused() -> None:
    made = EmbeddingNoise(make_config(EmbeddingNoise.Config, {}, "embedding-noise"))
    split = DATA.split("private")
    with pytest.raises(ModelError, match="needs a target that gives embeddings, not a Linear"):
        made.fit(Fitting(
            module=torch.nn.Linear(1, 1), reference=split, reference_is_fresh=False, public=None, n_classes=1,
            adapter=lambda samples: samples, answer=lambda samples: samples, runtime=CPU,
        ))  # fmt: skip
