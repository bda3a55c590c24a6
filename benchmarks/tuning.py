"""Tuning: what pruning saves, and whether it costs quality.

    python benchmarks/tuning.py [--trials 40] [--jobs 2] [FOLDER]

IPSRec-C in the size of suites/controls.toml on the embedded positive control: lambda and tau are searched once by every
pruner, with the same sampler and seed. The best settings of each search are then trained on five seeds that no
trial had, and compared on the test users with those of the search without pruning (over users and
seeds). Results that FOLDER already has are reused.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import tomli_w

CONTROLS = Path(__file__).parent.parent / "suites" / "controls.toml"
WORLD = "positive-control"
MODEL = "ipsrec-c"
PRUNERS = ("none", "percentile", "median", "hyperband")
FRESH = [101, 102, 103, 104, 105]


def main() -> None:
    """Print a line for every pruner."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp())
    found = {pruner: search(folder, pruner, arguments.trials, arguments.jobs) for pruner in PRUNERS}
    differences = on_fresh_seeds(folder, {pruner: study["best"]["settings"] for pruner, (study, _) in found.items()})
    print(f"{arguments.trials} trials, {arguments.jobs} at a time")
    print("| pruner | complete | epochs | saved | wall-clock | validation MRR@10 | test, against none | 95% interval |")
    print("|---|---:|---:|---:|---:|---:|---:|---|")
    whole = found["none"][0]["epochs"]
    for pruner, (study, seconds) in found.items():
        tested = "– | –"
        if pruner in differences:
            d = differences[pruner]
            tested = f"{d['difference']:+.4f} | {d['low']:+.4f} to {d['high']:+.4f}"
        print(
            f"| {pruner} | {len(study['complete'])} | {study['epochs']} | {1 - study['epochs'] / whole:.0%} |"
            f" {seconds:.0f} s | {study['best']['value']:.4f} | {tested} |"
        )


def search(folder: Path, pruner: str, trials: int, jobs: int) -> tuple[dict, float]:
    """Run a search to its end; return its study, and the seconds from start to end."""
    kept = folder / f"{pruner}.json"
    if not kept.exists():
        began = time.perf_counter()
        printed = bench(folder, "tune", CONTROLS, "--dataset", WORLD, "--model", MODEL, "--trials", trials,
                        "--jobs", jobs, "--json", "--set", f"tune.pruner={pruner}")  # fmt: skip
        kept.write_text(json.dumps([json.loads(printed)[0], time.perf_counter() - began]), encoding="utf-8")
    study, seconds = json.loads(kept.read_text(encoding="utf-8"))
    return study, seconds


def on_fresh_seeds(folder: Path, settings: dict[str, dict]) -> dict[str, dict]:
    """Train the settings of every pruner; return their comparisons with those of none, by pruner."""
    suite = tomllib.loads(CONTROLS.read_text(encoding="utf-8"))
    model = {key: value for key, value in suite["models"][MODEL].items() if key != "variants"} | settings["none"]
    others = {name: chosen for name, chosen in settings.items() if name != "none"}
    suite |= {"seeds": FRESH, "datasets": [WORLD], "models": {MODEL: {**model, "variants": others}}}
    suite["protocol"] = {"metrics": ["mrr"], "cutoffs": [10]}
    suite["statistics"] = {"baseline": MODEL, "test": "method"}
    path = folder / "fresh.toml"
    path.write_text(tomli_w.dumps(suite), encoding="utf-8")
    bench(folder, "run", path, "--quiet")
    return {
        name: json.loads(bench(folder, "compare", f"{MODEL} {name}", MODEL, "--suite", "fresh", "--json"))[0]
        for name in others
    }


def bench(folder: Path, *arguments: object) -> str:
    """Run `ipsrec-bench` in `folder`; return what it printed."""
    line = [sys.executable, "-m", "ipsrec_bench", *map(str, arguments)]
    return subprocess.run(line, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
