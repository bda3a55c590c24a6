"""A catalogue of a million items on a CPU, and how cost grows with the catalogue, the length and the users.

The stand-in for the paper's largest dataset has its 885,760 users and 1,144,124 items and random histories: only
sizes matter here.
"""

import argparse
import statistics
import sys
from pathlib import Path

import worlds
from peers import HERE, Peer

USERS, ITEMS = 885_760, 1_144_124


def ours(folder: Path, data: str, length: int, *settings: str) -> Peer:
    """Start SASRec on `data`, packed."""
    return Peer(Path(sys.executable), "ours.py", (folder, data, "sasrec", length, "packed", *settings), folder)


def million(folder: Path) -> None:
    """Train and rank at the size of the paper's largest dataset."""
    data = worlds.uniform(folder, USERS, ITEMS, 10_000, 9)
    print(f"\n**{USERS:,} users, {ITEMS:,} items**\n")
    print("| objective, optimiser | seconds per step of 256 targets | targets/s | peak memory, GB |")
    print("|---|---:|---:|---:|")
    rows = {
        "exact, Adam": (),
        "exact in float32, Adam": ("precision=float32",),
        "sampled softmax, Adam": ("objective=sampled-softmax", "negatives=1024"),
        "sampled softmax, lazy Adam": ("objective=sampled-softmax", "negatives=1024", "optimiser=lazy-adam"),
        "gBCE, lazy Adam": ("objective=gbce", "negatives=1024", "optimiser=lazy-adam"),
    }
    for title, settings in rows.items():
        peer = ours(folder, data, 20, *settings)
        peer.ask("train 1")
        answers = [peer.ask("train 3") for _ in range(3)]
        rate = statistics.median(a["targets"] / a["seconds"] for a in answers)
        memory = peer.ask("memory")["bytes"] / 1e9
        print(f"| {title} | {256 / rate:.3f} | {rate:,.0f} | {memory:.1f} |", flush=True)
        if not settings:
            ranked = peer.ask("rank 10000")
            memory = peer.ask("memory")["bytes"] / 1e9
            line = f"ranking {ranked['users']:,} users: {ranked['seconds']:.1f} s, peak {memory:.1f} GB"
        peer.close()
    print(f"\n{line}")


def growth(folder: Path) -> None:
    """Increase one size tenfold at a time; rounds are interleaved."""
    base = {"users": 2_000, "items": 5_000, "length": 20}
    cases = {}
    for change in ({}, {"items": 50_000}, {"length": 200}, {"users": 20_000}):
        sizes = base | change
        data = worlds.uniform(folder, sizes["users"], sizes["items"], 1_000, sizes["length"] + 3)
        title = ", ".join(f"{name} x 10" for name in change) or ", ".join(f"{v:,} {n}" for n, v in base.items())
        cases[title] = ours(folder, data, sizes["length"])
        cases[title].ask("train 10")
    found: dict[str, list[float]] = {title: [] for title in cases}
    for _ in range(9):
        for title, peer in cases.items():
            answer = peer.ask("train 60")
            found[title].append(answer["seconds"] / answer["targets"] * 1e6)
    print("\n| | measured, us per target | times the first |")
    print("|---|---:|---:|")
    first = statistics.median(next(iter(found.values())))
    for title, measured in found.items():
        print(f"| {title} | {statistics.median(measured):.1f} | {statistics.median(measured) / first:.2f} |")
    for peer in cases.values():
        peer.close()


def main() -> None:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["million", "growth"], choices=["million", "growth"])
    parser.add_argument("--folder", type=Path, default=HERE.parent.parent / ".bench")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for part in arguments.parts:
        {"million": million, "growth": growth}[part](folder)


if __name__ == "__main__":
    main()
