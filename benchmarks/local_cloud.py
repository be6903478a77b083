"""
Measure the local Cloud Storage with Google's client: one large object up and down, and what the
server's memory grows to. The server runs in a process of its own; both share this machine's cores.

    PYTHONPATH=services python benchmarks/local_cloud.py
    PYTHONPATH=services python benchmarks/local_cloud.py --mib 256 --no-client

`plain` is the server alone: a client of a few lines that neither hashes nor copies.
"""

import argparse
import asyncio
import contextlib
import http.client
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

MIB = 2**20
PIECE = 32 * MIB


async def serve(directory: Path) -> None:
    from sublet.clock import SystemClock
    from sublet.local.cloud import LocalCloud
    from sublet.local.servers import Ports

    cloud = LocalCloud(
        directory,
        SystemClock(),
        Ports(directory / "ports.json", {}),
        platform_project="platform-project",
        anonymous_is_owner=True,
    )
    print((await cloud.start()).storage, flush=True)
    await asyncio.Event().wait()


class Server:
    """A local cloud in a process of its own, whose memory is watched."""

    def __init__(self, directory: str) -> None:
        command = [sys.executable, __file__, "--serve", directory]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        self._memory = psutil.Process(self._process.pid)
        self._stopped = threading.Event()
        self.peak_bytes = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def rss_bytes(self) -> int:
        return int(self._memory.memory_info().rss)

    def cpu_s(self) -> float:
        return sum(self._memory.cpu_times()[:2])

    def _watch(self) -> None:
        while not self._stopped.wait(0.01):
            self.peak_bytes = max(self.peak_bytes, self.rss_bytes())

    def stop(self) -> None:
        self._stopped.set()
        self._process.terminate()
        self._process.wait()


@contextlib.contextmanager
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as directory:
        started = Server(directory)
        try:
            yield started
        finally:
            started.stop()


def measure(running: Server, what: str, mib: int, act: Callable[[], object]) -> None:
    running.peak_bytes, idle = 0, running.rss_bytes()
    cpu_s, began = running.cpu_s(), time.perf_counter()
    act()
    took_s = time.perf_counter() - began
    cpu_s = running.cpu_s() - cpu_s
    print(
        f"{what:34} {mib * MIB / took_s / 1e6:7.0f} MB/s   "
        f"server: {cpu_s / took_s:4.0%} of a core, RSS {idle / MIB:.0f} "
        f"-> peak {max(running.peak_bytes, idle) / MIB:.0f} MiB",
        flush=True,
    )


class Plain:
    """A client that does nothing but send and receive."""

    def __init__(self, url: str, mib: int) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, blocksize=MIB)
        self._mib = mib
        self._piece = os.urandom(MIB)

    def _send(self, method: str, path: str, mib: int, headers: dict[str, str]) -> int:
        self._connection.putrequest(method, path)
        for name, value in {"Content-Length": str(mib * MIB), **headers}.items():
            self._connection.putheader(name, value)
        self._connection.endheaders()
        for _ in range(mib):
            self._connection.send(self._piece)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status

    def upload(self) -> None:
        path = "/upload/storage/v1/b/bucket/o?uploadType=media&name=plain"
        assert self._send("POST", path, self._mib, {}) == 200

    def resume(self) -> None:
        path = "/upload/storage/v1/b/bucket/o?uploadType=resumable&name=plain"
        self._connection.request("POST", path)
        answer = self._connection.getresponse()
        answer.read()
        location, total = answer.headers["location"], self._mib * MIB
        for start in range(0, total, PIECE):
            end = min(start + PIECE, total)
            span = {"Content-Range": f"bytes {start}-{end - 1}/{total}"}
            assert self._send("PUT", location, (end - start) // MIB, span) in (200, 308)

    def download(self) -> None:
        self._connection.request("GET", "/storage/v1/b/bucket/o/plain?alt=media")
        answer, buffer, got = self._connection.getresponse(), bytearray(MIB), 0
        while count := answer.readinto(buffer):
            got += count
        assert got == self._mib * MIB


def measure_google_client(running: Server, mib: int) -> None:
    client = storage.Client(
        project="customer-project",
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": running.url},
    )
    blob = client.bucket("bucket").blob("large", chunk_size=PIECE)
    with tempfile.TemporaryDirectory() as directory:
        source, target = Path(directory) / "up", Path(directory) / "down"
        with source.open("wb") as file:
            for _ in range(mib):
                file.write(os.urandom(MIB))
        measure(
            running,
            "google client, up, 32 MiB pieces",
            mib,
            lambda: blob.upload_from_filename(source),
        )
        whole = client.bucket("bucket").blob("large")
        measure(
            running, "google client, up, one request", mib, lambda: one_request(running, source)
        )
        measure(
            running,
            "google client, down, crc32c",
            mib,
            lambda: whole.download_to_filename(target, checksum="crc32c"),
        )
        assert target.stat().st_size == mib * MIB


def one_request(running: Server, source: Path) -> None:
    """The client's own media upload holds all in memory; its session streams."""
    session = storage.Client(project="p", credentials=AnonymousCredentials())._http  # noqa: SLF001
    url = f"{running.url}/upload/storage/v1/b/bucket/o?uploadType=media&name=large"
    with source.open("rb") as file:
        session.post(url, data=file, timeout=600).raise_for_status()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024, help="size of the object (1024)")
    parser.add_argument("--no-client", action="store_true", help="measure the server alone")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(arguments.serve))
        return
    with server() as running:
        settings = {"name": "bucket", "softDeletePolicy": {"retentionDurationSeconds": "0"}}
        client = storage.Client(
            project="customer-project",
            credentials=AnonymousCredentials(),
            client_options={"api_endpoint": running.url},
        )
        client._post_resource("/b", settings, query_params={"project": "p-local"})  # noqa: SLF001
        plain = Plain(running.url, arguments.mib)
        measure(running, "plain, up, one request", arguments.mib, plain.upload)
        measure(running, "plain, up, 32 MiB pieces", arguments.mib, plain.resume)
        measure(running, "plain, down", arguments.mib, plain.download)
        if not arguments.no_client:
            measure_google_client(running, arguments.mib)


if __name__ == "__main__":
    main()
