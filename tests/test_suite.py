"""Suites: the place of mistakes, the expansion into cells, and what a key depends on."""

import datetime as dt
import json
import math
import re
from pathlib import Path

import pytest
from pydantic import Field, ValidationError

from ipsrec_bench.errors import SuiteError
from ipsrec_bench.models.configs import ModelConfig
from ipsrec_bench.models.registry import REGISTRY
from ipsrec_bench.precision import default_precision
from ipsrec_bench.run.plan import cells_of
from ipsrec_bench.settings import Settings, explain
from ipsrec_bench.suite import schema
from ipsrec_bench.suite.load import adhoc_suite, find_line, load_suite, parse_suite

from .conftest import ROOT, TINY_SUITE

HERE = Path("here.toml")


def mistake(text: str, *overrides: str) -> str:
    with pytest.raises(SuiteError) as caught:
        cells_of(parse_suite(HERE, text, overrides))
    return str(caught.value)


def replaced(old: str, new: str) -> str:
    assert old in TINY_SUITE
    return TINY_SUITE.replace(old, new)


def line_of(text: str, start: str) -> int:
    return next(n for n, line in enumerate(text.splitlines(), 1) if line.startswith(start))


@pytest.mark.parametrize(
    ("old", "new", "key", "words"),
    [
        ("epochs = 2", "epoch = 2", "training.epoch", "unknown key 'epoch'; did you mean 'epochs'?"),
        ("epochs = 2", "epochs = 0", "training.epochs", "found 0; input should be greater than or equal to 1"),
        (
            "epochs = 2",
            'samples = "pack"',
            "training.samples",
            "found 'pack'; input should be 'auto', 'packed' or 'prefix'",
        ),
        ("seeds = [1, 2]", "seeds = [1, 1]", "seeds", "each value may occur only once"),
        ("seeds = [1, 2]", "seeds = [1, -2]", "seeds.1", "found -2; input should be greater than or equal to 0"),
        ("[models.pop]", "[models.popp]", "models.popp", "there is no model 'popp'; did you mean 'pop'?"),
        (
            "[models.pop]",
            '[models.x]\ntype = "sasrek"',
            "models.x.type",
            "there is no model 'sasrek'; did you mean 'sasrec'?",
        ),
        ("users = 120", "userz = 120", "datasets.world.userz", "unknown key 'userz'; did you mean 'users'?"),
        ('source = "synthetic"', 'source = "syntetic"', "datasets.world.source", "did you mean 'synthetic'?"),
        ("{ lambda = 0 }", "{ lambda = -1 }", 'models.ipsrec-s.variants."w/o CL".lambda', "found -1"),
        ("embedding_size = 8", "embedding_size = 9", "models.sasrec", "n_heads = 2 must divide embedding_size = 9"),
        ('title = "Tiny"\n', "", "title", "this key is required"),
        ("[models.pop]", "[models.pop]\ntraining = 5", "models.pop.training", "found 5; expected a table"),
        ("[models.pop]", "[models.pop]\ntype = 5", "models.pop.type", "found 5; expected a text"),
        ("[models.pop]", "[models.pop]\nvariants.x = 5", "models.pop.variants.x", "found 5; expected a table"),
        ("[models.pop]", '[models."ipsrec-s w/o CL"]\ntype = "pop"', "models", "the name 'ipsrec-s w/o CL' is taken"),
        ("[models.pop]", '[models.best]\ntype = "pop"', "models", "the name 'best' is taken"),
        ('source = "synthetic"', "source = []", "datasets.world.source", "found []; allowed: 'table', 'synthetic'"),
        (
            'title = "Tiny"',
            'title = "Tiny"\nprotocol.filter = 5',
            "protocol.filter",
            'found 5; expected "none", "5-core"',
        ),
        ("seeds = [1, 2]", "seeds = [4294967296]", "seeds.0", "input should be less than 2147483648"),
        (
            "[training]",
            "[protocol]\ncutoffs = [5, 5]\n[training]",
            "protocol.cutoffs",
            "each value may occur only once",
        ),
    ],
)
def test_a_mistake_names_file_line_key_and_remedy(old, new, key, words):
    text = replaced(old, new)
    message = mistake(text)
    assert f" {key}: " in message
    assert words in message
    assert message.startswith("here.toml:")


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("epochs = 2", "epoch = 2", "epoch"),
        ("users = 120", "userz = 120", "userz"),
        ("[models.pop]", "[models.popp]", "[models.popp]"),
    ],
)
def test_the_line_is_the_one_to_edit(old, new, line):
    text = replaced(old, new)
    assert mistake(text).startswith(f"here.toml:{line_of(text, line)}: ")


def test_lines_are_found_through_arrays_comments_and_inline_tables():
    text = '# a\nx = [\n  1,\n  2, # b\n]\n\n[t."a.b"]\ny = { z = [3,\n  4], w = 4 }\n'
    assert find_line(text, ("x",)) == 2
    assert find_line(text, ("x", 1)) == 2
    assert find_line(text, ("t", "a.b")) == 7
    assert find_line(text, ("t", "a.b", "y", "w")) == 8
    assert find_line(text, ("t", "a.b", "missing")) == 7
    assert find_line(text, ("nowhere",)) is None


def test_an_override_is_blamed_for_its_own_mistake():
    assert mistake(TINY_SUITE, "training.epochs=none").startswith(
        "--set training.epochs=none: training.epochs: found 'none'"
    )
    assert "expected KEY=VALUE" in mistake(TINY_SUITE, "training.epochs")
    assert "quote names" in mistake(TINY_SUITE, "models.a b.lambda=1")
    assert mistake(TINY_SUITE, "training.epochs=5", "training.epochs=none").startswith("--set training.epochs=none")
    assert "--set training.epochs=0" in mistake(TINY_SUITE, "models.pop={}", "training.epochs=0")
    assert "'epochs' is a value, not a table" in mistake(TINY_SUITE, "training.epochs.x=1")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("models.sasrec.n_heads=3", "models.sasrec: n_heads = 3 must divide embedding_size = 8"),
        ("protocol.valid_share=0.95", "protocol: valid_share = 0.95 and test_share = 0.1 leave nothing"),
        ("statistics.metric=hr@7", "suite: statistics.metric is 'hr@7', which the tables do not have"),
        ("statistics.proposed=['x']", "statistics.proposed: found 'x'; allowed: 'pop'"),
        ("statistics.baseline=x", "statistics.baseline: found 'x'"),
        ("training={ patience = 1, batch_size = 0 }", "training.batch_size: found 0"),
        ("tune.seeds=[1, 101]", "tune: fresh_seeds has 101"),
        ("tune.space.sasrec.tau={ low = 2, high = 1 }", "tune.space.sasrec.tau: low = 2 must be less than high = 1"),
        ("datasets.world.loyalty=0.9", "datasets.world: loyalty = 0.9 and drift = 0.5 may not add up"),
        ("datasets.world.userz=3", "datasets.world.userz: unknown key 'userz'"),
        ("seeds.x=1", "'seeds' is a value, not a table"),
        ("models.'a=b'.type=x", "models.\"a=b\".type: there is no model 'x'"),
        ("models.best.type=pop", "models: the name 'best' is taken"),
        ("x=" + "[" * 9999, "x: unknown key 'x'"),
    ],
)
def test_what_an_override_makes_wrong_is_blamed_on_it(override, words):
    assert mistake(TINY_SUITE, "title=Same", override).startswith(f"--set {override}: {words}")


def test_what_the_file_has_wrong_is_not_blamed_on_an_override_beside_it():
    text = replaced("batch_size = 128", "batch_size = 0")
    for override in ("training={ epochs = 1 }", "training.epochs=1", "models.sasrec.n_heads=1"):
        assert mistake(text, override).startswith(f"here.toml:{line_of(text, 'batch_size')}: training.batch_size: ")


def test_a_suite_full_of_mistakes_shows_the_first_of_them():
    error = mistake("\n".join(f"wrong{i} = 1" for i in range(3)) + "\n" + TINY_SUITE + "fresh = 1\n")
    assert "wrong0" in error
    seeds = ", ".join(["-1"] * 30)
    error = mistake(replaced("seeds = [1, 2]", f"seeds = [{seeds}]")).splitlines()
    assert (len(error), error[-1]) == (21, "and 10 more mistakes")


@pytest.mark.parametrize(
    ("models", "words"),
    [
        ('["pop", "pop"]', "models: found ['pop', 'pop']; each value may occur only once"),
        ('["pop", 5]', "models: found ['pop', 5]; expected a list of names, or a table for each name"),
        ("5", "models: found 5; input should be a table"),
        ("[]", "models: the suite has no models"),
    ],
)
def test_lists_of_names_are_checked(models, words):
    assert f"here.toml:3: {words}" in mistake(f'title="x"\ndatasets=["positive-control"]\nmodels={models}\n')


def test_names_on_the_command_line_may_be_any_text():
    assert list(adhoc_suite(["カフェ 😀"], ["pop"]).suite.datasets) == ["カフェ 😀"]


def test_lines_are_counted_as_editors_do():
    text = replaced('title = "Tiny"', "title = 'a\u2028b\x85c'").replace("epochs = 2", "epoch = 2")
    assert mistake(text).startswith(f"here.toml:{text[: text.index('epoch = 2')].count(chr(10)) + 1}: ")


def test_overrides_reach_variants_and_lists_of_names():
    changed = parse_suite(HERE, TINY_SUITE, ['models.ipsrec-s.variants."w/o CL".tau=2.0', "training.stop_metric=hr@5"])
    cell = next(cell for cell in cells_of(changed) if cell.variant)
    assert cell.config.model_dump()["tau"] == 2.0
    assert cell.training.stop_metric == "hr@5"
    short = parse_suite(HERE, 'title="x"\ndatasets=["positive-control"]\nmodels=["pop"]', ["models.sasrec.n_layers=1"])
    assert [cell.type for cell in cells_of(short)[:2]] == ["pop", "sasrec"]


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(SuiteError, match=r"none\.toml: there is no such suite file"):
        load_suite(tmp_path / "none.toml")
    (tmp_path / "broken.toml").write_text("# fine\ntitle = = 1\n", encoding="utf-8")
    with pytest.raises(SuiteError, match=r"broken\.toml: not valid TOML: .*line 2"):
        load_suite(tmp_path / "broken.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SuiteError, match=r"binary\.toml: the file is written in UTF-16; save it as UTF-8"):
        load_suite(tmp_path / "binary.toml")
    with pytest.raises(SuiteError, match="the suite cannot be read: Is a directory"):
        load_suite(tmp_path)


def test_a_byte_order_mark_is_not_part_of_a_suite(tmp_path, monkeypatch):
    monkeypatch.setenv("IPSREC_BENCH_CASES", str(ROOT / "tests" / "cases"))
    read = load_suite(ROOT / "tests" / "cases" / "bom.toml")
    assert (read.suite.title, read.text[0]) == ("Small", "t")
    (tmp_path / "tiny.toml").write_bytes(b"\xef\xbb\xbf" + TINY_SUITE.replace("\n", "\r\n").encode())
    assert load_suite(tmp_path / "tiny.toml").text == TINY_SUITE
    (tmp_path / "wrong.toml").write_bytes(b"\xef\xbb\xbf" + replaced("epochs = 2", "epoch = 2").encode())
    with pytest.raises(SuiteError, match=f"wrong.toml:{line_of(TINY_SUITE, 'epochs')}: training.epoch: "):
        load_suite(tmp_path / "wrong.toml")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("title = 'Tiny'".encode("utf-16"), ": the file is written in UTF-16; save it as UTF-8"),
        ("title = 'Tiny'".encode("utf-16-be"), ": the file has zero bytes"),
        ("title = 'x'\ndescription = 'Café'".encode("latin-1"), r":2: the file is not UTF-8 text \(byte 0xe9\)"),
        (b"x = " + b"[" * 9999, ": not a suite: lists or tables are nested too deeply"),
        (b"x = " + b"9" * 9999, ": not valid TOML: "),
        (b"title = 'x\x1b[2J'", ": not valid TOML: "),
        (b"", ": title: this key is required"),
    ],
)
def test_files_that_are_not_suites_get_a_sentence(tmp_path, raw, words):
    path = tmp_path / "odd.toml"
    path.write_bytes(raw)
    with pytest.raises(SuiteError, match=f"odd.toml{words}") as error:
        load_suite(path)
    assert "\x1b" not in str(error.value)


def test_unknown_baseline_and_dataset_are_refused():
    assert "did you mean 'sasrec'?" in mistake(TINY_SUITE + '[statistics]\nbaseline = "sasrek"\n')
    assert "did you mean 'positive-control'?" in mistake(TINY_SUITE + "[datasets.positive-contrl]\n")


def test_unknown_proposed_models_are_refused_with_their_line_after_the_models():
    text = TINY_SUITE + '[statistics]\nproposed = ["ipsrec-x"]\n'
    said = mistake(text)
    assert f":{text.count(chr(10))}: statistics.proposed: found 'ipsrec-x'; allowed: 'pop', " in said
    assert said.endswith("did you mean 'ipsrec-s'?")
    assert "no model 'ipsrec-x'" in mistake(text.replace("[models.ipsrec-s", "[models.ipsrec-x").replace('x"]', 's"]'))


def test_every_shipped_suite_is_valid():
    suites = sorted((ROOT / "suites").glob("*.toml"))
    assert {suite.stem for suite in suites} >= {"quick", "controls", "real"}
    for suite in suites:
        assert cells_of(load_suite(suite))


def test_cells_are_datasets_times_seeds_times_rows():
    cells = cells_of(parse_suite(HERE, TINY_SUITE))
    assert [(cell.seed, cell.label) for cell in cells] == [
        (seed, label) for seed in (1, 2) for label in ("pop", "recent-pop", "sasrec", "ipsrec-s", "ipsrec-s w/o CL")
    ]
    assert {cell.protocol.max_length for cell in cells} == {8}


def keys(text: str, fingerprint: str = "f") -> list[str]:
    return [cell.key(fingerprint) for cell in cells_of(parse_suite(HERE, text))]


def test_the_key_depends_on_what_changes_ranks_and_on_nothing_else():
    original = keys(TINY_SUITE)
    rows = [(cell.label, None if cell.counts else cell.seed) for cell in cells_of(parse_suite(HERE, TINY_SUITE))]
    assert len(set(original)) == len(set(rows)) == 8  # what counts is fitted once for all seeds
    same = [
        replaced('title = "Tiny"', 'title = "Other"\ndescription = "words"'),
        TINY_SUITE + "[protocol]\ncutoffs = [20]\nmetrics = ['hr']\n",
        TINY_SUITE + "[statistics]\nalpha = 0.05\n",
        replaced(
            "[models.sasrec]\nembedding_size = 8\ninner_size = 16",
            "[models.sasrec]\ninner_size = 16\nembedding_size = 8",
        ),
        replaced("[models.sasrec]", '[models.mine]\ntype = "sasrec"'),
        replaced("[datasets.world]", "[datasets.renamed]"),
        replaced("[models.sasrec]", "[models.sasrec]\nn_layers = 2"),  # the default, written out
        replaced("epochs = 2", "epochs = 2\nnegatives = 9\ncalibration = 0.5"),  # of objectives that are not asked for
        replaced("epochs = 2", 'epochs = 2\nnegatives_per = "target"'),
    ]
    for text in same:
        assert keys(text) == original
    assert not set(keys(replaced("max_length = 8", "max_length = 9"))) & set(original)
    other = "float32" if default_precision("auto") == "bfloat16" else "bfloat16"
    trained = {
        key for key, cell in zip(original, cells_of(parse_suite(HERE, TINY_SUITE)), strict=True) if not cell.counts
    }
    for text in (
        replaced("seeds = [1, 2]", "seeds = [3, 4]"),
        replaced("epochs = 2", "epochs = 3"),
        replaced("batch_size = 128", "batch_size = 64"),
        replaced("epochs = 2", "epochs = 2\nmin_context = 1"),
        replaced("epochs = 2", f'epochs = 2\nprecision = "{other}"'),
        replaced("epochs = 2", 'epochs = 2\noptimiser = "lazy-adam"'),
        replaced("epochs = 2", 'epochs = 2\nobjective = "gbce"'),
        replaced("epochs = 2", 'epochs = 2\nobjective = "bce"'),
    ):
        assert set(keys(text)) & set(original) == set(original) - trained  # counting is not training
    one, other, default = (
        keys(replaced("epochs = 2", f'epochs = 2\nobjective = "bce"\n{line}'))
        for line in ('negatives_per = "target"', "", 'negatives_per = "batch"')
    )
    assert other == default
    assert set(one) & set(other) == set(original) - trained
    assert not set(keys(TINY_SUITE, "other data")) & set(original)
    changed = keys(replaced("{ lambda = 0 }", "{ lambda = 0.2 }"))
    assert [a == b for a, b in zip(changed, original, strict=True)] == [True, True, True, True, False] * 2


@pytest.mark.parametrize(
    ("addition", "words"),
    [
        ("min_context = 8", ["training.min_context", "found 8", "max_length", "up to 7"]),
        ("optimiser = 'lazy-adam'", ["optimiser", "weight_norm = 0.1", "optimiser = 'adam'"]),
        ("objective = 'sampled'", ["training.objective", "sampled-softmax"]),
    ],
)
def test_training_settings_that_cannot_be_are_refused(addition, words):
    text = replaced("[models.sasrec]", "[models.sasrec]\nweight_norm = 0.1").replace(
        "epochs = 2", f"epochs = 2\n{addition}"
    )
    with pytest.raises(SuiteError) as error:
        cells_of(parse_suite(HERE, text))
    for word in words:
        assert word in str(error.value)


def test_settings_are_plain_json():
    for cell in cells_of(parse_suite(HERE, TINY_SUITE)):
        assert json.loads(json.dumps(cell.settings())) == cell.settings()


NEURAL = """
title = "Neural"
seeds = [1]
datasets = ["positive-control"]
[models.caser]
[models.sasrec]
[models.ipsrec-s.variants.released]
preset = "released"
[models.ipsrec-s.variants.by-hand]
attention = "concat-causal"
contrast = "nt-xent"
same_user_negatives = true
padding_class = true
[models.ipsrec-s.variants.nt-xent]
contrast = "nt-xent"
[models.ipsrec-c]
preset = "released"
"""


def test_samples_are_packed_where_the_model_as_set_allows_it():
    cells = cells_of(parse_suite(HERE, NEURAL))
    assert {cell.label: cell.training.samples for cell in cells} == {
        "caser": "prefix",
        "sasrec": "packed",
        "ipsrec-s": "packed",
        "ipsrec-s released": "prefix",
        "ipsrec-s by-hand": "prefix",
        "ipsrec-s nt-xent": "packed",
        "ipsrec-c": "prefix",
    }
    cells = cells_of(parse_suite(HERE, NEURAL, ['training.samples="prefix"']))
    assert {cell.training.samples for cell in cells} == {"prefix"}


@pytest.mark.parametrize(
    ("override", "place"),
    [
        ("models.caser.training.samples=packed", "models.caser.training.samples"),
        (
            "models.ipsrec-s.variants.released.training.samples=packed",
            "models.ipsrec-s.variants.released.training.samples",
        ),
    ],
)
def test_packed_samples_are_refused_where_a_model_takes_prefixes_only(override, place):
    found = mistake(NEURAL, override)
    assert f"{place}: found 'packed', but this model, as it is set, is trained on prefixes only" in found


def test_a_preset_equals_its_settings():
    keys = {cell.label: cell.key("data") for cell in cells_of(parse_suite(HERE, NEURAL))}
    assert keys["ipsrec-s released"] == keys["ipsrec-s by-hand"] != keys["ipsrec-s"]
    wrong = mistake(NEURAL, "models.ipsrec-s.preset=releasd")
    assert "models.ipsrec-s.preset: found 'releasd'; input should be 'paper' or 'released'" in wrong


def test_the_unit_of_times_makes_other_cells_of_models_that_read_them():
    """The same numbers may be seconds in one file and, as dates, microseconds in another."""
    cells = cells_of(parse_suite(HERE, NEURAL + "\n[models.hstu]\n[models.stan]\n"))
    moved = {cell.label for cell in cells if cell.key("data") != cell.key("data", 1_000_000)}
    assert moved == {"hstu", "stan"}


def test_only_models_with_a_loss_over_the_catalogue_are_marked_as_approximated():
    text = NEURAL + "\n[models.sgl]\n[models.bert4rec]\nvariants.bpr.loss = 'bpr'\n"
    cells = cells_of(parse_suite(HERE, text, ["training.objective=gbce"]))
    plain = {cell.label for cell in cells if cell.shown == cell.label and not cell.counts}
    assert plain == {"sgl", "bert4rec bpr"}


def test_masking_the_history_makes_other_cells_and_metrics_do_not():
    def keys(*overrides):
        return [cell.key("data") for cell in cells_of(parse_suite(HERE, NEURAL, overrides))]

    assert keys() == keys("protocol.cutoffs=[20]", 'protocol.metrics=["hr"]')
    assert not set(keys()) & set(keys("protocol.mask_history=true"))


def test_the_fidelity_suite_switches_every_option_of_both_models_alone():
    """A field that is added to the settings of IPSRec has to be switched there, or be named here."""
    sizes = {"embedding_size", "n_layers", "n_heads", "inner_size", "hidden_dropout", "attention_dropout"}
    cells = [cell for cell in cells_of(load_suite(ROOT / "suites" / "fidelity.toml")) if cell.seed == 1]
    for model in ("ipsrec-s", "ipsrec-c"):
        rows = {cell.variant: cell.config.model_dump(by_alias=True) for cell in cells if cell.model == model}
        whole = rows.pop("")
        changed = {name: {k for k in whole if row[k] != whole[k]} for name, row in rows.items()}
        alone = [next(iter(keys)) for keys in changed.values() if len(keys) == 1]
        assert set(alone) == set(whole) - sizes - {"weight_norm"}
        released = rows["released"]
        assert changed["released"] == {k for k in whole if released[k] != whole[k]}
        assert all({k} in changed.values() for k in changed["released"])
        (encoder,) = {"attention", "encoder"} & set(whole)
        values = {row[encoder] for row in rows.values()} | {whole[encoder]}
        annotation = cells_of_type(cells, model).model_fields[encoder].annotation
        assert values == set(annotation.__args__)
        contrasts = {row["contrast"] for row in rows.values()}
        assert contrasts == set(cells_of_type(cells, model).model_fields["contrast"].annotation.__args__)


def cells_of_type(cells, model):
    return type(next(cell.config for cell in cells if cell.model == model))


CLASSES = [
    *(one for one in vars(schema).values() if isinstance(one, type) and issubclass(one, Settings) and one.model_fields),
    *sorted({entry.config for entry in REGISTRY.values()}, key=lambda config: config.__name__),
]
FIELDS = [(group, field.alias or name, field) for group in CLASSES for name, field in group.model_fields.items()]
WRONG = [True, "", "x", "hr@0", 1.5, -1, 0, 10**19, -(10**19), 10**5000, 1e308, -1e308, math.inf, math.nan, [],
         {}, [[]], [True], [1, "x"], [{}], {"min": 0}, {"low": "x"}, {"x": {"y": {}}}, {"": 1}, {"x": 1}, [1, 1],
         ["x", "x"], dt.date(2024, 1, 2), dt.time(1), dt.datetime(2024, 1, 2, tzinfo=dt.UTC)]  # fmt: skip
FOREIGN = re.compile(
    r"pydantic|function-|union|tagged|Extra|extra input|instance|valid (int|num|str|bool|tup|dict)|dictionary|tuple\b|"
    r"model_|nullable|literal|validator|Value error|Assertion|Bounds|None\b|True|False|"
    r"datetime\.|\bint\b|(?<!')\bfloat\b|\bstr\b"
)


@pytest.mark.parametrize(("group", "key", "field"), FIELDS, ids=[f"{s.__name__}.{key}" for s, key, _ in FIELDS])
def test_a_wrong_value_of_any_field_is_explained_in_plain_words(group, key, field):
    refused = 0
    for value in WRONG:
        raw = {key: value}
        try:
            group.model_validate(raw)
        except ValidationError as error:
            explained = [(path, sentence) for path, sentence in explain(error, raw) if path[:1] in ((key,), ())]
            refused += bool(explained)
            for path, sentence in explained:
                assert not FOREIGN.search(sentence), sentence
                assert not [part for part in path if FOREIGN.search(str(part))], path
                assert len(sentence) < 300
                assert sentence[0].islower() or sentence[0] == "`"
            kinds = [error["type"] for error in error.errors() if error["loc"][:1] in ((key,), ())]
        else:
            kinds = []
        numbers = re.findall(r"\b(?:int|float)\b", str(field.annotation))
        bounded = numbers and group is not schema.Range  # whose ends the model's own setting bounds
        too_large = 1e100 if "float" in numbers else 1e18
        if bounded and isinstance(value, int | float) and abs(value) > too_large:
            assert kinds, f"{value} is taken"
    assert refused


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e400"])
@pytest.mark.parametrize(
    "key",
    [
        "training.learning_rate",
        "statistics.alpha",
        "models.ipsrec-s.lambda",
        "models.ipsrec-s.weight_norm",
        'models.ipsrec-s.variants."w/o CL".tau',
        "datasets.world.mean_length",
        "datasets.world.popularity_exponent",
        "scale",
    ],
)
def test_no_setting_is_infinite(key, value):
    assert mistake(TINY_SUITE, f"{key}={value}").startswith(f"--set {key}={value}: {key}: found ")


def test_a_setting_may_say_that_it_is_infinite():
    class Bold(ModelConfig):
        reach: float = Field(1.0, allow_inf_nan=True)

    assert Bold(reach=math.inf).reach == math.inf


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("datasets.world={ items = 1000000, providers = 1000 }", "items x providers is 1,000,000,000, more than"),
        ("datasets.world={ users = 10000000, mean_length = 100.0 }", "users x mean_length is 1,000,000,000, more than"),
        ("datasets.world.seed=-1", "greater than or equal to 0"),
        ("datasets.world.seed=2147483648", "less than 2147483648"),
        ("tune.seed=18446744073709551616", "less than 2147483648"),
        ("models.sasrec.n_layers=1000000", "less than or equal to 64"),
        ("models.sasrec={ n_layers = 64, embedding_size = 4096 }", "weights; allowed: up to"),
        ("models.sasrec.hidden_dropout=1.0", "less than or equal to 0.99"),
        ("models.ipsrec-s.tau=1e-320", "greater than or equal to 0.0001"),
        ("training.batch_size=10000000000000000000", "less than or equal to 10000000"),
        ("training.epochs=10000000000000000000", "less than or equal to 1000000"),
        ("training.stop_metric=hr@3000000000", "a cutoff is at most 2,147,483,647"),
        ("protocol.max_length=1000000000", "less than or equal to 100000"),
        ("protocol.cutoffs=[3000000000]", "less than or equal to 2147483647"),
        ("protocol.cutoffs=[100000000000000000000]", "less than or equal to 2147483647"),
        ("protocol.filter=10000000000-core", "less than or equal to 2147483647"),
        ("statistics.metric=mrr@99999999999999999999", "a cutoff is at most 2,147,483,647"),
        ("seeds=[true]", "input should be a number"),
        ('models."a\\u0000b".type=pop', "a name has 1 to 100 characters"),
        ("models.'  '.type=pop", "a name has 1 to 100 characters"),
        ('models.pop.variants."a\\nb"={}', "a name has 1 to 100 characters"),
    ],
)
def test_what_could_not_be_computed_is_refused(override, words):
    found = mistake(TINY_SUITE, override)
    assert found.startswith("--set ")
    assert words in found


def test_a_model_that_grows_with_the_history_says_how_long_one_it_can_be_built_for():
    text = TINY_SUITE.replace("[models.pop]", "[models.caser]")
    assert "'caser', as it is set, can be built for 500 at most" in mistake(text, "datasets.world.max_length=600")
    text = text.replace("max_length = 8\n", "")
    assert mistake(text, "protocol.max_length=600").startswith("--set protocol.max_length=600: protocol.max_length: ")


@pytest.mark.parametrize("case", ["delimiter", "tune", "bom", "nonascii"])
def test_the_reported_suites_are_read_or_refused_in_a_sentence(case, bench):
    cases = ROOT / "tests" / "cases"
    done = bench("validate", cases / f"{case}.toml", IPSREC_BENCH_CASES=str(cases))
    if case == "delimiter":
        return  # what it says is the business of the data's reader
    assert (done.returncode, done.stderr) == (0, "")
