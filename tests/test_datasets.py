"""Known datasets, stand-ins, and the whole pipeline from a name in a suite to a report."""

import gzip
import hashlib
import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest

from ipsrec_bench.data.datasets import known_dataset, known_datasets, stand_in_folder
from ipsrec_bench.data.prepare import prepare
from ipsrec_bench.data.stand_ins import TMALL, TMALL_CLICKED, TWITCH, WECHAT, write_stand_in
from ipsrec_bench.errors import DataError, MissingDataError
from ipsrec_bench.run.plan import cells_of, make_plan
from ipsrec_bench.suite.conditions import SOURCES
from ipsrec_bench.suite.load import load_suite, parse_suite
from ipsrec_bench.suite.schema import TableSource

from .conftest import ROOT, raw_sequences, vocabulary
from .test_cli import refused
from .test_data import REAL, needs_real_data

PAPER = ("tmall", "twitch", "wechat")
SCALE = 0.002
LARGE_RAW = os.environ.get("IPSREC_BENCH_DATA_DIR")


def source(name: str, data_dir: Path, scale: float | None = None) -> TableSource:
    return TableSource.model_validate(known_datasets(data_dir, scale)[name])


def test_every_entry_is_complete(tmp_path):
    known = known_datasets(tmp_path)
    assert set(PAPER) < set(known)
    for name in known:
        entry = known.entries[name]
        assert entry.title
        for form in entry.forms:
            SOURCES[form.get("source", "table")].model_validate(form)
        if not entry.embedded:
            assert entry.citation
            assert entry.terms
            assert entry.obtain
            assert entry.homepage.startswith("https://")
            files = {file for form in entry.files() for file in form}
            for part in entry.downloads:
                assert part.file.removesuffix(".gz") in files, name


def test_the_published_counts_are_those_of_the_paper(tmp_path):
    counts = {
        name: (p.users, p.items, p.providers, p.actions[0])
        for name in PAPER
        if (p := known_dataset(name, known_datasets(tmp_path)).published)
    }
    assert counts == {
        "tmall": (885_759, 1_144_124, 9_997, 7_592_214),
        "twitch": (100_000, 739_991, 162_625, 3_051_732),
        "wechat": (20_000, 96_564, 18_429, 7_317_882),
    }


def test_a_name_in_braces_covers_many_datasets(tmp_path):
    known = known_datasets(tmp_path)
    entry = known_dataset("amazon-All_Beauty", known)
    assert entry.downloads[0].url.endswith("/All_Beauty_5.json.gz")
    assert known["amazon-All_Beauty"]["items"]["path"] == "amazon-2018/meta_All_Beauty.json"
    for unknown in ("amazon-beauty", "amazon-"):
        with pytest.raises(DataError, match="is not a known dataset"):
            known_dataset(unknown, known)
    with pytest.raises(DataError, match="covers many datasets: fill in the braces, as in 'amazon-All_Beauty'"):
        known_dataset("amazon-{category}", known)


def test_the_form_whose_files_exist_is_read(tmp_path):
    known, raw = known_datasets(tmp_path), tmp_path / "raw"
    assert known["tmall"]["path"] == "ijcai2016_taobao.csv"
    assert known.state("tmall") == (
        "missing: get it from the homepage (free account); https://tianchi.aliyun.com/dataset/dataDetail?dataId=53"
        " (or use its stand-in)"
    )
    (raw / "tmall").mkdir(parents=True)
    (raw / "tmall" / "tmall-buy.inter").touch()
    assert known["tmall"]["path"] == "tmall/tmall-buy.inter"
    (raw / "ijcai2016_taobao.csv.gz").touch()
    assert known["tmall"]["path"] == "ijcai2016_taobao.csv"
    assert known.state("tmall") == "ijcai2016_taobao.csv is present"
    (raw / "ijcai2016_taobao.csv.gz").rename(raw / "tmall" / "ijcai2016_taobao.csv.gz")
    assert known["tmall-clicks"]["path"] == "tmall/ijcai2016_taobao.csv"  # the same file


def test_files_may_be_in_both_places_and_all_missing_ones_are_named(tmp_path):
    known, raw = known_datasets(tmp_path), tmp_path / "raw"
    with pytest.raises(MissingDataError, match=r"raw/user_action\.csv and .*raw/feed_info\.csv: there is no such file"):
        prepare("wechat", source("wechat", tmp_path), tmp_path)
    (raw / "wechat").mkdir(parents=True)
    (raw / "wechat" / "user_action.csv").write_text("userid,feedid,date_\n1,a,1\n", encoding="utf-8")
    assert known.state("wechat").startswith("missing")  # one of two files is not enough
    with pytest.raises(MissingDataError, match=r"^[^ ]*raw/feed_info\.csv: there is no such file"):
        prepare("wechat", source("wechat", tmp_path), tmp_path)
    (raw / "feed_info.csv").write_text("feedid,authorid\na,p\n", encoding="utf-8")
    assert known.state("wechat") == "wechat/user_action.csv is present"
    assert raw_sequences(prepare("wechat", source("wechat", tmp_path), tmp_path)) == {"1": ["a"]}


def test_a_suites_settings_override_those_of_known_datasets_which_override_defaults(tmp_path):
    (tmp_path / "datasets.toml").write_text(
        '[mine]\ntitle = "Mine"\nmax_length = 7\nfilter = "3-core"\nforms = [{ path = "x.csv" }]\n', encoding="utf-8"
    )

    def resolved(*overrides: str):
        (cell,) = cells_of(
            parse_suite(Path("x.toml"), 'title = "x"\nseeds = [1]\nmodels = ["pop"]\ndatasets = ["mine"]', overrides),
            tmp_path,
        )
        return cell.protocol.max_length, str(cell.source.filter)

    three = "users with 3 or more interactions and items with 3 or more interactions"
    assert resolved() == (7, three)
    assert resolved("protocol.max_length=5", 'protocol.filter="none"') == (5, "none")
    assert resolved("protocol.max_length=5", "datasets.mine.max_length=6") == (6, three)


def test_a_users_own_entries_take_precedence_and_their_errors_name_a_line(tmp_path):
    own = tmp_path / "datasets.toml"
    own.write_text('[mine]\ntitle = "Mine"\nforms = [{ path = "mine.csv" }]\n', encoding="utf-8")
    assert known_datasets(tmp_path)["mine"]["path"] == "mine.csv"
    own.write_text('[mine]\ntitle = "Mine"\n\n[[mine.forms]]\npath = "x"\n\n[mine.published]\nuser = 3\n', "utf-8")
    with pytest.raises(DataError, match=r"datasets\.toml:8: mine\.published\.user: unknown key 'user'"):
        known_datasets(tmp_path)
    own.write_text('[mine]\ntitle = "Mine"\nforms = []\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"datasets\.toml:3: mine\.forms: found \[\]"):
        known_datasets(tmp_path)
    own.write_text("[mine\n", encoding="utf-8")
    with pytest.raises(DataError, match="not valid TOML"):
        known_datasets(tmp_path)
    own.write_bytes(b"# \xff\n")
    with pytest.raises(DataError, match="cannot be read as UTF-8 text"):
        known_datasets(tmp_path)
    for line, words in (
        ('["a-{b}{b}"]', "the parts in braces need different names"),
        (
            'forms = [{ path = "x.csv", usr = "q" }]',
            r"datasets\.toml:3: mine\.forms\.0\.usr: unknown key 'usr'; did you",
        ),
        ('forms = [{ path = "x.csv", items = "y" }]', r"datasets\.toml:3: mine\.forms\.0\.items: found 'y'"),
        ('forms = [{ source = "tables" }]', "found source = 'tables'; allowed: 'table', 'synthetic'"),
    ):
        head = "" if line.startswith("[") else '[mine]\ntitle = "Mine"\n'
        own.write_text(f'{head}{line}\ntitle = "x"\n'.replace('\ntitle = "x"' if head else "", ""), encoding="utf-8")
        with pytest.raises(DataError, match=words):
            known_datasets(tmp_path)


def test_a_file_under_its_former_name_is_refused_with_the_new_one(tmp_path, bench):
    data = tmp_path / "data"
    data.mkdir()
    (data / "catalog.toml").write_text('[mine]\ntitle = "Mine"\nforms = [{ path = "mine.csv" }]\n', encoding="utf-8")
    refused(
        bench("data", "list", "--data-dir", str(data)), "catalog.toml: this file is called datasets.toml now; rename it"
    )


@needs_real_data
def test_an_archive_is_unpacked_if_its_files_are_missing(tmp_path):
    (tmp_path / "raw").mkdir()
    shutil.copy(f"{REAL}/xwines-slim.zip", tmp_path / "raw")
    known = known_datasets(tmp_path)
    assert known.state("xwines") == "xwines-slim.zip is present"
    (tmp_path / "raw/xwines").mkdir()
    (tmp_path / "raw/xwines-slim.zip").rename(tmp_path / "raw/xwines/xwines-slim.zip")
    assert known.state("xwines") == "xwines/xwines-slim.zip is present"
    known.provide("xwines")
    assert known.state("xwines") == "xwines/XWines_Slim_150K_ratings.csv is present"
    s = prepare("xwines", source("xwines", tmp_path), tmp_path).statistics
    assert (s.users, s.items, s.providers, s.actions) == (10_561, 1_007, 792, 150_000)


def test_a_wrong_archive_is_named(tmp_path):
    (tmp_path / "raw").mkdir()
    with zipfile.ZipFile(tmp_path / "raw/wechat_algo_data1.zip", "w") as file:
        file.writestr("wechat_algo_data1/user_action.csv", "userid\n")
    with pytest.raises(DataError, match=r"wechat_algo_data1\.zip: the archive has no 'feed_info\.csv'"):
        known_datasets(tmp_path).provide("wechat")


# Stand-ins


@pytest.fixture(scope="module")
def stood_in(tmp_path_factory) -> Path:
    data_dir = tmp_path_factory.mktemp("stand-ins")
    for name in PAPER:
        write_stand_in(name, SCALE, data_dir / stand_in_folder(name, SCALE))
    return data_dir


@pytest.mark.parametrize(
    ("name", "full"), [("tmall", TMALL), ("tmall-clicks", TMALL_CLICKED), ("twitch", TWITCH), ("wechat", WECHAT)]
)
def test_a_stand_in_has_the_published_counts_at_its_scale(stood_in, name, full):
    data = prepare(name, source(name, stood_in, SCALE), stood_in)
    s, wanted = data.statistics, full.scaled(SCALE)
    assert (s.users, s.items, s.actions) == (wanted.users, wanted.items, wanted.actions)
    if name != "tmall-clicks":  # how many providers the clicked items have is not published
        assert s.providers == wanted.providers
    assert data.stand_in
    assert s.stickiness is not None
    assert s.stickiness > 1.5 * s.shuffled_stickiness


def test_stand_ins_have_the_formats_of_the_raw_files(stood_in):
    folders = {name: stood_in / stand_in_folder(name, SCALE) for name in PAPER}
    header, row = (folders["tmall"] / "ijcai2016_taobao.csv").read_text().splitlines()[:2]
    assert header == "use_ID,sel_ID,ite_ID,cat_ID,act_ID,time_Stamp"
    assert row.split(",")[-1].startswith("2015")
    assert len((folders["tmall"] / "ijcai2016_taobao.csv").read_text().splitlines()) - 1 == round(
        9_348_756 * SCALE
    ) + round(35_179_371 * SCALE)
    assert (folders["twitch"] / "100k_a.csv").read_text().splitlines()[0].count(",") == 4
    assert (folders["wechat"] / "user_action.csv").read_text().splitlines()[0] == (
        "userid,feedid,date_,device,read_comment,comment,like,play,stay,click_avatar,forward,follow,favorite"
    )
    assert (folders["wechat"] / "feed_info.csv").read_text().splitlines()[0].startswith("feedid,authorid")


def test_a_stand_in_is_reproducible_and_recognised_wherever_it_is(stood_in, tmp_path):
    def digests(folder: Path) -> list[str]:
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())]

    again = tmp_path / "raw"
    write_stand_in("twitch", SCALE, again)
    assert digests(again) == digests(stood_in / stand_in_folder("twitch", SCALE))
    data = prepare("twitch", source("twitch", tmp_path), tmp_path)  # as if it were the real file
    assert data.stand_in
    (tmp_path / "raw/100k_a.csv").write_text("~1,a,p,1,2\nb,c,p,2,3\n", encoding="utf-8")
    assert not prepare("twitch", source("twitch", tmp_path), tmp_path).stand_in


def test_the_streamer_may_be_the_item_and_actions_may_be_chosen(stood_in):
    file = parse_suite(
        Path("x.toml"),
        'title = "x"\nmodels = ["pop"]\n[datasets.twitch]\nitem = "streamer"\n'
        '[datasets.wechat]\nwhere = "\\"like\\" = \'1\' OR \\"follow\\" = \'1\'"\n',
        ["stand_in=true", f"scale={SCALE}"],
    )
    cells = {cell.dataset: cell for cell in cells_of(file, stood_in)}
    streamers = prepare("twitch", cells["twitch"].source, stood_in)
    assert streamers.statistics.items == TWITCH.scaled(SCALE).providers
    liked = prepare("wechat", cells["wechat"].source, stood_in).statistics.actions
    assert 0 < liked < 0.1 * WECHAT.scaled(SCALE).actions


def test_an_unknown_stand_in_is_refused(tmp_path):
    with pytest.raises(DataError, match="there is no stand-in for 'tmal'; did you mean 'tmall'"):
        write_stand_in("tmal", SCALE, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_stand_in_that_would_be_too_small_is_refused(tmp_path):
    with pytest.raises(DataError, match="use a larger scale"):
        write_stand_in("tmall", 1e-5, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


# Raw forms other than the stand-ins'


def test_tmall_keeps_the_newest_of_duplicate_purchases(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/ijcai2016_taobao.csv").write_text(
        "use_ID,sel_ID,ite_ID,cat_ID,act_ID,time_Stamp\n"
        "1,s,a,c,1,20150901\n"  # again below, later
        "1,s,b,c,1,20150902\n"
        "1,s,a,c,1,20150903\n"
        "1,s,a,d,1,20150804\n"  # another category: no duplicate
        "1,s,z,c,0,20150801\n"  # a click
        "2,s,a,c,1,20150901\n",
        encoding="utf-8",
    )
    assert raw_sequences(prepare("tmall", source("tmall", tmp_path), tmp_path)) == {"1": ["a", "b", "a"], "2": ["a"]}
    assert raw_sequences(prepare("c", source("tmall-clicks", tmp_path), tmp_path)) == {"1": ["z"]}


def test_prepared_forms_of_recbole_are_read(tmp_path):
    (tmp_path / "raw").mkdir()
    for file, time in (
        ("tmall-buy.inter", "timestamp"),
        ("liverec-100k.inter", "time_start"),
        ("wechat.inter", "timestamp"),
    ):
        (tmp_path / "raw" / file).write_text(
            f"user_id:token\titem_id:token\tseller_id:token\t{time}:float\n1\ta\tp\t2\n1\tb\tq\t1\n", encoding="utf-8"
        )
    for name in PAPER:
        data = prepare(name, source(name, tmp_path), tmp_path)
        assert raw_sequences(data) == {"1": ["b", "a"]}, name
        assert sorted(vocabulary(data, "providers").values()) == ["p", "q"]


def test_amazon_reviews_and_ratings_are_joined_with_their_brands(tmp_path):
    folder = tmp_path / "raw" / "amazon-2018"
    folder.mkdir(parents=True)
    meta = [{"asin": "A", "brand": "Acme", "also_buy": ["B"]}, {"asin": "B", "brand": ""}, {"asin": "C"}]
    reviews = [
        {"reviewerID": "u", "asin": "B", "unixReviewTime": 5, "overall": 5.0, "style": {"Size:": " 1"}},
        {"reviewerID": "u", "asin": "A", "unixReviewTime": 4, "overall": 1.0},
    ]

    def packed(name: str, rows: list[dict]) -> None:
        with gzip.open(folder / name, "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    packed("meta_Toys.json.gz", meta)
    (folder / "Toys.csv").write_text("B,u,5.0,5\nA,u,1.0,4\n", encoding="utf-8")
    ratings = prepare("r", source("amazon-Toys", tmp_path), tmp_path)
    packed("Toys_5.json.gz", reviews)
    data = prepare("r", source("amazon-Toys", tmp_path), tmp_path)
    assert raw_sequences(data) == {"u": ["A", "B"]}
    assert data.fingerprint == ratings.fingerprint
    assert data.providers.tolist() == [2, 1]


def test_steams_python_dictionaries_are_read(tmp_path):
    folder = tmp_path / "raw" / "steam"
    folder.mkdir(parents=True)
    (folder / "steam_reviews.json").write_text(
        "{u'username': u'x', u'product_id': u'10', u'date': u'2017-12-17', u'text': u'it\\'s \"fine\"'}\n"
        "{u'username': u'x', u'product_id': u'20', u'date': u'2016-01-01'}\n",
        encoding="utf-8",
    )
    games = folder / "steam_games.json"
    games.write_text("{u'id': u'10', u'developer': u'Valve', u'tags': [u'a']}\n{u'id': u'20'}\n", encoding="utf-8")
    data = prepare("steam", source("steam", tmp_path), tmp_path)
    assert raw_sequences(data) == {"x": ["20", "10"]}
    assert data.providers.tolist() == [1, 2]
    games.write_text("{u'id': u'10'\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"steam_games\.json:1: the line is not a Python dictionary"):
        prepare("steam", source("steam", tmp_path), tmp_path)


@needs_real_data
def test_the_shops_event_log_is_read(tmp_path):
    (tmp_path / "raw/rees46").mkdir(parents=True)
    head = Path(f"{REAL}/rees46-head.csv.gz")
    packed = tmp_path / "raw/rees46/2019-Oct.csv.gz"
    shutil.copy(head, packed)
    # It was truncated in the middle of its last line, within the user's id.
    with pytest.raises(DataError, match=r"2019-Oct\.csv\.gz:17436: Expected Number of Columns: 9 Found: 8"):
        prepare("rees46", source("rees46-2019-Oct", tmp_path), tmp_path)
    packed.write_bytes(gzip.compress(gzip.decompress(head.read_bytes()).rpartition(b"\n")[0]))
    s = prepare("rees46", source("rees46-2019-Oct", tmp_path), tmp_path).statistics
    assert (s.users, s.items, s.providers, s.actions) == (4_504, 6_493, 864, 17_434)
    assert s.stickiness == pytest.approx(0.493, abs=0.0006)
    assert s.shuffled_stickiness == pytest.approx(0.416, abs=0.001)  # theirs is of one shuffle


@pytest.mark.parametrize("name", PAPER)
def test_table_1_to_the_unit(name):
    """If the raw files exist: below data/raw/, or in the folder of IPSREC_BENCH_DATA_DIR."""
    data_dir = Path(LARGE_RAW) if LARGE_RAW else ROOT / "data"
    known = known_datasets(data_dir)
    if "missing" in known.state(name):
        pytest.skip(f"the raw files of {name} are not in {data_dir / 'raw'}")
    known.provide(name)
    data = prepare(name, source(name, data_dir), data_dir)
    published = known_dataset(name, known).published
    assert not data.stand_in
    s = data.statistics
    assert (s.users, s.items, s.providers) == (published.users, published.items, published.providers)
    assert s.actions in published.actions


# Suites


def test_what_is_missing_is_named_and_the_rest_can_be_run(tmp_path):
    text = 'title = "x"\nmodels = ["pop"]\ndatasets = ["twitch", "positive-control", "xwines"]\n'
    file = parse_suite(Path("x.toml"), text)
    with pytest.raises(MissingDataError) as caught:
        make_plan(file, tmp_path, tmp_path / "s.duckdb", lambda _: None)
    twitch, xwines, advice = str(caught.value).splitlines()
    assert "100k_a.csv: there is no such file; get it from the homepage (Google Drive); https://" in twitch
    assert twitch.endswith("; or add --stand-in --scale 0.01 for made-up data of its shape")
    assert "XWines_Full_21M_ratings.csv and " in xwines
    assert "XWines_Full_100K_wines.csv: there is no such file; get the Slim or" in xwines
    assert "stand-in" not in xwines
    assert advice == "Run the other datasets with --available."
    events = []
    plan = make_plan(file, tmp_path, tmp_path / "s.duckdb", events.append, available=True)
    assert list(plan.datasets) == ["positive-control"]
    assert [(type(event).__name__, event.dataset) for event in events] == [
        ("DatasetLeftOut", "twitch"),
        ("DatasetLeftOut", "xwines"),
        ("DatasetReady", "positive-control"),
    ]
    with pytest.raises(MissingDataError, match="100k_a"):
        make_plan(
            parse_suite(Path("x.toml"), text.replace(', "positive-control"', "")),
            tmp_path,
            tmp_path / "s.duckdb",
            lambda _: None,
            available=True,
        )


def test_the_papers_suites_share_cells_and_differ_where_they_say(tmp_path):
    suites = {name: load_suite(ROOT / f"suites/{name}.toml") for name in ("paper", "paper-fast", "ablation")}
    keys = {name: {cell.key(cell.dataset): cell for cell in cells_of(file, tmp_path)} for name, file in suites.items()}
    assert len(keys["paper"]) == 3 * 6 * 5
    ablated = {cell.label for key, cell in keys["ablation"].items() if key not in keys["paper"]}
    assert ablated == {"ipsrec-s w/o CL", "ipsrec-c w/o CL"}
    shared = {cell.label for key, cell in keys["paper"].items() if key in keys["paper-fast"]}
    assert shared == {"caser", "sr-gnn"}
    lengths = {cell.dataset: cell.protocol.max_length for cell in keys["paper"].values()}
    assert lengths == {"tmall": 20, "twitch": 50, "wechat": 100}
    for cell in keys["paper"].values():
        assert cell.training.samples == "prefix"
        assert (cell.training.batch_size, cell.training.learning_rate) == (256, 1e-3)
        assert (cell.training.epochs, cell.training.patience, cell.training.stop_metric) == (50, 10, "mrr@10")
        assert not cell.protocol.mask_history
        assert not cell.protocol.filter.active
