"""
What training on a large file takes beside the model: memory, and how fast it is read.

    python benchmarks/streaming.py
    python benchmarks/streaming.py --gib 5 --blocks 4

The trainer's own reader and corpus, over HTTP: a second process serves byte ranges of a file of
that size which exists nowhere, of chat rows of about 700 bytes that all differ. First the survey,
which reads the file through and checks each row; then the documents of some blocks, tokenised and
dealt out as steps, as training takes them. No step is trained: what a model needs comes on top.
"""

import argparse
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Self

import psutil

from sublet.jobs import TrainingSettings
from sublet.names import Generation, ObjectVersion
from sublet_trainer import cpu
from sublet_trainer.catalogue.base_models import prepare
from sublet_trainer.data.base_tokenizer import BaseTokenizer
from sublet_trainer.data.blocks import BlockReader
from sublet_trainer.data.corpus import START, Corpus
from sublet_trainer.data.documents import Tokeniser
from sublet_trainer.leased.storage import Storage

MIB = 2**20
ROW_BYTES = 678
QUESTION = "What does the member with the number {:012d} borrow, and until when may it be kept? "
ANSWER = "A drill, two clamps and a spirit level; they are due on Saturday at one. " * 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--gib", type=float, default=2.0)
    parser.add_argument("--blocks", type=int, default=2, help="how many to tokenise")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve()
        return
    cpu.tune()  # as the trainer's own process does
    models = Path.home() / ".cache" / "sublet" / "models"
    tokeniser = Tokeniser(
        BaseTokenizer.load(prepare("smollm2-135m-instruct", models)), max_tokens=8192
    )
    size_bytes = int(given.gib * 2**30) // ROW_BYTES * ROW_BYTES
    with subprocess.Popen([sys.executable, __file__, "--serve"], stdout=subprocess.PIPE) as server:
        try:
            measure(tokeniser, server.stdout.readline().decode().strip(), size_bytes, given.blocks)
        finally:
            server.terminate()


def measure(tokeniser: Tokeniser, url: str, size_bytes: int, num_blocks: int) -> None:
    version = ObjectVersion(bucket="bucket", object="rows.jsonl", generation=Generation(1))
    lease = SimpleNamespace(
        assignment=SimpleNamespace(reads=version, reads_beside=()),
        token=lambda: "none",
        count=count,
    )
    storage = Storage(lease, url=url, wait=time.sleep)
    reader = BlockReader(
        lambda start, end: storage.read(version, start, end),
        tokeniser,
        url=version.url,
        size_bytes=size_bytes,
        check=lambda: None,
    )
    settings = TrainingSettings(batch_size=32768)
    corpus = Corpus(reader, settings, url=version.url, size_bytes=size_bytes)
    before = psutil.Process().memory_info().rss
    print(f"{size_bytes / 2**30:.1f} GiB in {size_bytes // ROW_BYTES:,} rows", flush=True)

    with Watched("survey, and the first block") as survey:
        corpus.survey(num_rows_registered=0)
    survey.tell(before)

    with Watched(f"the steps of {num_blocks} blocks, and the block after them") as steps:
        num_steps = sum(1 for _ in steps_of_blocks(corpus, num_blocks))
    steps.tell(before)
    print(f"{num_steps} steps of at most {settings.batch_size} tokens")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"peak of the process: {peak / MIB:.0f} MiB; read {READ.bytes / 2**30:.2f} GiB")


READ = SimpleNamespace(bytes=0)


def count(num_bytes: int) -> None:
    READ.bytes += num_bytes


def steps_of_blocks(corpus: Corpus, num_blocks: int) -> Iterator:
    for step in corpus.steps(START):
        if step.following.place >= num_blocks:
            break
        yield step


class Watched:
    """Seconds, CPU-seconds and the most memory within a `with`."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._process = psutil.Process()
        self._over = threading.Event()
        self._peak = 0

    def __enter__(self) -> Self:
        self._began, self._cpu_began = time.monotonic(), time.process_time()
        self._read_before = READ.bytes
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._seconds = time.monotonic() - self._began
        self._cpu_s = time.process_time() - self._cpu_began
        self._num_bytes = READ.bytes - self._read_before

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            self._peak = max(self._peak, self._process.memory_info().rss)

    def tell(self, before: int) -> None:
        print(
            f"{self._what}: {self._num_bytes / 1e6:.0f} MB in {self._seconds:.1f} s, "
            f"{self._cpu_s:.1f} CPU-s, {(self._peak - before) / MIB:.0f} MiB above what the "
            "process had",
            flush=True,
        )


# --- the file that exists nowhere -----------------------------------------------------------------


def row(number: int) -> bytes:
    question = QUESTION.format(number)
    text = (
        f'{{"messages":[{{"role":"user","content":"{question}"}},'
        f'{{"role":"assistant","content":"{ANSWER}"}}]}}\n'
    )
    return text.encode()


class Ranges(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        start, end = first // ROW_BYTES, last // ROW_BYTES + 1
        content = b"".join(map(row, range(start, end)))[first - start * ROW_BYTES :]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/*")
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        self.wfile.write(content[: last - first + 1])

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


def serve() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Ranges)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
