"""Training and ranking beside RecBole and RecTools, and beside the floor of unavoidable arithmetic.

Every contender is a separate process that works only on request; rounds are interleaved, medians are shown.
A floor is operations over the rate of a plain matrix product measured in the same rounds: 6 d V per target for the
softmax, forward and backward, plus three times the encoder's forward operations for every token that it was fed.
"""

import argparse
import os
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
import worlds
from peers import HERE, Peer, install

from ipsrec_bench.training.catalogue import product_dtype

D = 64
FAST = product_dtype("auto", torch.device("cpu"))
"""Default precision of products in training on this machine."""
DTYPES = dict.fromkeys((FAST, torch.float32))


@dataclass
class Contender:
    """A process and its answers."""

    peer: Peer
    line: str
    """Request of every round."""
    answers: list[dict] = field(default_factory=list)

    def play(self) -> None:
        """Ask once more."""
        self.answers.append(self.peer.ask(self.line))

    def rate(self, unit: str) -> float:
        """Return the median of `unit` per second; the first round warms up."""
        return statistics.median(answer[unit] / answer["seconds"] for answer in self.answers[1:])


def product_rate(dtype: torch.dtype, rows: int = 1024, columns: int = 2048) -> float:
    """Return the operations per second of `[rows, D] x [D, columns]`, a tile of the softmax."""
    left, right = torch.randn(rows, D).to(dtype), torch.randn(D, columns).to(dtype)
    left @ right
    began = time.perf_counter()
    for _ in range(50):
        left @ right
    return 50 * 2 * rows * columns * D / (time.perf_counter() - began)


def interleave(contenders: dict[str, Contender], rounds: int) -> dict[torch.dtype, float]:
    """Run every contender once to warm up and `rounds` times; return the median rates of products in `DTYPES`."""
    products = {dtype: [] for dtype in DTYPES}
    for _ in range(rounds + 1):
        for dtype, rates in products.items():
            rates.append(product_rate(dtype))
        for contender in contenders.values():
            contender.play()
    return {dtype: statistics.median(rates) for dtype, rates in products.items()}


def named(dtype: torch.dtype) -> str:
    """Return the name of `dtype` in settings and tables."""
    return str(dtype).removeprefix("torch.")


class Bench:
    """The cases, and the folder of their environments and data."""

    def __init__(self, folder: Path, rounds: int) -> None:
        """Keep environments and data below `folder`."""
        self.folder, self.rounds = folder, rounds
        self.recbole, self.rectools = (install(name, folder / "peers") for name in ("recbole", "rectools"))
        self.python = Path(sys.executable)

    def ours(self, data: str, model: str, length: int, samples: str, *settings: str) -> Peer:
        """Start this toolkit."""
        arguments = (self.folder, data, model, length, samples, *settings)
        return Peer(self.python, "ours.py", arguments, self.folder)

    def training(
        self,
        title: str,
        data: str,
        model: str,
        samples: str,
        peers: dict[str, Contender],
        steps: int,
        batches: tuple[int, ...] = (),
        length: int = 50,
        settings: tuple[str, ...] = (),
    ) -> None:
        """Measure `model` in batches of 256 targets, of `batches` too, beside `peers`, and print the table."""
        contenders, dtypes = {}, {}
        for dtype, batch in [*((dtype, 256) for dtype in DTYPES), *((FAST, batch) for batch in batches)]:
            name = f"ours, {samples}, {named(dtype)}, batches of {batch:,}"
            own = (f"precision={named(dtype)}", f"batch_size={batch}", *settings)
            peer = self.ours(data, model, length, samples, *own)
            contenders[name], dtypes[name] = Contender(peer, f"train {max(1, steps * 256 // batch)}"), dtype
        first = next(iter(contenders.values())).peer
        contenders |= peers
        products = interleave(contenders, self.rounds)
        items, token = first.ready["items"], first.ask("flops")["token"]
        rates = {name: contender.rate("targets") for name, contender in contenders.items()}
        shown = ", ".join(f"{rate / 1e9:.0f} {named(dtype)}" for dtype, rate in products.items())
        print(f"\n**{title}** ({items:,} items; GFLOP/s of products: {shown})\n")
        others = list(peers)
        print(
            "| contender | targets/s |"
            + "".join(f" x {name} |" for name in others)
            + " floor, us | of it: encoder | taken, us |"
        )
        print("|---|---:|" + "---:|" * len(others) + "---:|---:|---:|")
        for name, contender in contenders.items():
            cells = f"| {name} | {rates[name]:,.0f} |"
            cells += "".join(f" {rates[name] / rates[other]:.1f} |" for other in others)
            if name in dtypes:
                tokens = statistics.median(a["tokens"] / a["targets"] for a in contender.answers)
                rate = products[dtypes[name]]
                encoder, softmax = token * tokens / rate, 6 * D * items / rate
                cells += f" {(encoder + softmax) * 1e6:.1f} | {encoder * 1e6:.1f} | {1e6 / rates[name]:.1f} |"
            else:
                cells += f" | | {1e6 / rates[name]:.1f} |"
            print(cells, flush=True)
        for contender in contenders.values():
            contender.peer.close()

    def recbole_pair(self, data: str, model: str, steps: int, length: int = 50) -> dict[str, Contender]:
        """Start RecBole twice: as installed, and with anomaly detection off."""
        pair = {}
        for name in ("RecBole", "RecBole, anomaly off"):
            peer = Peer(self.recbole, "recbole_peer.py", (self.folder, data, model, length), self.folder)
            if name != "RecBole":
                peer.ask("anomaly off")
            pair[name] = Contender(peer, f"train {steps}")
        return pair

    def rectools_alone(self, data: str, steps: int) -> dict[str, Contender]:
        """Start RecTools' SASRec."""
        peer = Peer(self.rectools, "rectools_peer.py", (self.folder, data, 50), self.folder)
        return {"RecTools": Contender(peer, f"train {steps}")}

    def sasrec_movielens(self) -> None:
        """SASRec on MovieLens-100k."""
        data = worlds.movielens(self.folder, self.recbole)
        peers = self.recbole_pair(data, "SASRec", 8) | self.rectools_alone(data, 30)
        self.training("SASRec, MovieLens-100k, L = 50", data, "sasrec", "packed", peers, 150, (1600,))
        self.training(
            "SASRec, MovieLens-100k, L = 50", data, "sasrec", "prefix", self.recbole_pair(data, "SASRec", 8), 20
        )

    def sasrec_beauty(self) -> None:
        """SASRec on Amazon Beauty, which is read from where `quality/` reads it."""
        data = worlds.beauty(self.folder, Path(os.environ["IPSREC_BENCH_QUALITY_DATA"]))
        peers = self.recbole_pair(data, "SASRec", 15, 20)
        self.training("SASRec, Amazon Beauty, L = 20", data, "sasrec", "packed", peers, 60, (1024,), 20)

    def prefix_models(self) -> None:
        """SR-GNN and Caser, which cannot be packed."""
        data = worlds.movielens(self.folder, self.recbole)
        for ours, theirs in (("sr-gnn", "SRGNN"), ("caser", "Caser")):
            title = f"{theirs}, MovieLens-100k, L = 50"
            self.training(title, data, ours, "prefix", self.recbole_pair(data, theirs, 3), 10)

    def zoo(self) -> None:
        """The cited models that RecBole has, too; S3-Rec by stage."""
        data = worlds.movielens(self.folder, self.recbole)
        for ours, theirs, samples, settings, steps in ZOO:
            title = f"{theirs}, MovieLens-100k, L = 50"
            peers = self.recbole_pair(data, theirs, 3)
            self.training(title, data, ours, samples, peers, steps, settings=settings)

    def sasrec_large(self) -> None:
        """SASRec on 20,000 users and 49,000 items."""
        data = worlds.synthetic(self.folder, 20_000, 49_100, 1_000, 49)
        peers = self.recbole_pair(data, "SASRec", 6) | self.rectools_alone(data, 3)
        self.training("SASRec, 20,000 users, L = 50", data, "sasrec", "packed", peers, 60, (1600,))

    def ipsrec(self) -> None:
        """IPSRec at the sizes of the released code's measurement, beside RecBole's SASRec on MovieLens-100k."""
        data = worlds.synthetic(self.folder, 500, 14_000, 3_941, 49)
        for model in ("ipsrec-s", "ipsrec-c"):
            peers = self.recbole_pair(worlds.movielens(self.folder, self.recbole), "SASRec", 8)
            self.training(
                f"{model}, 500 users, L = 50; RecBole: SASRec, MovieLens-100k",
                data,
                model,
                "packed",
                peers,
                60,
                (512, 2048),
            )

    def ranking(self) -> None:
        """Full ranking of 20,000 users."""
        data = worlds.synthetic(self.folder, 20_000, 49_100, 1_000, 49)
        contenders = {"ours": Contender(self.ours(data, "sasrec", 50, "packed"), "rank")}
        for batch in (256, 1024, 4096):
            peer = Peer(self.recbole, "recbole_peer.py", (self.folder, data, "SASRec", 50), self.folder)
            contenders[f"RecBole, batch {batch}"] = Contender(peer, f"rank {batch}")
        float32 = interleave(contenders, self.rounds)[torch.float32]
        ready = contenders["ours"].peer.ready
        print(f"\n**Full ranking**, {ready['users']:,} users, {ready['items']:,} items\n")
        print("| contender | users/s | seconds for all | peak memory, MB |")
        print("|---|---:|---:|---:|")
        for name, contender in contenders.items():
            rate, memory = contender.rate("users"), contender.peer.ask("memory")["bytes"] / 1e6
            print(f"| {name} | {rate:,.0f} | {ready['users'] / rate:.2f} | {memory:,.0f} |")
        token = contenders["ours"].peer.ask("flops")["ranked_token"]  # takes memory that does not belong to ranking
        for contender in contenders.values():
            contender.peer.close()
        floor = (2 * D * ready["items"] + 50 * token) / float32
        print(f"\nfloor: {ready['users'] * floor:.2f} s, of it encoder {ready['users'] * 50 * token / float32:.2f} s")


ZOO = (
    ("bert4rec", "BERT4Rec", "prefix", ("model.preset=recbole",), 10),
    ("nextitnet", "NextItNet", "packed", (), 60),
    ("gc-san", "GCSAN", "prefix", (), 10),
    ("s3rec", "S3Rec:pretrain", "packed", ("stage=pretrain",), 10),
    ("s3rec", "S3Rec:finetune", "packed", (), 60),
    ("sgl", "SGL", "packed", (), 10),
)
"""Our name, RecBole's, the samples, our settings, and the number of our steps in a round."""
CASES = ("sasrec_movielens", "prefix_models", "zoo", "sasrec_large", "ipsrec", "ranking")
"""Cases that are run by default: their data are at hand."""


def main() -> None:
    """Run the cases that are asked for, all by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=CASES, choices=(*CASES, "sasrec_beauty"))
    parser.add_argument("--folder", type=Path, default=HERE.parent.parent / ".bench")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if "sasrec_beauty" in arguments.cases and "IPSREC_BENCH_QUALITY_DATA" not in os.environ:
        parser.error("sasrec_beauty: set IPSREC_BENCH_QUALITY_DATA to the folder of amazon-beauty.tsv.gz")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(arguments.folder.resolve(), arguments.rounds)
    for case in arguments.cases:
        getattr(bench, case)()


if __name__ == "__main__":
    main()
