"""Runs tinyres and its peers in turn, checks what each delivers, and prints the table.

Each measurement is a process of its own, and the peers take turns, so that whatever else the machine
does hits all alike. Stands on the standard library alone, to be small itself: what a process is said to
have needed at most is never less than what its parent had.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from process import Failed, Process

HERE = Path(__file__).parent
DTYPES = ("u8", "f32")
# Networks of `training.py`, and for how many seconds each is trained.
NETS = {"none": 4, "small": 4, "resnet18": 16}
TRAINING_BATCH = 128


@dataclass
class Peer:
    """Something to measure: a script in this folder, or tinyres."""

    name: str
    title: str
    script: str | None = None
    # Whose packed set it reads, if it does not pack its own.
    reads: str | None = None
    # What it packs: the unpacked tree or the zip.
    source: str = "tree"
    dtypes: tuple = DTYPES
    env: dict = field(default_factory=dict)


PEERS = [
    Peer("tinyres", "**tinyres**"),
    Peer("tinyres-python", "**tinyres** from Python", "tinyres_.py", "tinyres"),
    Peer("tinyres-zip", "**tinyres**, from the zip", source="zip", dtypes=()),
    Peer(
        "imagefolder-0",
        "ImageFolder, no workers",
        "imagefolder.py",
        "tree",
        env={"PEER_WORKERS": "0"},
    ),
    Peer("imagefolder", "ImageFolder, {workers} workers", "imagefolder.py", "tree"),
    Peer("memmap", "NumPy {numpy}, a mapped array", "memmap.py"),
    Peer(
        "index_select",
        "`index_select` of torch {torch} over that array",
        "index_select.py",
        "memmap",
    ),
    Peer("compiled", "the same, `torch.compile`", "compiled.py", "memmap", dtypes=("f32",)),
    Peer("ffcv", "FFCV {ffcv}", "ffcv_.py"),
    Peer("streaming", "MosaicML Streaming {mosaicml-streaming}", "streaming_.py"),
    Peer("webdataset", "WebDataset {webdataset}", "webdataset_.py"),
    Peer(
        "webdataset-jpeg", "WebDataset, JPEGs as they are", "webdataset_.py", env={"PEER_JPEG": "1"}
    ),
    Peer("litdata", "LitData {litdata}", "litdata_.py"),
]


# Those that take part in training, unless others are named.
TRAINED = ("tinyres-python", "imagefolder", "ffcv", "litdata")


class Bench:
    """What is measured, and what has been."""

    def __init__(self, args, work):
        self.args, self.work = args, work
        self.packs = defaultdict(list)
        self.epochs = defaultdict(list)
        self.errors = {}
        known = work / "expected.json"
        if not known.exists():
            reference = [sys.executable, HERE / "peer.py", work / "tree"]
            known.write_bytes(subprocess.check_output(reference, env=self.environment()))
        self.expected = json.loads(known.read_text())

    def measure(self, peers):
        for peer in peers:
            failed = self.args.failed / peer.name.removesuffix("-jpeg").removesuffix("-python")
            if failed.exists():
                self.errors[peer.name] = f"not installed: {failed.read_text().strip()}"
        there = {peer.name for peer in peers if (self.work / peer.name).exists()}
        for _ in range(1 if self.args.train else self.args.rounds):
            for peer in peers:
                if not peer.reads and peer.name not in there:
                    self.attempt(peer, self.pack)
        for _ in range(self.args.rounds if self.args.train else 0):
            for net in NETS:
                for peer in peers:
                    if peer.script:
                        self.attempt(peer, self.train, net)
        for number in range(0 if self.args.train else self.args.rounds):
            for dtype in DTYPES:
                for peer in peers:
                    if dtype in peer.dtypes:
                        self.attempt(peer, self.load, dtype, number == 0)

    def attempt(self, peer, step, *args):
        """A peer that fails once is out, and the table says why."""
        if peer.name in self.errors:
            return
        say(f"{peer.name}: {step.__name__}", *args[:1])
        try:
            step(peer, *args)
        except Failed as error:
            self.errors[peer.name] = str(error)
            say(f"{peer.name}: {error}")
            if step == self.pack:
                shutil.rmtree(self.work / peer.name, ignore_errors=True)

    def pack(self, peer):
        src, dst = self.work / peer.source, self.work / peer.name
        shutil.rmtree(dst, ignore_errors=True)
        self.sync()
        if peer.script:
            command = [sys.executable, HERE / peer.script, "pack", src, dst]
        else:
            command = [self.args.target / "tinyres", "pack", src, "--output", dst, *self.threads()]
        seconds, memory = Process(command, self.environment(peer)).wait()
        begin = time.perf_counter()
        self.sync()
        self.packs[peer.name].append(
            {
                "seconds": seconds,
                "seconds_on_disk": seconds + time.perf_counter() - begin,
                "memory_bytes": memory,
                "disk_bytes": sum(path.stat().st_size for path in dst.rglob("*") if path.is_file()),
            }
        )
        if not peer.dtypes:
            shutil.rmtree(dst)  # nobody reads it

    def load(self, peer, dtype, check):
        src = self.work / (peer.reads or peer.name)
        if peer.script:
            command = [sys.executable, HERE / peer.script, "epochs", src, dtype]
        else:
            command = [self.args.target / "tinyres-peers", src, dtype, *self.threads()]
        process = Process(command + ["--check"] * check, self.environment(peer))
        process.report()
        first = process.elapsed()
        report = process.report()
        process.wait()
        delivered = {key: report[key] for key in self.expected}
        if check and delivered != self.expected:
            raise Failed(f"an epoch of {dtype} delivers {delivered} and not {self.expected}")
        self.epochs[peer.name, dtype].append({"first_batch": first, "seconds": report["seconds"]})

    def train(self, peer, net):
        src = self.work / (peer.reads or peer.name)
        command = [sys.executable, HERE / peer.script, "train", src, net, "--seconds", NETS[net]]
        batch = {"PEER_BATCH": str(TRAINING_BATCH)}
        process = Process(command, self.environment(peer) | batch)
        report = process.report()
        process.wait()
        self.epochs[peer.name, net].append(report)

    def threads(self):
        return ["--threads", str(self.args.workers)]

    def environment(self, peer=None):
        workers = str(self.args.workers)
        return (
            os.environ
            | {"PEER_WORKERS": workers, "OMP_NUM_THREADS": workers}
            | (peer.env if peer else {})
        )

    def sync(self):
        subprocess.run(["sync", "-f", self.work], check=True)

    def result(self, peer):
        """The medians of a peer: times in seconds, rates in images a second."""
        images = self.expected["images"]
        result = {"name": peer.name, "error": self.errors.get(peer.name)}
        if packs := self.packs[peer.name]:
            result |= {key: median(pack[key] for pack in packs) for key in packs[0]}
            result["pack"] = images / result["seconds"]
        for dtype in peer.dtypes:
            if runs := self.epochs[peer.name, dtype]:
                result[dtype] = images / median(time for run in runs for time in run["seconds"])
                result.setdefault("first_batch", median(run["first_batch"] for run in runs))
        for net in NETS:
            if runs := self.epochs[peer.name, net]:
                result[net] = median(run["images"] for run in runs)
                result[f"{net}, waiting"] = median(run["waiting"] for run in runs)
        return result


def count(value):
    return f"{value:,.0f}"


# Of each column: its heading, the key of its values, how to write them, and whether more is better.
COLUMNS = [
    ("pack, s", "seconds", "{:.2f}".format, False),
    ("images/s", "pack", count, True),
    ("s until on disk", "seconds_on_disk", "{:.2f}".format, False),
    ("memory, MB", "memory_bytes", lambda value: f"{value / 1e6:,.0f}", False),
    ("disk, MB", "disk_bytes", lambda value: f"{value / 1e6:,.0f}", False),
    ("first batch, s", "first_batch", "{:.3g}".format, False),
    ("u8, images/s", "u8", count, True),
    ("f32, images/s", "f32", count, True),
]
TRAINING_COLUMNS = [
    ("batches alone, images/s", "none", count, True),
    ("a small network, images/s", "small", count, True),
    ("of it waiting", "small, waiting", "{:.1%}".format, False),
    ("ResNet18, images/s", "resnet18", count, True),
    ("of it waiting", "resnet18, waiting", "{:.1%}".format, False),
]


def table(peers, results, titles, columns, own):
    """One row for each peer; the best of each column is bold. Then where tinyres, which is called `own`, is not the best."""
    yield "| |" + "".join(f" {heading} |" for heading, *_ in columns)
    yield "|---|" + "---:|" * len(columns)
    ahead = []
    best = {}
    for heading, key, write, more in columns:
        values = {peer.name: result[key] for peer, result in zip(peers, results) if key in result}
        if values:
            best[key] = (max if more else min)(values.values())
        for peer in peers:
            ours, theirs = values.get(own), values.get(peer.name)
            if peer.script in (None, "tinyres_.py") or not ours or not theirs:
                continue
            if theirs > ours if more else theirs < ours:
                ahead.append(
                    f"- {titles[peer.name]}: {heading}: {write(theirs)}, tinyres {write(ours)}"
                )
    for peer, result in zip(peers, results):
        cells = [
            ""
            if key not in result
            else f"**{write(result[key])}**"
            if result[key] == best[key]
            else write(result[key])
            for _, key, write, _ in columns
        ]
        if result["error"]:
            cells = [result["error"].replace("|", "\\|")] + [""] * (len(columns) - 1)
        yield f"| {titles[peer.name]} |" + "".join(f" {cell} |" for cell in cells)
    yield ""
    yield "Ahead of tinyres:" if ahead else "Nothing is ahead of tinyres in anything."
    yield from ahead


def prepare(data, work):
    """The training images of a zip or a directory, as a tree and as a zip of their own."""

    def wanted(name):
        return "/train/" in name or name.endswith(("/wnids.txt", "/words.txt"))

    with zipfile.ZipFile(work / "zip", "w", zipfile.ZIP_DEFLATED) as copy:
        if data.is_dir():
            files = (path for path in sorted(data.rglob("*")) if path.is_file())
            entries = (
                (f"tiny-imagenet/{path.relative_to(data)}", path.read_bytes) for path in files
            )
        else:
            original = zipfile.ZipFile(data)
            names = (name for name in original.namelist() if not name.endswith("/"))
            entries = ((name, lambda name=name: original.read(name)) for name in names)
        for name, read in entries:
            if wanted(name):
                content = read()
                copy.writestr(name, content)
                path = work / "tree" / name.partition("/")[2]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)


@contextmanager
def kept(sets):
    """The directory of the images and the packed sets: `sets`, which stays, or one for this run."""
    if sets:
        sets.mkdir(parents=True, exist_ok=True)
        yield sets
    else:
        with tempfile.TemporaryDirectory(prefix="tinyres-peers-") as work:
            yield work


def machine(workers):
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "an unknown processor",
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores of {model}, {memory:.0f} GiB; {workers} threads or workers each"


def say(*words):
    print("peers:", *words, file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(prog="benches/peers/run")
    parser.add_argument(
        "data", type=Path, metavar="DATA", help="Tiny ImageNet, a zip or a directory"
    )
    parser.add_argument(
        "--only", metavar="NAME,...", help="of " + ", ".join(peer.name for peer in PEERS)
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="how often each is measured [%(default)s]"
    )
    parser.add_argument(
        "--workers", type=int, default=2, help="threads or processes of each [%(default)s]"
    )
    parser.add_argument(
        "--train",
        action="store_true",
        help=f"measure a plain training script on their batches instead, of {TRAINING_BATCH}",
    )
    parser.add_argument(
        "--sets",
        type=Path,
        metavar="DIR",
        help="where images and packed sets stay: what is there is not packed again, and has no figure for packing",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="where every single figure goes")
    parser.add_argument("--target", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--failed", type=Path, required=True, help=argparse.SUPPRESS)
    args = parser.parse_args()
    every = TRAINED if args.train else [peer.name for peer in PEERS]
    names = args.only.split(",") if args.only else list(every)
    if unknown := set(names) - {peer.name for peer in PEERS}:
        parser.error(f"no such peer: {', '.join(sorted(unknown))}")
    # Whoever reads another's set needs it packed.
    names += [peer.reads for peer in PEERS if peer.name in names and peer.reads]
    peers = [peer for peer in PEERS if peer.name in names]

    with kept(args.sets) as work:
        say("the images and the packed sets are in", work)
        work = Path(work)
        if not (work / "tree").exists():
            prepare(args.data, work)
        bench = Bench(args, work)
        bench.measure(peers)
    results = [bench.result(peer) for peer in peers]
    versions = {
        line.split("==")[0]: line.split("==")[1].strip()
        for line in (HERE / "requirements.txt").read_text().splitlines()
        if "==" in line
    }
    titles = {peer.name: peer.title.format(workers=args.workers, **versions) for peer in peers}
    print(
        f"{bench.expected['images']:,} images; {machine(args.workers)}; medians of {args.rounds} rounds.\n"
    )
    if args.train:
        peers, results = zip(*[row for row in zip(peers, results) if row[0].script])
    columns = TRAINING_COLUMNS if args.train else COLUMNS
    own = "tinyres-python" if args.train else "tinyres"
    print("\n".join(table(peers, results, titles, columns, own)))
    if args.json:
        epochs = {f"{name} {dtype}": runs for (name, dtype), runs in bench.epochs.items()}
        args.json.write_text(
            json.dumps({"results": results, "packs": bench.packs, "epochs": epochs}, indent=1)
        )


if __name__ == "__main__":
    main()
