"""Preparation of raw files at the full size of the paper's datasets: time, memory, and the time to load the result.

    python benchmarks/prepare.py [--scale 1] [--rounds 3] [tmall twitch wechat]

The raw files are the datasets' stand-ins, written first (not timed). Each preparation and each loading is a separate
process; rounds are interleaved; times are medians, memory is the largest of all rounds. Each round also measures a
floor for the preparation: DuckDB counts the rows of the same file, with all columns read as text.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from ipsrec_bench.data.datasets import stand_in_folder
from ipsrec_bench.data.stand_ins import WRITERS, write_stand_in

COUNT = """
import sys, duckdb
duckdb.execute("SET enable_progress_bar = false")
names = sys.argv[2].split(",")
table = duckdb.read_csv(sys.argv[1], auto_detect=False, header=sys.argv[3] == "True", delimiter=",", quotechar='"',
                        escapechar='"', columns=dict.fromkeys(names, "VARCHAR"))
print(table.aggregate("count(*), " + ", ".join(f'count("{name}")' for name in names)).fetchall()[0][0])
"""
PREPARE = """
import resource, sys
from pathlib import Path
from ipsrec_bench.data.datasets import known_datasets
from ipsrec_bench.data.prepare import prepare
from ipsrec_bench.suite.schema import TableSource
name, data_dir, scale = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
data = prepare(name, TableSource.model_validate(known_datasets(data_dir, scale)[name]), data_dir)
print(data.num_users, data.num_items, data.num_providers, len(data.items))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
LOAD = """
import sys, time
from pathlib import Path
from ipsrec_bench.data.prepared import load_prepared
(folder,) = Path(sys.argv[1]).iterdir()
began = time.perf_counter()
data = load_prepared("x", folder)
data.items[-1], data.offsets[-1]
print(time.perf_counter() - began)
"""
RAW = {
    "tmall": ("ijcai2016_taobao.csv", "use_ID,sel_ID,ite_ID,cat_ID,act_ID,time_Stamp", True),
    "twitch": ("100k_a.csv", "user,stream,streamer,start,stop", False),
    "wechat": (
        "user_action.csv",
        "userid,feedid,date_,device,read_comment,comment,like,play,stay,click_avatar,forward,follow,favorite",
        True,
    ),
}


def main() -> None:
    """Print a row per dataset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="tmall|twitch|wechat")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path(".bench/prepare"))
    arguments = parser.parse_args()
    names = arguments.names or list(WRITERS)
    for name in names:
        write_stand_in(name, arguments.scale, arguments.folder / stand_in_folder(name, arguments.scale))
    seconds: dict[tuple[str, str], list[float]] = {}
    peak, rows, counts = {}, {}, {}
    prepared = arguments.folder / "prepared"
    for _ in range(arguments.rounds):
        for name in names:
            shutil.rmtree(prepared, ignore_errors=True)
            file, columns, header = RAW[name]
            path = arguments.folder / stand_in_folder(name, arguments.scale) / file
            took, output = timed(COUNT, path, columns, header)
            seconds.setdefault((name, "count"), []).append(took)
            rows[name] = int(output)
            took, output = timed(PREPARE, name, arguments.folder, arguments.scale)
            seconds.setdefault((name, "prepare"), []).append(took)
            counts[name], memory = output.splitlines()
            peak[name] = max(peak.get(name, 0), int(memory))
            seconds.setdefault((name, "load"), []).append(float(timed(LOAD, prepared)[1]))
    print(
        "| stand-in | raw rows | users, items, providers, actions | prepare, s | reading alone, s | peak | load, ms |"
    )
    print("|---|---:|---|---:|---:|---:|---:|")
    for name in names:
        prepare, count, load = (statistics.median(seconds[name, what]) for what in ("prepare", "count", "load"))
        print(
            f"| {name} | {rows[name]:,} | {' '.join(f'{int(n):,}' for n in counts[name].split())} | {prepare:.1f} |"
            f" {count:.1f} | {peak[name] / 1e9:.1f} GB | {1000 * load:.1f} |"
        )


def timed(program: str, *arguments: object) -> tuple[float, str]:
    """Run a program in a separate process; return its wall-clock seconds and what it printed."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True
    )
    return time.perf_counter() - began, done.stdout


if __name__ == "__main__":
    main()
