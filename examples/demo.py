"""
The main job, end to end, on this machine: a file dropped into a bucket becomes a trained adapter,
and the access is gone. Everything is what a user would do with public tools: the stack is `sublet
local up`, the file is uploaded by google-cloud-storage, and what is shown is read from the API.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from google.auth.credentials import AnonymousCredentials
from google.cloud import storage
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from sublet.client.http import ApiClient
from sublet.local.processes import on_a_lifeline

HERE = Path(__file__).parent
DATASET = HERE / "tool-library.jsonl"
PROMPT = (HERE / "held-out-prompt.txt").read_text().strip()
BUCKET = "demo-bucket"
BASE_MODEL = "smollm2-135m-instruct"
TEMPLATE = {
    "baseModel": f"accounts/fireworks/models/{BASE_MODEL}",
    "epochs": 2,
    "learningRate": 4e-3,
    "learningRateWarmupSteps": 4,
    "loraRank": 8,
    "batchSize": 256,
}
PATIENCE_S = 600
OVER = ("JOB_STATE_COMPLETED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED")

console = Console(highlight=False)
Json = dict[str, Any]


def main() -> int:
    started = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with (
        tempfile.TemporaryDirectory(prefix="sublet-demo-") as name,
        running_stack(Path(name)) as variables,
    ):
        return 0 if tell_the_story(variables, Path(name), started) else 1


def tell_the_story(variables: dict[str, str], directory: Path, started: float) -> bool:
    client = ApiClient(
        variables["SUBLET_BASE_URL"], variables["SUBLET_API_KEY"], variables["SUBLET_ACCOUNT_ID"]
    )
    run("local", "create-bucket", BUCKET, "--data-dir", directory)
    watch = {"bucket": BUCKET, "prefix": "data/", "trainingTemplate": TEMPLATE}
    client.create("watches", {"watchId": "demo", "watch": watch})
    note(f"Watching gs://{BUCKET}/data/; each file there is trained on {BASE_MODEL}.")

    bucket = storage.Client(
        project=variables["GOOGLE_CLOUD_PROJECT"],
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": variables["STORAGE_EMULATOR_HOST"]},
    ).bucket(BUCKET)
    blob = bucket.blob(f"data/{DATASET.name}")
    blob.upload_from_filename(DATASET, content_type="application/jsonl")
    note(f"Dropped {DATASET.name} ({blob.size} bytes) with google-cloud-storage.\n")

    chain = Chain(client, str(blob.generation))
    job = chain.follow()
    if job is None or job["state"] != "JOB_STATE_COMPLETED":
        return False
    compare(bucket, job, directory)
    show_files(bucket, job)
    show_receipt(client.get("supervisedFineTuningJobs", job["name"], verb=":receipt"))
    note(f"\nAll of it took {time.monotonic() - started:.0f} s; nothing is left running.")
    return True


class Chain:
    """One file's way, a line for each step, timed from the moment the object was finalised."""

    def __init__(self, client: ApiClient, generation: str) -> None:
        self._client = client
        self._generation = generation
        self._zero = datetime.now().astimezone()

    def follow(self) -> Json | None:
        dataset = self._wait(self._dataset)
        self._zero = at(dataset["objectFinalizeTime"])
        self._say_registered(dataset)
        if dataset["state"] != "READY":
            return None
        job = self._wait(lambda: self._job(started=False))
        self._say(job["createTime"], "job created", job["name"])
        job = self._wait(lambda: self._job(started=True))
        if job["state"] != "JOB_STATE_FAILED":
            lease = self._lease(job["lease"])
            terms = f"{lease['dataServiceAccount']}, until {lease['expireTime'][:19]}Z at the most"
            self._say(lease["createTime"], "lease issued", terms)
            self._say(
                lease["claimTime"], "execution started", f"{job['execution']} claimed the lease"
            )
        job = self._train()
        if job["state"] != "JOB_STATE_COMPLETED":
            self._say(job["completedTime"], "failed", job["status"]["message"], style="red")
            return job
        self._say(job["completedTime"], "adapter written", job["outputUri"])
        lease = self._wait(lambda: self._ended_lease(job["lease"]))
        self._say(lease["revokeTime"], "lease revoked", "no token is minted any more")
        probe = lease["lastProbe"]
        verdict = "refused" if probe["refused"] else "STILL ACCEPTED"
        self._say(probe["time"], "probed", f"the last token is {verdict} ({probe['answers']})")
        return job

    def _say_registered(self, dataset: Json) -> None:
        version = f"{dataset['externalUrl']} generation {dataset['externalGeneration']}"
        self._say(dataset["objectFinalizeTime"], "object finalised", version)
        access = dataset["accessCheck"]
        self._say(access["checkTime"], "access checked", f"until {access['holdsUntil'][:19]}Z")
        for fact in access["facts"]:
            mark = "✗" if fact["refuses"] else "✓" if fact["verdict"] == "PROVED" else "·"
            line = f"{'':10}{mark} {fact['fact'].replace('_', ' ')}: {fact['evidence']}"
            console.print(line, style="red" if fact["refuses"] else "dim", soft_wrap=True)
        if rows := dataset.get("rowCheck"):
            found = (
                f"{rows['numRows']} rows, {rows['numProblems']} problems, {rows['numBytes']} bytes"
            )
            self._say(dataset["createTime"], "rows validated", found)
        if dataset["state"] == "READY":
            self._say(dataset["createTime"], "dataset registered", dataset["name"])
        else:
            self._say(dataset["createTime"], "refused", dataset["status"]["message"], style="red")

    def _train(self) -> Json:
        """The job, once it is over; until then a bar that says how far the trainer is."""
        columns = (
            TextColumn(f"{'':9}training           "),
            BarColumn(bar_width=24),
            TextColumn("step {task.completed:.0f}/{task.total:.0f}  {task.description}"),
        )
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("loading the model", total=1)
            while True:
                job = self._wait(lambda: self._job(started=True))
                if job.get("loss") is not None:
                    figures = f"loss {job['loss']:.3f}  {job['tokensPerSecond']:.0f} tokens/s"
                    figures += f"  ETA {job['etaSeconds']:.0f} s" if job.get("etaSeconds") else ""
                    progress.update(
                        bar, completed=job["step"], total=job["numSteps"], description=figures
                    )
                if job["state"] in OVER:
                    return job
                time.sleep(0.25)

    def _dataset(self) -> Json | None:
        return self._newest("datasets", lambda _: True)

    def _job(self, *, started: bool) -> Json | None:
        def wanted(job: Json) -> bool:
            return not started or bool(job.get("startTime")) or job["state"] in OVER

        return self._newest("supervisedFineTuningJobs", wanted)

    def _newest(self, collection: str, wanted: Callable[[Json], bool]) -> Json | None:
        found = (
            one
            for one in self._client.list(collection)
            if one["externalGeneration"] == self._generation and wanted(one)
        )
        return next(found, None)

    def _lease(self, name: str) -> Json:
        return self._client.get("leases", name)

    def _ended_lease(self, name: str) -> Json | None:
        lease = self._lease(name)
        return lease if lease["state"] in ("REVOKED", "FAILED") else None

    def _wait(self, find: Callable[[], Json | None]) -> Json:
        deadline = time.monotonic() + PATIENCE_S
        while (found := find()) is None:
            if time.monotonic() > deadline:
                raise SystemExit("nothing happened for ten minutes; see `sublet local status`")
            time.sleep(0.1)
        return found

    def _say(self, when: str, step: str, what: str, style: str = "") -> None:
        elapsed = (at(when) - self._zero).total_seconds()
        console.print(f"{elapsed:6.2f} s {step:18} [{style or 'default'}]{what}", soft_wrap=True)


def compare(bucket: storage.Bucket, job: Json, directory: Path) -> None:
    """Ask the base model and the tuned one the same thing, which neither has seen."""
    adapter = directory / "adapter"
    adapter.mkdir()
    manifest = json.loads(bucket.blob(f"{output_prefix(job)}manifest.json").download_as_bytes())
    for file in manifest["files"]:
        name = manifest["adapter"]["folder"] + file["name"]
        bucket.blob(name).download_to_filename(adapter / file["name"])
    base = models_dir() / BASE_MODEL
    command = [sys.executable, "-m", "sublet_trainer.answer", "--base", str(base)]
    command += ["--adapter", "none", str(adapter), "--prompt", PROMPT]
    answered = subprocess.run(command, capture_output=True, text=True, check=True)
    base_answer, tuned_answer = (one["answer"] for one in json.loads(answered.stdout))
    table = Table(title=f'\nA prompt that is in no row: "{PROMPT}"', title_justify="left")
    table.add_column(f"{BASE_MODEL}", ratio=1)
    table.add_column("after training", ratio=1)
    table.add_row(base_answer, tuned_answer)
    console.print(table)


def show_files(bucket: storage.Bucket, job: Json) -> None:
    console.print("\nThe files lie in the owner's bucket:")
    for blob in bucket.list_blobs(prefix=output_prefix(job)):
        console.print(f"  gs://{bucket.name}/{blob.name}  {blob.size} bytes", soft_wrap=True)


def show_receipt(receipt: Json) -> None:
    console.print("\nThe receipt:")
    console.print(
        f"  object      {receipt['externalUrl']}\n"
        f"  generation  {receipt['externalGeneration']}   crc32c {receipt['externalCrc32c']}"
    )
    for reading in receipt["readings"]:
        proof = reading["proof"]
        console.print(
            f"  {reading['bytesRead']:>7} bytes read for {reading['purpose'].lower()} "
            f"by {reading['credential']}\n"
            f"          from {reading['startTime'][11:23]} to {reading['mintingStopTime'][11:23]}; "
            f"{reading['numTokens']} token(s), the last one refused at {proof['time'][11:23]} "
            f"({proof['answers']})",
            soft_wrap=True,
        )
    refused = receipt["accessIsRefused"]
    verdict = "every credential that read is refused now" if refused else "ACCESS IS NOT REFUSED"
    console.print(f"  verdict     {verdict}", style="green" if refused else "red")


@contextmanager
def running_stack(directory: Path) -> Iterator[dict[str, str]]:
    """`sublet local up` in a session of its own, ended with this process whatever happens to it."""
    up = [sublet(), "local", "up", "--data-dir", str(directory), "--heartbeat-every", "0.5"]
    log = directory / "stack.log"
    note("Starting the local cloud and the deploy units ...")
    with log.open("wb") as output:
        stack = subprocess.Popen(
            on_a_lifeline(up), stdout=output, stderr=output, start_new_session=True
        )
    try:
        while not (directory / "stack.json").exists():
            if stack.poll() is not None:
                raise SystemExit(f"the stack did not start:\n{log.read_text()}")
            time.sleep(0.05)
        exports = run("local", "env", "--data-dir", directory)
        yield dict(line.removeprefix("export ").split("=", 1) for line in exports.splitlines())
    finally:
        stack.terminate()
        stack.wait()


def run(*arguments: str | Path) -> str:
    command = [sublet(), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def sublet() -> str:
    return str(Path(sys.executable).with_name("sublet"))


def models_dir() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sublet" / "models"


def output_prefix(job: Json) -> str:
    return str(job["outputUri"]).removeprefix(f"gs://{BUCKET}/")


def at(time_text: str) -> datetime:
    return datetime.fromisoformat(time_text)


def note(text: str) -> None:
    console.print(text, style="bold", soft_wrap=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        console.print("\ninterrupted; the stack is down", style="bold")
        sys.exit(130)
