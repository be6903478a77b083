"""
Measure a local Pub/Sub with Google's client: ours in a process of its own, and others beside it.

    python benchmarks/pubsub.py
    python benchmarks/pubsub.py --google
    python benchmarks/pubsub.py --against 127.0.0.1:8085

Client and server share this machine's cores; the push endpoint runs in the client's process.
"""

import argparse
import asyncio
import collections
import contextlib
import os
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil

NUM_MESSAGES = 5_000
NUM_CALLS = 200
NUM_PUSHES = 200
HANDLER_S = 0.05
START_WITHIN_S = 30
PROJECT = "projects/proj-local"


async def serve(directory: Path) -> None:
    from sublet.clock import SystemClock
    from sublet.local.database import Database
    from sublet.local.iam.enforcement import Iam
    from sublet.local.iam.oidc import IdTokens
    from sublet.local.pubsub.broker import PubSub
    from sublet.local.pubsub.grpc_server import PubSubServer

    clock = SystemClock()
    database = Database(directory / "cloud.db")
    pubsub = PubSub(database, clock, Iam(database, clock), IdTokens(directory, clock))
    server = PubSubServer(pubsub)
    print(await server.start(), flush=True)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    await server.stop()
    database.close()


@contextlib.contextmanager
def our_server() -> Iterator[tuple[str, float]]:
    """Yield its address, and how long it took from the process's start until it listened."""
    with tempfile.TemporaryDirectory() as directory:
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, __file__, "--serve", directory], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), time.perf_counter() - began
        finally:
            process.terminate()
            process.wait()


@contextlib.contextmanager
def googles_server() -> Iterator[tuple[str, float]]:
    """As `our_server`, of Google's emulator; it starts as Google starts it."""
    from sublet.errors import FailedPrecondition
    from sublet.local.pubsub.external import emulators

    with socket.create_server(("127.0.0.1", 0)) as reserved:
        host, port = reserved.getsockname()
    began = time.perf_counter()
    process = subprocess.Popen(
        [str(emulators.find_google_emulator()), f"--host={host}", f"--port={port}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while time.perf_counter() - began < START_WITHIN_S and process.poll() is None:
            with contextlib.suppress(FailedPrecondition):
                emulators.verify_answers(f"{host}:{port}")
                break
        yield f"{host}:{port}", time.perf_counter() - began
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Endpoint:
    """Answers pushes after `delay_s`, and counts how many it has at once."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.arrived_at: list[float] = []
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Condition()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                with endpoint.counted():
                    time.sleep(endpoint.delay_s)
                self.send_response(204)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                del args

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, *args: object) -> None:
                """A server that stops resets its connections; that is not worth a traceback."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        with self._lock:
            self.arrived_at.append(time.perf_counter())
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            self._lock.notify_all()
        yield
        with self._lock:
            self._at_once -= 1

    def wait_for(self, count: int) -> None:
        with self._lock:
            if not self._lock.wait_for(lambda: len(self.arrived_at) >= count, 60):
                raise TimeoutError(f"{len(self.arrived_at)} of {count} pushes came")


class Benchmark:
    def __init__(self, address: str) -> None:
        os.environ["PUBSUB_EMULATOR_HOST"] = address
        from google.cloud import pubsub_v1

        self._types = pubsub_v1.types
        self._run = secrets.token_hex(4)
        self.publisher = pubsub_v1.PublisherClient()
        self.subscriber = pubsub_v1.SubscriberClient()

    def topic(self, name: str) -> str:
        topic = f"{PROJECT}/topics/{name}-{self._run}"
        self.publisher.create_topic(name=topic)
        return topic

    def subscription(self, topic: str, push_endpoint: str = "") -> str:
        name = topic.replace("/topics/", "/subscriptions/")
        self.subscriber.create_subscription(
            request={
                "name": name,
                "topic": topic,
                "push_config": {"push_endpoint": push_endpoint},
                "ack_deadline_seconds": 60,
            }
        )
        return name

    def unary_publish(self) -> str:
        topic = self.topic("unary")
        self.subscription(topic)

        def publish() -> None:
            self.publisher.transport.publish(
                self._types.PublishRequest(topic=topic, messages=[{"data": b"x" * 1024}])
            )

        return _percentiles([_timed(publish) for _ in range(NUM_CALLS)])

    def stream(self) -> tuple[str, str]:
        topic = self.topic("stream")
        name = self.subscription(topic)
        began = time.perf_counter()
        futures = [self.publisher.publish(topic, b"x" * 1024) for _ in range(NUM_MESSAGES)]
        for future in futures:
            future.result(timeout=60)
        published_s = time.perf_counter() - began
        received: collections.Counter[str] = collections.Counter()
        done = threading.Event()

        def receive(message: Any) -> None:  # noqa: ANN401  google.cloud has no types
            received[message.message_id] += 1
            message.ack()
            if len(received) == NUM_MESSAGES:
                done.set()

        began = time.perf_counter()
        pulling = self.subscriber.subscribe(name, receive)
        complete = done.wait(60)
        received_s = time.perf_counter() - began
        pulling.cancel()
        pulling.result()
        num_twice = sum(count > 1 for count in received.values())
        note = f" (only {len(received)} came)" if not complete else ""
        note += f" ({num_twice} came twice)" if num_twice else ""
        return f"{NUM_MESSAGES / published_s:,.0f}", f"{len(received) / received_s:,.0f}{note}"

    def push_latency(self) -> str:
        endpoint = Endpoint()
        topic = self.topic("latency")
        self.subscription(topic, endpoint.url)
        latencies = []
        for number in range(1, NUM_CALLS // 2 + 1):
            began = time.perf_counter()
            self.publisher.transport.publish(
                self._types.PublishRequest(topic=topic, messages=[{"data": b"x"}])
            )
            endpoint.wait_for(number)
            latencies.append(endpoint.arrived_at[number - 1] - began)
        return _percentiles(latencies)

    def many_pushes(self) -> tuple[str, str]:
        endpoint = Endpoint()
        endpoint.delay_s = HANDLER_S
        topic = self.topic("pushes")
        self.subscription(topic, endpoint.url)
        began = time.perf_counter()
        for future in [self.publisher.publish(topic, b"x") for _ in range(NUM_PUSHES)]:
            future.result(timeout=60)
        endpoint.wait_for(NUM_PUSHES)
        elapsed_s = time.perf_counter() - began + HANDLER_S
        return f"{elapsed_s:.2f}", str(endpoint.most_at_once)


def _timed(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def _percentiles(seconds: list[float]) -> str:
    cuts = statistics.quantiles(seconds, n=20)
    return f"{statistics.median(seconds) * 1000:.1f} / {cuts[18] * 1000:.1f}"


def _rss_mb(address: str) -> str:
    port = int(address.rpartition(":")[2])
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            listens = [c for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
            if any(connection.laddr.port == port for connection in listens):
                return f"{process.memory_info().rss / 2**20:.0f}"
    return "?"


def measure(address: str, start_s: float | None) -> dict[str, str]:
    benchmark = Benchmark(address)
    rows = [
        ("process start until it answers (s)", "-" if start_s is None else f"{start_s:.2f}"),
        ("first RPC (ms)", f"{_timed(lambda: benchmark.topic('first')) * 1000:.1f}"),
        ("RSS idle (MB)", _rss_mb(address)),
        ("publish of one message, p50 / p95 (ms)", benchmark.unary_publish()),
    ]
    published, received = benchmark.stream()
    rows += [
        (f"publish {NUM_MESSAGES} x 1 KiB (messages/s)", published),
        (f"streaming pull of {NUM_MESSAGES} x 1 KiB (messages/s)", received),
        ("publish to push, p50 / p95 (ms)", benchmark.push_latency()),
    ]
    elapsed, at_once = benchmark.many_pushes()
    rows += [
        (f"{NUM_PUSHES} pushes to a {HANDLER_S * 1000:.0f} ms handler (s)", elapsed),
        ("  most at once", at_once),
        ("RSS after (MB)", _rss_mb(address)),
    ]
    return dict(rows)


def show(columns: dict[str, dict[str, str]]) -> None:
    labels = next(iter(columns.values())).keys()
    width = max(map(len, labels))
    print(f"{'':{width}}", *(f"{name:>16}" for name in columns))
    for label in labels:
        print(f"{label:{width}}", *(f"{column[label]:>16}" for column in columns.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--against", metavar="HOST:PORT", help="measure what listens there")
    parser.add_argument("--google", action="store_true", help="measure Google's emulator too")
    parser.add_argument("--serve", metavar="DIRECTORY", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(arguments.serve))
        return
    columns = {}
    with our_server() as (address, start_s):
        columns["sublet"] = measure(address, start_s)
    if arguments.google:
        with googles_server() as (address, start_s):
            columns["Google's"] = measure(address, start_s)
    if arguments.against:
        columns[arguments.against] = measure(arguments.against, None)
    show(columns)


if __name__ == "__main__":
    main()
