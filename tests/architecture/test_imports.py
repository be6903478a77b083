"""Who may import whom: what import-linter cannot say, said here; the rest is in pyproject.toml."""

import ast
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUBLET = ROOT / "services" / "sublet"
TRAINER = ROOT / "trainer" / "sublet_trainer"
LAYERS = next(
    contract["layers"]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    if contract["type"] == "layers"
)
USE_CASES, PORTS, DOMAIN = ({name.strip() for name in layer.split(":")} for layer in LAYERS[-3:])


@cache
def imports_of(path: Path) -> set[str]:
    """Every module that a file names in an import, wherever in the file it stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def files_under(directory: Path) -> list[Path]:
    return sorted(directory.rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("module", sorted(DOMAIN | PORTS | USE_CASES))
def test_domain_and_use_cases_stand_on_the_standard_library_and_msgspec(module):
    foreign = {
        name.split(".")[0]
        for name in imports_of(SUBLET / f"{module}.py")
        if name.split(".")[0] not in sys.stdlib_module_names
    }
    assert foreign <= {"sublet", "msgspec"}


@pytest.mark.parametrize("path", files_under(SUBLET), ids=name_of)
def test_nothing_in_sublet_imports_torch_or_the_trainer(path):
    assert not {n.split(".")[0] for n in imports_of(path)} & {
        "torch",
        "transformers",
        "peft",
        "sublet_trainer",
    }


@pytest.mark.parametrize("path", files_under(TRAINER), ids=name_of)
def test_the_trainer_knows_only_the_domain(path):
    used = {n.split(".")[1] for n in imports_of(path) if n.startswith("sublet.")}
    assert used <= DOMAIN | {"clock"}


SPEAKS_GOOGLE_TO_OTHERS = {
    "services/sublet/local/run/methods.py",  # the messages of the API that it serves
    "services/sublet/local/pytest_plugin.py",  # hands Google's own client to whoever tests
}


@pytest.mark.parametrize(
    "path",
    [p for p in (*files_under(SUBLET), *files_under(TRAINER)) if SUBLET / "gcp" not in p.parents],
    ids=name_of,
)
def test_only_the_google_adapters_import_google_cloud(path):
    if name_of(path) not in SPEAKS_GOOGLE_TO_OTHERS:
        assert not [n for n in imports_of(path) if n.startswith("google.cloud")]


def test_time_comes_from_the_clock():
    """`datetime.now()` anywhere else is a moment that no test can move."""
    for path in files_under(SUBLET):
        source = path.read_text()
        if path.name != "clock.py":
            assert "datetime.now(" not in source and "utcnow(" not in source, path


@pytest.mark.parametrize(
    "unit", sorted((ROOT / "functions").glob("*/main.py")), ids=lambda p: p.parent.name
)
def test_a_function_is_an_entry_point_and_nothing_else(unit):
    assert len(unit.read_text().splitlines()) <= 25


def test_the_client_and_the_command_line_load_no_google_library():
    code = "import sys, sublet.client.http, sublet.cli.main; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert not {
        "google.auth",
        "google.cloud.storage",
        "google.pubsub_v1",
        "grpc",
        "fastapi",
        "flask",
    } & set(loaded.split())


def test_the_contracts_of_import_linter_hold():
    lint = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert lint.returncode == 0, lint.stdout
