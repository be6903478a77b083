"""
The world a trainer lives in, as one HTTP server on loopback: metadata server, lease broker and
Cloud Storage. It is a twin of the remote side and shares no code with the trainer but the message
types. It enforces what the real ones do: identity tokens with an audience and an end, epochs,
tokens that read one object and create under one prefix, pinned generations, ifGenerationMatch=0,
MD5, and 403 instead of 404 for what a caller who may not list may not know to be missing.
"""

import hashlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c

from sublet import handover
from sublet.codec import decode, encode
from sublet.jobs import PinnedObject, TrainingSettings
from sublet.names import Generation, JobName, LeaseName, ModelName, ObjectVersion, OutputPrefix
from sublet_trainer.__main__ import main
from sublet_trainer.stops import Interruption

ROOT = Path(__file__).parents[1]
BUCKET, DATASET, PREFIX = "acme-data", "in/rows.jsonl", "out/job-1/"
LEASE = LeaseName.parse("accounts/acme/leases/lease-1")
MESSAGES = {"claim": handover.Claim, "renew": handover.Heartbeat, "finish": handover.Ending}


def chat(question: str, answer: str, **more) -> dict:
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": turns, **more}


def jsonl(rows: list[dict]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


ROWS = [chat(f"What is {n} and {n}?", f"It is {2 * n}." * (1 + n % 3)) for n in range(24)]


@dataclass
class Fault:
    """What happens to the next `times` requests of that method whose path holds `path`."""

    method: str
    path: str
    status: int = 0
    """Answer this instead of serving."""
    location: str = ""
    """With the answer that a redirect gives."""
    cut_after: int = -1
    """Serve, but reset the connection after so many bytes of the answer's body; 0 loses it all."""
    before: Callable[[], object] = lambda: None
    """Do this first, then go on."""
    times: int = 1


SETTINGS = TrainingSettings(batch_size=300, epochs=2, lora_rank=4, learning_rate=3e-3, seed=1)


class Seen(NamedTuple):
    method: str
    path: str
    status: int
    headers: dict[str, str]


class World:
    """Arrange with put(), settings and faults; act with train() or start(); look at the rest."""

    lease = LEASE

    def __init__(self, models: Path) -> None:
        self.models = models
        self.settings = SETTINGS
        self.loss = None
        self.base_model = "tiny-random"
        self.num_rows = 0
        self.token_ttl_s = 60.0
        self.identity_ttl_s = 3600.0
        self.heartbeat_every_s = 0.05
        self.keeps_versions = False
        self.faults: list[Fault] = []
        # what is so
        self.reads: ObjectVersion | None = None
        self.starts_from: PinnedObject | None = None
        self.base_sha256 = ""
        self.evaluation: PinnedObject | None = None
        self.objects: dict[str, dict[int, bytes]] = {}
        self.live: dict[str, int] = {}
        self.generations = count(1_700_000_000_000_000)
        self.epoch = 0
        self.holder: handover.Claim | None = None
        self.is_over = False
        self.checkpoint = ""
        self.tokens: dict[str, float] = {}
        self.identities: dict[str, float] = {}
        self.sessions: dict[str, tuple[dict, bytearray]] = {}
        # what has happened
        self.seen: list[Seen] = []
        self.created: list[str] = []
        self.heartbeats: list[handover.Heartbeat] = []
        self.endings: list[handover.Ending] = []
        self.changed = threading.Condition()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), type("H", (_Handler,), {"world": self}))
        self.server.daemon_threads = True
        self.host = f"127.0.0.1:{self.server.server_port}"
        self.url = f"http://{self.host}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.put(DATASET, jsonl(ROWS))

    # --- arranging --------------------------------------------------------------------------------

    def put(self, name: str, content: bytes) -> int:
        """The owner writes an object; the job reads the newest generation of DATASET put so far."""
        generation = next(self.generations)
        versions = self.objects.setdefault(name, {})
        if not self.keeps_versions:
            versions.clear()
        versions[generation] = content
        self.live[name] = generation
        if name == DATASET and self.epoch == 0:
            self.reads = ObjectVersion(
                bucket=BUCKET, object=name, generation=Generation(generation)
            )
            self.size_bytes = len(content)
        return generation

    def pinned(self, name: str) -> PinnedObject:
        """The newest generation of an object, as a lease names one beside the dataset."""
        content, generation = self.objects[name][self.live[name]], Generation(self.live[name])
        version = ObjectVersion(bucket=BUCKET, object=name, generation=generation)
        return PinnedObject(version=version, crc32c="AAAAAA==", size_bytes=len(content))

    @property
    def beside(self) -> tuple[ObjectVersion, ...]:
        return tuple(one.version for one in (self.starts_from, self.evaluation) if one)

    def fence(self) -> None:
        """Another holder takes the lease over."""
        self.epoch += 1

    def environ(self, **changes: str) -> dict[str, str]:
        return {
            "SUBLET_LEASE": LEASE,
            "SUBLET_BROKER_URL": self.url,
            "SUBLET_MODELS_DIR": str(self.models),
            "CLOUD_RUN_EXECUTION": "execution-1",
            "CLOUD_RUN_TASK_ATTEMPT": "0",
            "GCE_METADATA_HOST": self.host,
            "STORAGE_EMULATOR_HOST": self.url,
            **changes,
        }

    # --- acting -----------------------------------------------------------------------------------

    def train(self, interruption: Interruption | None = None, **environ: str) -> int:
        """One attempt, in this process; its exit code."""
        return main(self.environ(**environ), interruption or Interruption())

    def start(self, **environ: str) -> subprocess.Popen:
        """One attempt in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "sublet_trainer"],
            env={**os.environ, **self.environ(**environ)},
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )

    def wait_until(self, is_so: Callable[[], object]) -> None:
        with self.changed:
            assert self.changed.wait_for(is_so, timeout=60)

    # --- looking ----------------------------------------------------------------------------------

    def content(self, name: str) -> bytes:
        return self.objects[PREFIX + name][self.live[PREFIX + name]]

    def download(self, into: Path) -> Path:
        """The folder of the adapter that was handed over, as it lies in the bucket."""
        folder = self.endings[-1].adapter.folder
        for name in self.created:
            if name.startswith(folder):
                content = self.content(name.removeprefix(PREFIX))
                (into / name.removeprefix(folder)).write_bytes(content)
        return into

    @property
    def manifest(self) -> dict:
        return json.loads(self.content("manifest.json"))

    def losses(self, epoch: int = 1) -> list[float]:
        return self.of_steps("loss", epoch)

    def of_steps(self, metric: str, epoch: int = 1) -> list[float]:
        """What each step says of it, from the first one of the job."""
        lines = map(json.loads, self.content(f"epoch-{epoch}/metrics.jsonl").splitlines())
        return [line[metric] for line in lines if metric in line]

    def eval_losses(self, epoch: int = 1) -> list[float]:
        """Of each evaluation, the one before the first step included."""
        lines = map(json.loads, self.content(f"epoch-{epoch}/metrics.jsonl").splitlines())
        return [line["eval_loss"] for line in lines if "eval_loss" in line]

    def adapter(self, epoch: int = 1) -> bytes:
        return self.content(f"epoch-{epoch}/adapter_model.safetensors")

    def asked(self, method: str, path: str) -> list[Seen]:
        return [one for one in self.seen if one.method == method and path in one.path]

    @property
    def reads_of_dataset(self) -> list[Seen]:
        return self.asked("GET", "in%2Frows.jsonl")

    # --- the broker -------------------------------------------------------------------------------

    def mint(self) -> handover.AccessToken:
        secret = f"ya29.{self.epoch}.{len(self.tokens)}"
        self.tokens[secret] = time.time() + self.token_ttl_s
        expires_at = datetime.now(UTC) + timedelta(seconds=self.token_ttl_s)
        return handover.AccessToken(secret=secret, expires_at=expires_at)

    def claim(self, claim: handover.Claim) -> handover.Assignment | int:
        takes_over = self.holder and (
            claim.execution == self.holder.execution and claim.attempt > self.holder.attempt
        )
        if self.is_over:
            return 412
        if self.holder and claim != self.holder and not takes_over:
            return 409
        self.holder, self.epoch = claim, self.epoch + 1
        return handover.Assignment(
            lease=LEASE,
            epoch=self.epoch,
            reads=self.reads,
            reads_beside=self.beside,
            expires_at=datetime.now(UTC) + timedelta(hours=1),
            heartbeat_every_s=self.heartbeat_every_s,
            token=self.mint(),
            training=handover.TrainingOrder(
                job=JobName.parse("accounts/acme/supervisedFineTuningJobs/job-1"),
                base_model=ModelName.parse(f"accounts/fireworks/models/{self.base_model}"),
                output_model=ModelName.parse("accounts/acme/models/tuned"),
                settings=self.settings,
                loss=self.loss,
                writes=OutputPrefix(bucket=BUCKET, prefix=PREFIX),
                crc32c="AAAAAA==",
                size_bytes=self.size_bytes,
                num_rows=self.num_rows,
                format="CHAT",
                resume_from=self.checkpoint,
                starts_from=self.starts_from,
                base_sha256=self.base_sha256,
                evaluation=self.evaluation,
            ),
        )

    def renew(self, heartbeat: handover.Heartbeat) -> handover.Renewal | int:
        if heartbeat.epoch != self.epoch or self.is_over:
            return 409
        self.heartbeats.append(heartbeat)
        self.checkpoint = heartbeat.checkpoint or self.checkpoint
        token = self.mint() if heartbeat.wants_token else None
        return handover.Renewal(expires_at=datetime.now(UTC) + timedelta(hours=1), token=token)

    def finish(self, ending: handover.Ending) -> dict | int:
        if ending.epoch != self.epoch or self.is_over:
            return 409
        self.endings.append(ending)
        self.is_over = True
        return {}


class _Handler(BaseHTTPRequestHandler):
    world: World
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for a delayed ACK

    def log_message(self, *_) -> None:
        pass

    def _serve(self) -> None:
        world, split = self.world, urlsplit(self.path)
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.query = {name: values[0] for name, values in parse_qs(split.query).items()}
        self.cut_after = -1
        with world.changed:
            fault = next(
                (f for f in world.faults if f.method == self.command and f.path in self.path), None
            )
            if fault:
                fault.times -= 1
                if not fault.times:
                    world.faults.remove(fault)
        if fault:
            fault.before()
            self.cut_after = fault.cut_after
        if fault and fault.status:
            self._answer(fault.status, Location=fault.location)
        elif split.path.startswith("/computeMetadata/"):
            self._identity()
        elif found := re.fullmatch(rf"/v1/{LEASE}:(claim|renew|finish)", split.path):
            self._broker(found[1])
        elif found := re.fullmatch(rf"/storage/v1/b/{BUCKET}/o/([^/]+)", split.path):
            self._get(unquote(found[1]))
        elif split.path == f"/upload/storage/v1/b/{BUCKET}/o":
            self._upload()
        else:
            self._answer(404, b"")

    do_GET = do_POST = do_PUT = _serve  # noqa: N815

    def _answer(self, status: int, body: bytes | dict = b"", **headers: str) -> None:
        body = json.dumps(body).encode() if isinstance(body, dict) else body
        with self.world.changed:
            self.world.seen.append(Seen(self.command, self.path, status, dict(self.headers)))
            self.world.changed.notify_all()
        if self.cut_after >= 0:
            # RST instead of FIN, so that what the client has not read yet is lost as well
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
        if self.cut_after != 0:
            self.send_response(status)
            for name, value in {"Content_Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body if self.cut_after < 0 else body[: self.cut_after])
        if self.cut_after >= 0:
            self.connection.close()

    def _identity(self) -> None:
        if self.headers["Metadata-Flavor"] != "Google" or self.query["audience"] != self.world.url:
            self._answer(403)
            return
        end = int(time.time() + self.world.identity_ttl_s)
        claims = json.dumps({"aud": self.query["audience"], "exp": end}).encode()
        payload = urlsafe_b64encode(claims).decode().rstrip("=")
        token = f"e30.{payload}.{len(self.world.identities)}"
        self.world.identities[token] = end
        self._answer(200, token.encode())

    def _broker(self, verb: str) -> None:
        token = self.headers["Authorization"].removeprefix("Bearer ")
        if self.world.identities.get(token, 0) < time.time():
            self._answer(401, {"code": 401, "message": "who are you?", "details": []})
            return
        with self.world.changed:
            answer = getattr(self.world, verb)(decode(self.body, MESSAGES[verb]))
        if isinstance(answer, int):
            self._answer(answer, {"code": answer, "message": "not yours", "details": []})
        else:
            self._answer(200, encode(answer))

    def _is_refused(self, name: str, *, creates: bool = False) -> bool:
        token = self.headers["Authorization"].removeprefix("Bearer ")
        is_dead = self.world.tokens.get(token, 0) < time.time()
        readable = {DATASET, *(version.object for version in self.world.beside)}
        is_inside = name.startswith(PREFIX) or (name in readable and not creates)
        overwrites = creates and self.query.get("ifGenerationMatch") != "0"
        if is_dead or not is_inside or overwrites:
            self._answer(401 if is_dead else 403)
            return True
        return False

    def _get(self, name: str) -> None:
        if self._is_refused(name):
            return
        versions = self.world.objects.get(name, {})
        generation = int(self.query.get("generation", self.world.live.get(name, 0)))
        if generation not in versions:
            self._answer(404 if name == DATASET else 403)  # may read, but may not list
        elif self.query.get("alt") != "media":
            self._answer(200, _metadata(name, generation, versions[generation]))
        else:
            content = versions[generation]
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"])
            start, end = int(asked[1]), int(asked[2])
            span = f"bytes {start}-{min(end + 1, len(content)) - 1}/{len(content)}"
            self._answer(206, content[start : end + 1], Content_Range=span)

    def _upload(self) -> None:
        if session := self.query.get("upload_id"):
            self._continue(session)
        elif self.query["uploadType"] == "multipart":
            boundary = re.search("boundary=(.+)", self.headers["Content-Type"])[1].encode()
            _, head, media, _ = self.body.split(b"--" + boundary)
            metadata = json.loads(head.partition(b"\r\n\r\n")[2])
            if not self._is_refused(metadata["name"], creates=True):
                self._create(metadata, media.partition(b"\r\n\r\n")[2][:-2])
        else:
            metadata = json.loads(self.body)
            if not self._is_refused(metadata["name"], creates=True):
                session = str(len(self.world.sessions))
                self.world.sessions[session] = metadata, bytearray()
                self._answer(200, Location=f"{self.world.url}{self.path}&upload_id={session}")

    def _continue(self, session: str) -> None:
        metadata, held = self.world.sessions[session]
        name = metadata["name"]
        sent = re.fullmatch(r"bytes (\*|\d+)(?:-\d+)?/(\d+)", self.headers["Content-Range"])
        if len(held) == int(sent[2]):  # finished before, but the answer was lost
            self._answer(200, _metadata(name, self.world.live[name], bytes(held)))
            return
        if sent[1] != "*":
            assert int(sent[1]) == len(held), "a chunk must continue where the last one ended"
            held += self.body
            assert len(held) == int(sent[2]) or len(self.body) % (256 * 1024) == 0
        if len(held) == int(sent[2]):
            self._create(metadata, bytes(held))
        else:
            self._answer(308, **({"Range": f"bytes=0-{len(held) - 1}"} if held else {}))

    def _create(self, metadata: dict, content: bytes) -> None:
        name = metadata["name"]
        with self.world.changed:
            status = 412 if name in self.world.live else 200
            status = 400 if metadata["md5Hash"] != _md5(content) else status
            if status == 200:
                self.world.put(name, content)
                self.world.created.append(name)
        self._answer(status, _metadata(name, self.world.live.get(name, 0), content))


def _md5(content: bytes) -> str:
    return b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()


def _metadata(name: str, generation: int, content: bytes) -> dict:
    crc32c = b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()
    numbers = {"generation": str(generation), "size": str(len(content))}
    return {"name": name, **numbers, "md5Hash": _md5(content), "crc32c": crc32c}
