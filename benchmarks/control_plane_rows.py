"""
Row validation beside `datasets.load_dataset("json")`, on one file, each in a process of its own:
what a second of one core gets through, and the most memory that the process had.

    .venv/bin/python benchmarks/control_plane_rows.py check FILE

sublet reads and checks each row; datasets parses each row and writes it as Arrow. Neither has the
file from a network.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PEER = "datasets==5.2.0"
_MB = 10**6
_CHUNK_BYTES = 8 * 2**20
_WORDS = ("the", "lease", "of", "a", "token", "row", "model", "reads", "writes", "until", "its end")


@dataclass(frozen=True)
class Read:
    """`peak_mib` is of the whole process, Python and libraries included."""

    num_rows: int
    num_bytes: int
    wall_s: float
    cpu_s: float
    peak_mib: float

    @property
    def mb_per_s(self) -> float:
        return self.num_bytes / self.wall_s / _MB

    @property
    def mb_per_cpu_s(self) -> float:
        return self.num_bytes / self.cpu_s / _MB


def write_rows(path: Path, size_bytes: int) -> int:
    """Conversations of about a kilobyte; returns how many."""
    chance, block, count = random.Random(1), [], 0  # noqa: S311  text, not a secret
    for _ in range(2000):
        turns = [
            {"role": role, "content": " ".join(chance.choices(_WORDS, k=chance.randint(20, 120)))}
            for role in ("system", "user", "assistant")
        ]
        block.append(json.dumps({"messages": turns}).encode() + b"\n")
    with path.open("wb") as file:
        while file.tell() < size_bytes:
            file.writelines(block)
            count += len(block)
    return count


def checked(path: Path) -> Read:
    return _measured([sys.executable, __file__, "check", str(path)])


def loaded(path: Path, python: Path, cache: Path) -> Read:
    return _measured([str(python), __file__, "load", str(path), str(cache)])


def peer_python() -> Path:
    """Of an environment that has the peer, made where caches are; once."""
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    place = home / "sublet-benchmarks" / PEER.replace("==", "-")
    python = place / "bin" / "python"
    if not (place / "made").exists():
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", PEER], check=True)
        (place / "made").touch()
    return python


def _measured(command: list[str]) -> Read:
    quiet = {**os.environ, "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=quiet)
    return Read(**json.loads(done.stdout.splitlines()[-1]))


def _check(path: Path) -> int:
    from sublet.rows import check_rows

    report = check_rows(_chunks(path))
    assert not report.num_problems, report.problems
    return report.num_rows


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _load(path: Path, cache: Path) -> int:
    from datasets import load_dataset  # type: ignore[import-not-found]

    return len(load_dataset("json", data_files=str(path), cache_dir=str(cache), split="train"))


def main() -> None:
    what, path, *rest = sys.argv[1:]
    if what == "load":
        import datasets  # noqa: F401  not a part of what is timed
    wall, cpu = time.perf_counter(), time.process_time()
    num_rows = _check(Path(path)) if what == "check" else _load(Path(path), Path(*rest))
    took = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    size = Path(path).stat().st_size
    print(json.dumps({"num_rows": num_rows, "num_bytes": size, "peak_mib": _peak_mib(), **took}))


def _peak_mib() -> float:
    """Since the process became this program; getrusage counts what it was forked from as well."""
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
