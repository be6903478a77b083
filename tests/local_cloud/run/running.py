"""What the tests of Cloud Run jobs do: make a job of a piece of Python, by either transport."""

import sys
import time

import grpc
from google.auth.credentials import AnonymousCredentials
from google.cloud import run_v2
from google.oauth2.credentials import Credentials

PARENT = "projects/platform-project/locations/local1"
SHOW = "import json,os; print(json.dumps(dict(os.environ)))"
STUBBORN = """
import signal, sys, time
def stop(*_):
    print("term", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
print("up", flush=True)
time.sleep(60)
"""
HANGS_AT_FIRST = """
import os, time
attempt = os.environ["CLOUD_RUN_TASK_ATTEMPT"]
print(attempt, flush=True)
time.sleep(60 if attempt == "0" else 0)
"""
TRANSPORTS = ("rest", "grpc")


def client(cloud, kind, token=None, transport="rest"):
    """An official client; without a token, nobody's, which here is the owner's."""
    if transport == "grpc":
        return kind(transport=kind.get_transport_class("grpc")(channel=channel(cloud, token)))
    return kind(
        transport="rest",
        credentials=Credentials(token) if token else AnonymousCredentials(),
        client_options={"api_endpoint": cloud.addresses.run},
    )


def channel(cloud, token):
    """gRPC sends no token over an insecure channel; over a local one it does."""
    if not token:
        return grpc.insecure_channel(cloud.addresses.run_grpc)
    credentials = grpc.composite_channel_credentials(
        grpc.local_channel_credentials(), grpc.access_token_call_credentials(token)
    )
    return grpc.secure_channel(cloud.addresses.run_grpc, credentials)


class Clients:
    """Every client of one transport, as the owner or as somebody."""

    def __init__(self, cloud, transport, token=None) -> None:
        self.cloud, self.transport = cloud, transport
        self.jobs = client(cloud, run_v2.JobsClient, token, transport)
        self.executions = client(cloud, run_v2.ExecutionsClient, token, transport)
        self.tasks = client(cloud, run_v2.TasksClient, token, transport)

    def of(self, email: str) -> "Clients":
        return Clients(self.cloud, self.transport, self.cloud.token(email))


def job_of(code: str, email: str, *, retries=0, timeout_s=60, env=None, tasks=0, parallelism=0):
    container = run_v2.Container(
        image="python",
        command=[sys.executable, "-c", code],
        env=[run_v2.EnvVar(name=k, value=v) for k, v in (env or {}).items()],
    )
    template = run_v2.TaskTemplate(
        containers=[container],
        service_account=email,
        max_retries=retries,
        timeout={"seconds": timeout_s},
    )
    return run_v2.Job(
        template=run_v2.ExecutionTemplate(
            template=template, task_count=tasks, parallelism=parallelism
        )
    )


def make(cloud, code: str, **options) -> str:
    """A job whose tasks run a piece of Python."""
    email, name = cloud.account(), cloud.name("job")
    client(cloud, run_v2.JobsClient).create_job(
        parent=PARENT, job=job_of(code, email, **options), job_id=name
    ).result(10)
    return f"{PARENT}/jobs/{name}"


def log_of(cloud, execution: str, task: int = 0) -> str:
    name = f"{execution.rpartition('/')[2]}-task{task}.log"
    return (cloud._directory / "logs" / "executions" / name).read_text()


def wait_until(condition, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if condition():
                return
        except FileNotFoundError:
            pass
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
