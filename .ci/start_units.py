"""
Each deploy unit starts with its own list of requirements and nothing else: in a fresh virtual
environment, from its bundle or from what its image holds, with the environment that Terraform sets.

    python .ci/start_units.py
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from shutil import copy, copytree, ignore_patterns
from zipfile import ZipFile

sys.path.append(str(Path(__file__).parents[1] / "tests"))
sys.path.append(str(Path(__file__).parents[1] / "functions"))
sys.path.append(str(Path(__file__).parents[1] / "services"))

import bundle
from terraform.plan import ROOT, Plan, Resource, environment_of, kept

FUNCTIONS = bundle.names()
SERVICES = sorted(main.parent.name for main in ROOT.glob("services/*/main.py"))
READY_WITHIN_S = 60
SEAL_KEY = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="


def start(unit: str, directory: Path) -> str:
    """Install, start and ask a unit; what it answered."""
    began = time.monotonic()
    code = directory / "app"
    folder = "functions" if unit in FUNCTIONS else "services"
    unpack(unit, code)
    python = install(directory / "venv", ROOT / folder / unit / "requirements.txt")
    installed = time.monotonic() - began
    port = free_port()
    environment = told(kept("platform"), unit, directory) | {"PYTHONPATH": str(code)}
    with running(command(unit, python, code, port), environment, directory) as process:
        answer = ask(f"http://127.0.0.1:{port}/healthz", process)
    wanted = 405 if unit in FUNCTIONS else 200
    if answer != wanted:
        log = (directory / "log").read_text()[-2000:]
        raise SystemExit(f"{unit}: got {answer} from /healthz; expected {wanted}\n{log}")
    return f"{unit}: {answer}, installed in {installed:.0f} s"


def unpack(unit: str, code: Path) -> None:
    """What Google unpacks of a bundle, or what services/Dockerfile copies."""
    if unit in FUNCTIONS:
        path = code.with_suffix(".zip")
        bundle.bundle(unit, path)
        with ZipFile(path) as made:
            made.extractall(code)
        return
    left_out = ignore_patterns("__pycache__", *bundle.NOT_DEPLOYED)
    copytree(ROOT / "services" / "sublet", code / "sublet", ignore=left_out)
    copy(ROOT / "services" / unit / "main.py", code)


def install(directory: Path, requirements: Path) -> Path:
    """Without resolving: the list is whole, which `pip check` confirms."""
    venv.create(directory, with_pip=False)
    python = directory / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    flags = ["--quiet", "--no-deps", "--no-compile", "--require-hashes", "--only-binary", ":all:"]
    subprocess.run([*pip, "install", *flags, "--requirement", str(requirements)], check=True)
    subprocess.run([*pip, "check"], check=True, stdout=subprocess.DEVNULL)
    return python


def told(plan: Plan, unit: str, directory: Path) -> dict[str, str]:
    """Terraform's environment; the credentials are nobody's, since nothing is asked of Google."""
    key = directory / "key.json"
    nobody = {"client_id": "x", "client_secret": "x", "refresh_token": "x"}
    key.write_text(json.dumps({"type": "authorized_user", **nobody}))
    return {
        **environment_of(deployed(plan, unit)),
        "GOOGLE_APPLICATION_CREDENTIALS": str(key),
        "HOME": str(directory),
        "PATH": os.environ["PATH"],
        "PYTHONDONTWRITEBYTECODE": "1",
        "SUBLET_SEAL_KEY": SEAL_KEY,
    }


def deployed(plan: Plan, unit: str) -> Resource:
    types = ("google_cloudfunctions2_function", "google_cloud_run_v2_service")
    return next(one for one in plan.of(*types) if one.values["name"] == unit)


def command(unit: str, python: Path, code: Path, port: int) -> list[str]:
    if unit in SERVICES:
        return [str(python), *f"-m uvicorn main:app --host 127.0.0.1 --port {port}".split()]
    target = deployed(kept("platform"), unit).at("build_config.entry_point")
    arguments = f"--target {target} --signature-type http --host 127.0.0.1 --port {port}"
    script = python.with_name("functions-framework")
    return [str(python), str(script), "--source", str(code / "main.py"), *arguments.split()]


@contextmanager
def running(
    arguments: list[str], environment: dict[str, str], directory: Path
) -> Iterator[subprocess.Popen[bytes]]:
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            arguments, env=environment, cwd=directory, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)


def ask(url: str, process: subprocess.Popen[bytes]) -> int:
    """The status of the first answer; 0 if the unit ended, or was never ready."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + READY_WITHIN_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with opener.open(url, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            time.sleep(0.1)  # it does not listen yet
    return 0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made, ThreadPoolExecutor(os.cpu_count()) as pool:
        directories = {unit: Path(made) / unit for unit in (*FUNCTIONS, *SERVICES)}
        for directory in directories.values():
            directory.mkdir()
        for line in pool.map(start, directories, directories.values()):
            print(line)
