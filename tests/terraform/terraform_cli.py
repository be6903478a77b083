"""
The real terraform on copies of the modules, so that nothing is left in the tree. Where there is no
terraform, or no google provider to be had, whoever asks for it is skipped with the reason.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from terraform.plan import MODULES, ROOT, Plan, of_terraform, variables

OFFLINE_PROVIDER = ROOT.parent / "shared" / "tools" / "terraform-offline" / "setup"
"""In the workplace of this project: the google provider's schema without a provider registry."""
NO_PROVIDER = (
    "Failed to query available provider packages",
    "Failed to install provider",
    "Failed to resolve provider packages",
)
NO_CREDENTIALS = "could not find default credentials"
UNITS = ("register-dataset", "start-training", "revoke-access", "sweep-leases")


class Workspace:
    """Copies of the modules, called from one configuration, with a version of the provider."""

    def __init__(self, directory: Path, provider: str) -> None:
        self.directory = directory
        ignored = shutil.ignore_patterns(".terraform*", "build", "*.tfvars*", "*.tfstate*")
        for module in MODULES:
            shutil.copytree(ROOT / "terraform" / module, directory / module, ignore=ignored)
        indexes = directory / "platform" / "firestore_indexes.json"
        indexes.write_text(json.dumps(json.loads(indexes.read_text())[:2]))  # one is like the other
        build = directory / "platform" / "build"
        build.mkdir()
        for unit in UNITS:
            (build / f"{unit}.zip").write_bytes(b"stands for a bundle")
        (directory / "main.tf.json").write_text(json.dumps(_main(provider)))
        self._init(directory)

    def validate(self) -> list[str]:
        """What is wrong, as file: summary. detail."""
        found = json.loads(terraform(["validate", "-json"], self.directory).stdout)
        return [
            f"{one.get('range', {}).get('filename', '')}: {one['summary']}. {one['detail']}"
            for one in found["diagnostics"]
        ]

    def plans(self) -> dict[str, Plan]:
        """By module."""
        self._checked("plan", "-input=false", "-out=plan")
        shown = json.loads(self._checked("show", "-json", "plan"))
        return {module: of_terraform(shown, module) for module in MODULES}

    def test(self, module: str) -> tuple[int, list[str]]:
        """The exit status of a module's own tests, and what failed."""
        self._init(self.directory / module)
        done = terraform(["test", "-json"], self.directory / module)
        lines = (json.loads(line) for line in done.stdout.splitlines())
        failed = [one["diagnostic"]["detail"] for one in lines if one["@level"] == "error"]
        return done.returncode, failed

    def _init(self, directory: Path) -> None:
        done = terraform(["init", "-input=false"], directory)
        if any(said in done.stderr for said in NO_PROVIDER):
            pytest.skip("there is no google provider to be had here")
        assert done.returncode == 0, done.stdout + done.stderr

    def _checked(self, *arguments: str) -> str:
        done = terraform(arguments, self.directory)
        if NO_CREDENTIALS in done.stderr:
            pytest.skip("a plan by Google's own provider asks Google; the offline one does not")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def terraform(arguments: Sequence[str], directory: Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("terraform")
    if program is None:
        pytest.skip("terraform is not installed")
    command = [program, arguments[0], "-no-color", *arguments[1:]]
    return subprocess.run(
        command, cwd=directory, env=_environment(), capture_output=True, text=True, check=False
    )


@cache
def _environment() -> dict[str, str]:
    ours = {"CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}
    fewer_collections = {"GOGC": "400"}  # a fifth of its CPU, for memory that it has back at once
    environment = {**os.environ, **ours, **fewer_collections}
    configured = Path(environment.get("TF_CLI_CONFIG_FILE", ""))
    if not configured.is_file():
        environment.pop("TF_CLI_CONFIG_FILE", None)
        if OFFLINE_PROVIDER.exists():
            done = subprocess.run([OFFLINE_PROVIDER], capture_output=True, text=True, check=True)
            name, _, value = done.stdout.strip().removeprefix("export ").partition("=")
            environment[name] = value
    return environment


def _main(provider: str) -> dict[str, Any]:
    return {
        "terraform": {
            "required_providers": {"google": {"source": "hashicorp/google", "version": provider}}
        },
        "module": {module: {"source": f"./{module}", **variables(module)} for module in MODULES},
    }
