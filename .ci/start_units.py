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
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Callable, Iterator
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
EVERY_MODULE = """
import importlib, pkgutil, sublet_trainer
for module in pkgutil.walk_packages(sublet_trainer.__path__, "sublet_trainer."):
    importlib.import_module(module.name)
"""
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


def start_trainer(directory: Path) -> str:
    """
    Every module imported, then the process without a lease, which says that this is what it lacks.
    Its torch is the one of this interpreter: the wheel differs by accelerator and is in no list.
    """
    began = time.monotonic()
    code = directory / "app"
    copytree(ROOT / "services" / "sublet", code / "sublet", ignore=not_in_an_image())
    copytree(ROOT / "trainer" / "sublet_trainer", code / "sublet_trainer", ignore=not_in_an_image())
    python = install(directory / "venv", ROOT / "trainer" / "requirements.txt", with_torch=True)
    installed = time.monotonic() - began
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory), "PYTHONPATH": str(code)}
    subprocess.run([python, "-c", EVERY_MODULE], env=environment, cwd=directory, check=True)
    done = subprocess.run(
        [python, "-m", "sublet_trainer"],
        env=environment,
        cwd=directory,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 1 or "lacks SUBLET_LEASE" not in done.stdout + done.stderr:
        raise SystemExit(f"sublet-trainer: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return f"sublet-trainer: wants its lease, installed in {installed:.0f} s"


def not_in_an_image() -> Callable[[str, list[str]], set[str]]:
    return ignore_patterns("__pycache__", "answer.py", *bundle.NOT_DEPLOYED)


def unpack(unit: str, code: Path) -> None:
    """What Google unpacks of a bundle, or what services/Dockerfile copies."""
    if unit in FUNCTIONS:
        path = code.with_suffix(".zip")
        bundle.bundle(unit, path)
        with ZipFile(path) as made:
            made.extractall(code)
        return
    copytree(ROOT / "services" / "sublet", code / "sublet", ignore=not_in_an_image())
    copy(ROOT / "services" / unit / "main.py", code)


def install(directory: Path, requirements: Path, *, with_torch: bool = False) -> Path:
    """Without resolving: the list is whole, which `pip check` confirms."""
    venv.create(directory, with_pip=False)
    python = directory / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    flags = ["--quiet", "--no-deps", "--no-compile", "--require-hashes", "--only-binary", ":all:"]
    subprocess.run([*pip, "install", *flags, "--requirement", str(requirements)], check=True)
    if with_torch:
        lend_torch(python)
    subprocess.run([*pip, "check"], check=True, stdout=subprocess.DEVNULL)
    return python


def lend_torch(python: Path) -> None:
    ours = Path(sysconfig.get_path("purelib"))
    theirs = next(python.parents[1].glob("lib/*/site-packages"))
    for pattern in ("torch", "torchgen", "functorch", "torch-*.dist-info"):
        for found in ours.glob(pattern):
            (theirs / found.name).symlink_to(found)


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
        trainer = Path(made) / "sublet-trainer"
        trainer.mkdir()
        started = pool.submit(start_trainer, trainer)
        for line in pool.map(start, directories, directories.values()):
            print(line)
        print(started.result())
