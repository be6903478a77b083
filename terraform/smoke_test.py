"""
One file through the real chain: dropped into the canary's bucket, announced, verified, trained, the
model written back, and the access refused afterwards. Asks nothing but the public API.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from google.cloud import storage

from sublet.client.http import ApiClient, Json

T = TypeVar("T")

ROWS = [
    {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
    for q, a in (("Is there a canary?", "There is."), ("Does it sing?", "It does.")) * 8
]
OVER = ("JOB_STATE_COMPLETED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED")


class SmokeTest:
    def __init__(self, client: ApiClient, bucket: storage.Bucket, *, patience_s: float) -> None:
        self._client = client
        self._bucket = bucket
        self._patience_s = patience_s
        self._began = time.monotonic()

    def run(self, base_model: str) -> None:
        """
        Raises:
            SystemExit: with the first thing that did not happen, in the words of the API.
        """
        prefix = f"data/{datetime.now(UTC):%Y%m%dT%H%M%S}/"
        template = {"baseModel": base_model, "epochs": 1, "loraRank": 4}
        watch = {"bucket": self._bucket.name, "prefix": prefix, "trainingTemplate": template}
        watch_id = f"smoke-{prefix.split('/')[1].lower()}"
        self._client.create("watches", {"watchId": watch_id, "watch": watch})
        generation = self._drop(f"{prefix}canary.jsonl")
        self._say("a dataset was registered", self._dataset(generation)["name"])
        job = self._job(generation)
        self._say("a model was trained", job["outputUri"])
        written = self._bucket.list_blobs(prefix=job["outputUri"].split("/", 3)[3])
        self._expect(any(blob.name.endswith(".safetensors") for blob in written), "no adapter")
        lease = self._lease(job["lease"])
        self._say("the access is refused", lease["lastProbe"]["answers"])
        self._client.delete("watches", watch_id)

    def _drop(self, name: str) -> str:
        blob = self._bucket.blob(name)
        lines = "".join(json.dumps(row) + "\n" for row in ROWS)
        blob.upload_from_string(lines, content_type="application/jsonl")
        self._say("a file was dropped", f"gs://{self._bucket.name}/{name}")
        return str(blob.generation)

    def _dataset(self, generation: str) -> Json:
        dataset = self._until("a dataset", lambda: self._of("datasets", generation))
        self._expect(dataset["state"] == "READY", dataset.get("status"))
        return dataset

    def _job(self, generation: str) -> Json:
        def over() -> Json | None:
            job = self._of("supervisedFineTuningJobs", generation)
            return job if job and job["state"] in OVER else None

        job = self._until("the end of a job", over)
        self._expect(job["state"] == "JOB_STATE_COMPLETED", job.get("status"))
        return job

    def _lease(self, name: str) -> Json:
        def ended() -> Json | None:
            lease = self._client.get("leases", name)
            return lease if lease["state"] in ("REVOKED", "FAILED") else None

        lease = self._until("the end of the access", ended)
        self._expect(lease["state"] == "REVOKED" and lease["lastProbe"]["refused"], lease)
        return lease

    def _of(self, collection: str, generation: str) -> Json | None:
        found = self._client.list(collection)
        return next((one for one in found if one["externalGeneration"] == generation), None)

    def _until(self, what: str, find: Callable[[], T | None]) -> T:
        deadline = time.monotonic() + self._patience_s
        while (found := find()) is None:
            self._expect(time.monotonic() < deadline, f"{what} did not come in time")
            time.sleep(1)
        return found

    def _expect(self, is_so: bool, otherwise: object) -> None:
        if not is_so:
            raise SystemExit(f"the smoke test failed: {otherwise}")

    def _say(self, what: str, detail: object) -> None:
        print(f"{time.monotonic() - self._began:7.1f} s  {what}: {detail}", flush=True)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outputs", type=Path, required=True, help="of terraform output -json")
    parser.add_argument("--base-models", type=Path, required=True, help="of gcloud storage ls")
    parser.add_argument("--key", type=Path, required=True, help="the canary's key, in a file")
    parser.add_argument("--patience", type=float, default=1200, help="seconds for each step")
    asked = parser.parse_args(arguments)
    outputs = json.loads(asked.outputs.read_text())
    models = sorted(line for line in asked.base_models.read_text().split() if line.endswith("/"))
    if not models:
        raise SystemExit("there is no base model to train: deploy with BASE_MODELS=DIR")
    base_model = models[0].rstrip("/").rpartition("/")[2]
    client = ApiClient(outputs["base_url"]["value"], asked.key.read_text(), "canary")
    bucket = storage.Client().bucket(outputs["canary"]["value"]["bucket"])
    SmokeTest(client, bucket, patience_s=asked.patience).run(
        f"accounts/fireworks/models/{base_model}"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
