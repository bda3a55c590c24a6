"""Models: the conformance suite over the whole zoo, parity with references, and tests of single models."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from ipsrec_bench.data.batches import Histories
from ipsrec_bench.models.api import Sizes, TrainingLog
from ipsrec_bench.models.registry import REGISTRY, build_model, model_entry
from ipsrec_bench.models.sr_gnn import session_graph
from ipsrec_bench.suite.schema import Training
from ipsrec_bench.testing import CountingModelCase, SequentialModelCase

SMALL = {"embedding_size": 16, "inner_size": 32, "hidden_dropout": 0.1, "attention_dropout": 0.1}
RELEASED_LOSS = {"contrast": "nt-xent", "same_user_negatives": True, "padding_class": True}
LIGR = {"embedding_size": 16, "n_heads": 2, "inner_size": 32, "dropout": 0.1}
RECURRENT = {"embedding_size": 16, "hidden_size": 32, "dropout": 0.1}


class TestPop(CountingModelCase):
    model, world = "pop", "fashion"


class TestRecentPop(CountingModelCase):
    model, world = "recent-pop", "fashion"


class TestRepeat(CountingModelCase):
    model, world = "repeat", "habit"


class TestMarkov(CountingModelCase):
    model = "markov"


class TestItemKNN(CountingModelCase):
    model, world = "item-knn", "pairs"


class TestVSKNN(CountingModelCase):
    model, world = "v-sknn", "habit"


class TestSTAN(CountingModelCase):
    model, world = "stan", "habit"


class TestSequentialRules(CountingModelCase):
    model = "sequential-rules"


class TestProviderPop(CountingModelCase):
    model, world = "provider-pop", "loyalty"


class TestGRU4Rec(SequentialModelCase):
    model, settings = "gru4rec", RECURRENT


class TestCaser(SequentialModelCase):
    model = "caser"
    settings: ClassVar = {"embedding_size": 16, "dropout": 0.1}


class TestSASRec(SequentialModelCase):
    model, settings = "sasrec", SMALL


class TestSGL(SequentialModelCase):
    model, world = "sgl", "habit"
    settings: ClassVar = {"embedding_size": 16}
    reads_histories = False


class TestSGLAsRecBole(SequentialModelCase):
    model, world = "sgl", "habit"
    settings: ClassVar = {"embedding_size": 16, "preset": "recbole"}
    reads_histories = False


class TestSRGNN(SequentialModelCase):
    model = "sr-gnn"
    settings: ClassVar = {"embedding_size": 16, "step": 2}


class TestCL4SRec(SequentialModelCase):
    model, settings = "cl4srec", SMALL


class TestCL4SRecReleased(SequentialModelCase):
    model = "cl4srec"
    settings: ClassVar = {**SMALL, "n_layers": 1, "preset": "released", "similarity": "cosine", "tau": 0.5}


class TestDuoRec(SequentialModelCase):
    model, settings = "duorec", SMALL


class TestDuoRecReleased(SequentialModelCase):
    model = "duorec"
    settings: ClassVar = {**SMALL, "n_layers": 1, "preset": "released"}


class TestNextItNet(SequentialModelCase):
    model = "nextitnet"
    settings: ClassVar = {"embedding_size": 16, "dilations": [1, 2], "block_num": 1}


class TestNextItNetRecBole(SequentialModelCase):
    model = "nextitnet"
    settings: ClassVar = {"embedding_size": 16, "dilations": [1], "block_num": 2, "preset": "recbole"}


class TestGCSAN(SequentialModelCase):
    model = "gc-san"
    settings: ClassVar = {**SMALL, "step": 2}


MASKED = {**SMALL, "hidden_dropout": 0.0, "attention_dropout": 0.0, "mask_ratio": 0.3}
IN_SMALL_BATCHES = Training(epochs=60, batch_size=64, learning_rate=1e-2, patience=60)


class TestBERT4Rec(SequentialModelCase):
    model, training = "bert4rec", IN_SMALL_BATCHES
    settings: ClassVar = {**MASKED, "copies": 4, "stride": 0.5}


class TestBERT4RecOfRecBole(SequentialModelCase):
    model, training = "bert4rec", IN_SMALL_BATCHES
    settings: ClassVar = {**MASKED, "preset": "recbole"}


class TestS3Rec(SequentialModelCase):
    model = "s3rec"
    settings: ClassVar = {**SMALL, "pretrain_epochs": 2}


class TestS3RecPaddedLeft(SequentialModelCase):
    model = "s3rec"
    settings: ClassVar = {**SMALL, "pretrain_epochs": 1, "pretrain_padding": "left"}


class TestGRU4RecF(SequentialModelCase):
    model, settings = "gru4rec-f", RECURRENT


class TestSASRecF(SequentialModelCase):
    model, settings = "sasrec-f", SMALL


class TestSASRecFConcat(SequentialModelCase):
    model = "sasrec-f"
    settings: ClassVar = {**SMALL, "fusion": "concat"}


class TestFDSA(SequentialModelCase):
    model, settings = "fdsa", SMALL


class TestFDSARecBole(SequentialModelCase):
    model = "fdsa"
    settings: ClassVar = {**SMALL, "preset": "recbole"}


class TestNOVA(SequentialModelCase):
    model, settings = "nova", SMALL


class TestDIFSR(SequentialModelCase):
    model, settings = "dif-sr", SMALL


class TestMSSR(SequentialModelCase):
    model, settings = "mssr", SMALL


class TestMSSRReleased(SequentialModelCase):
    model = "mssr"
    settings: ClassVar = {**SMALL, "preset": "released", "attribute_size": 8, "n_layers": 2}
    without_gradient = "provider_embedding"


class TestMSSRBackward(SequentialModelCase):
    model = "mssr"
    settings: ClassVar = {**SMALL, "positions": "backward", "similarity": "cosine", "n_layers": 3, "n_heads": 1}


class TestDIFF(SequentialModelCase):
    model, settings = "diff", SMALL


class TestDIFFReleased(SequentialModelCase):
    model = "diff"
    settings: ClassVar = {**SMALL, "preset": "released", "fusion": "gate", "align_weight": 1.0}
    without_gradient = "provider_embedding"


class TestDIFFSum(SequentialModelCase):
    model = "diff"
    settings: ClassVar = {**SMALL, "fusion": "sum", "c": 2}


class TestDIFSRConcat(SequentialModelCase):
    model, without_gradient = "dif-sr", "^$"
    settings: ClassVar = {**SMALL, "fusion": "concat", "attribute_size": 8}


class TestDIFSRGate(SequentialModelCase):
    model, without_gradient = "dif-sr", "^$"
    settings: ClassVar = {**SMALL, "fusion": "gate", "attribute_size": 8}


class TestDIFSRReleased(SequentialModelCase):
    model, without_gradient = "dif-sr", "^provider_embedding.weight$"  # which is never trained
    settings: ClassVar = {**SMALL, "fusion": "gate", "preset": "released"}


class TestIPSRecS(SequentialModelCase):
    model, settings = "ipsrec-s", SMALL


class TestIPSRecSReleased(SequentialModelCase):
    model = "ipsrec-s"
    settings: ClassVar = {**SMALL, "preset": "released"}


class TestIPSRecSFull(SequentialModelCase):
    model = "ipsrec-s"
    settings: ClassVar = {**SMALL, "attention": "full", "contrast": "symmetric", "tie_weights": False}


class TestIPSRecC(SequentialModelCase):
    model, settings = "ipsrec-c", SMALL


class TestIPSRecCReleased(SequentialModelCase):
    model = "ipsrec-c"
    settings: ClassVar = {**SMALL, "preset": "released"}


class TestIPSRecCCosine(SequentialModelCase):
    model = "ipsrec-c"
    settings: ClassVar = {**SMALL, "similarity": "cosine", "tau": 0.2, "tie_weights": False}


class TestESASRec(SequentialModelCase):
    model, settings = "esasrec", LIGR


class TestESASRecReleased(SequentialModelCase):
    model = "esasrec"
    settings: ClassVar = {**LIGR, "preset": "released", "inner_bias": True}


class TestESASRecBackward(SequentialModelCase):
    model = "esasrec"
    settings: ClassVar = {
        **LIGR,
        "positions": "backward",
        "activation": "gelu",
        "similarity": "cosine",
        "temperature": 0.2,
    }


class TestHSTU(SequentialModelCase):
    model = "hstu"
    settings: ClassVar = {"embedding_size": 16, "n_heads": 2, "dropout": 0.1, "attention_dropout": 0.1}


class TestHSTUReleased(SequentialModelCase):
    model = "hstu"
    settings: ClassVar = {"embedding_size": 16, "n_heads": 2, "dropout": 0.1, "preset": "released"}


class TestHSTUWithoutTime(SequentialModelCase):
    model = "hstu"
    settings: ClassVar = {"embedding_size": 16, "dropout": 0.1, "time": False, "relative_positions": False}


class TestLRURec(SequentialModelCase):
    model = "lrurec"
    settings: ClassVar = {"embedding_size": 16, "dropout": 0.1, "recurrent_dropout": 0.1}


class TestLRURecReleased(SequentialModelCase):
    model = "lrurec"
    settings: ClassVar = {"embedding_size": 16, "dropout": 0.1, "recurrent_dropout": 0.1, "predicts_first": True}


class TestTiSASRec(SequentialModelCase):
    model = "tisasrec"
    settings: ClassVar = {"embedding_size": 16, "n_heads": 2, "dropout": 0.1, "time_span": 32}


class TestTiSASRecReleased(SequentialModelCase):
    model = "tisasrec"
    settings: ClassVar = {"embedding_size": 16, "dropout": 0.1, "preset": "released", "time_unit": "second"}


class TestLiveRec(SequentialModelCase):
    model = "liverec"
    settings: ClassVar = {"embedding_size": 16, "n_heads": 2, "dropout": 0.1}


class TestLiveRecReleased(SequentialModelCase):
    model = "liverec"
    settings: ClassVar = {**TestLiveRec.settings, "preset": "released", "context_layers": 1}
    without_gradient = r"^(context_|repeat_)"  # no task trains on candidates


class TestSkipRec(SequentialModelCase):
    model = "skiprec"
    settings: ClassVar = {**SMALL, "n_layers": 3}

    def build_large(self, *sizes):
        """Open each gate at half of the positions: a layer that all skip has no gradient."""
        model = super().build_large(*sizes)
        items = (torch.arange(12)[:, None] + torch.arange(6)) % 12 + 1
        logits = model.policy.logits(Histories(items[:, 0], items, items, torch.full((12,), 6)))
        model.policy.output.bias.data -= logits.flatten(0, 1).median(dim=0).values.detach()
        return model


class TestSkipRecOfUsers(TestSkipRec):
    settings: ClassVar = {**SMALL, "n_layers": 2, "gates": "user", "temperature": 1.0}


def test_the_whole_zoo_is_under_test():
    cases = CountingModelCase.__subclasses__() + SequentialModelCase.__subclasses__()
    assert {case.model for case in cases if hasattr(case, "model")} >= set(REGISTRY)


def test_replacing_every_provider_moves_the_user_as_the_paper_reads_and_not_as_released():
    """Released IPSRec-S scores without the history's providers: its lower-triangular mask hides them from the items."""
    moved = {}
    for model in ("ipsrec-s", "ipsrec-c"):
        for preset in ("paper", "released"):
            moved[model, preset] = how_far_views_move(model, preset)
    assert moved["ipsrec-s", "released"][0] == 0.0
    assert moved["ipsrec-s", "released"][1] > 0.01
    for which in (("ipsrec-s", "paper"), ("ipsrec-c", "paper"), ("ipsrec-c", "released")):
        assert min(moved[which]) > 0.01


def how_far_views_move(model: str, preset: str) -> list[float]:
    """Return the largest movement of the item view and of the provider view when all providers are replaced."""
    torch.manual_seed(0)
    config = model_entry(model).config.model_validate({**SMALL, "preset": preset})
    built = build_model(model, config, Sizes(users=5, items=30, providers=9, max_length=10)).eval()
    for parameter in built.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.5)
    items, lengths = torch.randint(1, 31, (5, 10)), torch.tensor([10, 1, 7, 4, 9])
    real = torch.arange(10) < lengths[:, None]
    providers = torch.randint(1, 10, (5, 10))
    with torch.no_grad():
        before, after = (
            built.encode(Histories(torch.arange(5), items * real, ids * real, lengths), every_position=False)
            for ids in (providers, providers % 9 + 1)
        )
    return [
        float((before.user - after.user).abs().max()),
        float((before.provider - after.provider).abs().max()),
    ]


@pytest.mark.parametrize(
    ("model", "released"),
    [
        ("ipsrec-s", {"attention": "concat-causal", **RELEASED_LOSS}),
        ("ipsrec-c", {"encoder": "co-only", **RELEASED_LOSS}),
    ],
)
def test_the_presets_are_sets_of_options(model, released):
    config = model_entry(model).config
    paper, preset = config(), config(preset="released")
    assert paper == config(preset="paper")
    assert preset.model_dump() == paper.model_copy(update=released).model_dump()
    assert paper.model_dump() == {**preset.model_dump(), **{key: paper.model_dump()[key] for key in released}}
    one_back = config(preset="released", contrast="symmetric")
    assert one_back.contrast == "symmetric"
    assert one_back.padding_class
    assert "preset" not in preset.model_dump()  # equal settings, equal cells


def test_defaults_are_those_of_the_paper_and_its_baselines():
    def found(name):
        return model_entry(name).config().model_dump(by_alias=True)

    transformer = {"embedding_size": 64, "n_layers": 2, "n_heads": 2, "inner_size": 256}
    transformer |= {"hidden_dropout": 0.5, "attention_dropout": 0.5, "padding_class": False, "weight_norm": 0.0}
    assert found("sasrec") == transformer
    contrastive = {"lambda": 0.1, "tau": 1.0, "contrast": "item-to-provider", "similarity": "dot", "tie_weights": True}
    contrastive["same_user_negatives"] = False
    assert found("ipsrec-s") == {**transformer, **contrastive, "attention": "block-causal"}
    assert found("ipsrec-c") == {**transformer, **contrastive, "encoder": "self-then-co"}
    neural = {"embedding_size": 64, "padding_class": False, "weight_norm": 0.0}
    assert found("gru4rec") == {**neural, "hidden_size": 128, "n_layers": 1, "dropout": 0.3}
    assert found("caser") == {**neural, "n_vertical": 8, "n_horizontal": 16, "dropout": 0.4, "weight_norm": 1e-4}
    assert found("sr-gnn") == {**neural, "step": 1}
    convolutions = {"kernel_size": 3, "dilations": (1, 4), "block_num": 5, "reads": "newest", "weight_norm": 1e-5}
    assert found("nextitnet") == {**neural, **convolutions}
    assert found("gc-san") == {**transformer, "step": 1, "attention_weight": 0.6, "table_norm": 5e-5}


def test_settings_that_were_added_later_leave_the_keys_of_old_cells_as_they_were():
    transformer = model_entry("sasrec").config().model_dump()
    assert model_entry("fdsa").config().model_dump() == transformer
    assert model_entry("dif-sr").config().model_dump() == {**transformer, "attribute_weight": 10.0}


@pytest.mark.parametrize(
    ("model", "preset", "settings"),
    [
        ("fdsa", "recbole", {"shared_input": True}),
        ("nextitnet", "recbole", {"reads": "last-column"}),
        ("dif-sr", "released", {"raw_scores": True, "frozen_providers": True, "unknown_class": True}),
    ],
)
def test_a_preset_chooses_settings_and_gives_way_to_explicit_ones(model, preset, settings):
    config = model_entry(model).config
    chosen = config(preset=preset)
    assert chosen == config(preset=preset, padding_class=True, **settings)
    assert chosen.model_dump() == config(padding_class=True, **settings).model_dump()  # equal settings, equal cells
    assert not config(preset=preset, padding_class=False).padding_class
    with pytest.raises(ValidationError):
        config(preset=[])


def test_dif_sr_refuses_widths_that_its_heads_do_not_divide():
    with pytest.raises(ValidationError, match="n_heads = 2 must divide attribute_size = 5"):
        model_entry("dif-sr").config(attribute_size=5)


def test_released_dif_sr_depends_on_the_maximum_length_and_ours_does_not():
    torch.manual_seed(0)
    for fusion, preset, equal in (("concat", "paper", True), ("gate", "paper", True), ("gate", "released", False)):
        config = model_entry("dif-sr").config.model_validate({**SMALL, "fusion": fusion, "preset": preset})
        model = build_model("dif-sr", config, Sizes(users=5, items=30, providers=9, max_length=10)).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
        items, providers = torch.randint(1, 31, (1, 4)), torch.randint(1, 10, (1, 4))
        history = Histories(torch.zeros(1, dtype=torch.int64), items, providers, torch.tensor([4]))
        before = model.encode(history, every_position=False).user
        model.position_embedding.weight.data[4:] += 1.0
        after = model.encode(history, every_position=False).user
        assert torch.equal(before, after) == equal


def test_a_session_graph_by_hand():
    """a b a c b a: edges a>b, b>a (twice, weight 1), a>c, c>b; shares by in-degree and by out-degree."""
    nodes, incoming, outgoing = session_graph(torch.tensor([[5, 3, 5, 9, 3, 5, 0]]))
    a, b, c = 0, 1, 3
    assert nodes[0, :6].tolist() == [a, b, a, c, b, a]
    expected_in, expected_out = torch.zeros(7, 7), torch.zeros(7, 7)
    expected_in[a, b] = 1.0
    expected_in[b, a] = expected_in[b, c] = 0.5
    expected_in[c, a] = 1.0
    expected_out[a, b] = expected_out[a, c] = 0.5
    expected_out[b, a] = expected_out[c, b] = 1.0
    assert torch.equal(incoming[0], expected_in)
    assert torch.equal(outgoing[0], expected_out)


def counted(name, rows, history, **settings):
    """Fit a counting model on (user, item, provider, time) rows; return the items by score after `history`."""
    users, items, providers, times = (np.array(column) for column in zip(*rows, strict=True))
    model = build_model(name, model_entry(name).config(**settings), Sizes(9, 9, 9, 9))
    model.fit(TrainingLog(users, items.astype(np.int32), providers.astype(np.int32), times))
    had = torch.tensor([[item for item, _ in history]])
    by = torch.tensor([[provider for _, provider in history]])
    picked = model.pick(Histories(torch.tensor([0]), had, by, torch.tensor([len(history)])))
    scores = model.background.clone()
    scores[picked.items] = picked.scores
    return {item: float(scores[item]) for item in range(1, 10)}


def best(scores, n):
    return sorted(scores, key=lambda item: -scores[item])[:n]


LOG = [
    # user, item, provider, time
    (0, 1, 2, 0), (0, 2, 2, 1), (0, 3, 3, 2), (0, 2, 2, 9),
    (1, 1, 2, 0), (1, 2, 2, 1), (1, 4, 3, 2),
    (2, 1, 2, 0), (2, 3, 3, 1), (2, 4, 3, 9),
    (3, 5, 1, 0), (3, 1, 2, 1),
]  # fmt: skip
"""Items 1, 2 are of provider 2, items 3, 4 of provider 3, item 5 of an unknown one."""


def test_pop_counts():
    assert best(counted("pop", LOG, [(5, 1)]), 5) == [1, 2, 3, 4, 5]


def test_recent_pop_counts_the_newest_share_first():
    assert best(counted("recent-pop", LOG, [(5, 1)], share=0.15), 5) == [2, 4, 1, 3, 5]
    assert best(counted("recent-pop", LOG, [(5, 1)], share=1.0), 5) == [1, 2, 3, 4, 5]


def test_repeat_ranks_the_historys_items_newest_first():
    assert best(counted("repeat", LOG, [(5, 1), (3, 3), (5, 1), (4, 3)]), 5) == [4, 5, 3, 1, 2]


def test_markov_counts_what_followed_the_newest_item():
    scores = counted("markov", LOG, [(4, 3), (1, 2)])
    assert best(scores, 4) == [2, 3, 1, 4]  # 1>2 twice, 1>3 once, then by popularity
    assert scores[2] - scores[3] > 0.9
    assert scores[1] < 1


def test_provider_pop_ranks_the_newest_providers_items_by_popularity():
    assert best(counted("provider-pop", LOG, [(1, 2), (3, 3), (5, 1)]), 5) == [3, 4, 1, 2, 5]
    assert best(counted("provider-pop", LOG, [(3, 3), (1, 2), (5, 1)]), 5) == [1, 2, 3, 4, 5]
    one_each = counted("provider-pop", LOG, [(3, 3), (1, 2), (5, 1)], assortment=1)
    assert best(one_each, 5) == [1, 3, 2, 4, 5]


def test_item_knn_sums_cosines_of_user_sets():
    """Users of 1: {0,1,2,3}, 2: {0,1}, 3: {0,2}, 4: {1,2}, 5: {3}."""
    scores = counted("item-knn", LOG, [(2, 2), (5, 1)])
    assert scores[1] == pytest.approx(1 + 2 / 8**0.5 + 1 / 4**0.5)
    assert scores[3] == scores[4] == pytest.approx(1 + 1 / 2)
    assert scores[2] < 1  # its only similar items are others
    nearest = counted("item-knn", LOG, [(2, 2)], neighbours=1)
    assert nearest[1] == pytest.approx(1 + 2 / 8**0.5)
    assert nearest[3] < 1


def test_item_knn_does_not_depend_on_its_blocks(monkeypatch):
    whole = counted("item-knn", LOG, [(1, 2), (2, 2)])
    monkeypatch.setattr("ipsrec_bench.models.item_knn.PAIRS_AT_A_TIME", 3)
    assert counted("item-knn", LOG, [(1, 2), (2, 2)]) == whole
