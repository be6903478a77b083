"""
What is shipped: bundles of one content are one file, each unit has a list of its own that is whole
and pinned by hash, and images hold nothing that builds.
"""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from terraform.plan import ROOT

sys.path.append(str(ROOT / "functions"))

import bundle

LISTS = [
    *sorted(ROOT.glob("functions/*/requirements.txt")),
    *sorted(ROOT.glob("services/*/requirements.txt")),
    ROOT / "trainer" / "requirements.txt",
]
DOCKERFILES = sorted([*ROOT.glob("services/Dockerfile"), *ROOT.glob("trainer/Dockerfile")])


def unit_of(path: Path) -> str:
    return path.parent.name


# --- bundles --------------------------------------------------------------------------------------


def test_one_content_is_one_bundle_wherever_and_whenever_it_is_made(tmp_path, monkeypatch):
    bundle.bundle("start-training", tmp_path / "here.zip")
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(ROOT / "functions", elsewhere / "functions", copy_function=shutil.copyfile)
    shutil.copytree(
        bundle.PACKAGE, elsewhere / "services" / "sublet", copy_function=shutil.copyfile
    )
    monkeypatch.setattr(bundle, "FUNCTIONS", elsewhere / "functions")
    monkeypatch.setattr(bundle, "PACKAGE", elsewhere / "services" / "sublet")
    bundle.bundle("start-training", tmp_path / "there.zip")
    assert (tmp_path / "here.zip").read_bytes() == (tmp_path / "there.zip").read_bytes()
    (elsewhere / "services" / "sublet" / "names.py").write_text("changed = True")
    bundle.bundle("start-training", tmp_path / "changed.zip")
    assert (tmp_path / "here.zip").read_bytes() != (tmp_path / "changed.zip").read_bytes()


@pytest.mark.parametrize("name", bundle.names())
def test_a_bundle_holds_its_function_and_nothing_of_a_laptop(name, tmp_path):
    bundle.bundle(name, tmp_path / "made.zip")
    with ZipFile(tmp_path / "made.zip") as made:
        held = made.namelist()
        main = made.read("main.py")
    assert main == (ROOT / "functions" / name / "main.py").read_bytes()
    assert {"requirements.txt", "sublet/__init__.py", "sublet/gcp/runner.py"} <= set(held)
    assert not [path for path in held if path.startswith(("sublet/local/", "sublet/memory/"))]
    assert not [
        path for path in held if "__pycache__" in path or not path.endswith((".py", ".txt"))
    ]


# --- lists ----------------------------------------------------------------------------------------

_PINNED = re.compile(r"([a-z0-9-]+)==(\S+) \\")
_TORCH = "torch==2.13.0"
"""Its wheels differ by CUDA, so trainer/Dockerfile takes it from an index that is chosen."""


def pins(path: Path) -> dict[str, str]:
    return dict(
        found.groups() for found in map(_PINNED.match, path.read_text().splitlines()) if found
    )


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("path", LISTS, ids=unit_of)
def test_every_requirement_is_pinned_by_hash(path):
    for line in path.read_text().splitlines():
        is_pin = _PINNED.fullmatch(line)
        is_hash = re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line)
        assert is_pin or is_hash or not line or line.lstrip().startswith("#"), line
    assert len(re.findall(r" \\\n    --hash", path.read_text())) >= len(pins(path)) > 10


@pytest.mark.parametrize("path", LISTS, ids=unit_of)
def test_a_unit_runs_on_the_versions_that_are_tested(path):
    tested = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    tested = {normal(name): version for name, version in tested.items()}
    pinned = pins(path)
    assert {name: tested.get(name, version) for name, version in pinned.items()} == pinned


@pytest.mark.parametrize("path", LISTS, ids=unit_of)
def test_what_a_unit_asks_for_is_in_its_list(path):
    asked = {
        normal(line.partition("[")[0])
        for line in path.with_suffix(".in").read_text().split()
        if line != _TORCH
    }
    assert asked <= pins(path).keys()


def test_whatever_the_trainer_imports_is_asked_for():
    """Its image is too large to start in a test; the others are started by `make bundles-start`."""
    package = ROOT / "trainer" / "sublet_trainer"
    files = [file for file in package.rglob("*.py") if not is_ignored(file)]
    trees = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    modules = {name.name for node in trees if isinstance(node, ast.Import) for name in node.names}
    modules |= {node.module for node in trees if isinstance(node, ast.ImportFrom) and node.module}
    roots = {module.partition(".")[0] for module in modules}
    comes_with_torch = {"triton"}  # for a GPU
    others = roots - sys.stdlib_module_names - {"sublet", "sublet_trainer"} - comes_with_torch
    asked = (ROOT / "trainer" / "requirements.in").read_text().split()
    assert {normal(name) for name in others} <= {line.partition("==")[0] for line in asked}


def test_no_list_names_where_packages_come_from():
    for path in LISTS:
        assert not re.search(r"https?://|--(extra-)?index-url [^$]|--find-links", path.read_text())


# --- images ---------------------------------------------------------------------------------------


_BASE = re.compile(r"\S+@sha256:[0-9a-f]{64}( AS \w+)?")
_DIGEST = "@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d"
_UNWANTED = {
    r"ADD |COPY (--\S+ )*\.\s": "takes more than it names",
    r"RUN .*\b(apt-get|apk|curl|wget|gcc|make|git)\b": "fetches or builds",
    r"(ENV|ARG) .*(KEY|SECRET|TOKEN|PASSWORD)": "holds a secret",
}


def breaches(dockerfile: str) -> list[str]:
    """What is wrong with an image, from its Dockerfile."""
    text = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", dockerfile, flags=re.MULTILINE))
    lines = [line for line in text.splitlines() if line]
    found = [
        f"{what}: {line}"
        for line in lines
        for pattern, what in _UNWANTED.items()
        if re.match(pattern, line)
    ]
    bases = [line.removeprefix("FROM ") for line in lines if line.startswith("FROM ")]
    found += [f"the base can become another: {b}" for b in bases if not _BASE.fullmatch(b)]
    steps = re.findall(r"pip (?:--python \S+ )?install[^&\n]*", text)
    found += [f"installs what nobody pinned: {step}" for step in steps if not _is_pinned(step)]
    return found + _breaches_at_run_time(text.rpartition("FROM ")[2])


def _is_pinned(step: str) -> bool:
    return "--only-binary :all:" in step and ("--require-hashes" in step or _TORCH in step)


def _breaches_at_run_time(stage: str) -> list[str]:
    users = re.findall(r"^USER (\S*)", stage, re.MULTILINE)
    checks = {
        "runs as root, or as a name that could be root": (
            users and re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1])
        ),
        "a shell stands between it and SIGTERM": re.search(r"^ENTRYPOINT \[", stage, re.MULTILINE),
        "has an installer": "pip uninstall --yes pip" in stage,
    }
    return [what for what, is_well in checks.items() if not is_well]


@pytest.mark.parametrize("path", DOCKERFILES, ids=unit_of)
def test_an_image_holds_what_it_names_and_runs_as_nobody(path):
    assert breaches(path.read_text()) == []


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        (_DIGEST, ""),
        (_DIGEST, ":latest"),
        (_DIGEST, "@sha256:65a93d69"),
        ("USER 65532:65532", "USER root"),
        ("USER 65532:65532", "USER 0:0"),
        ("USER 65532:65532", ""),
        ("--require-hashes", ""),
        ("--only-binary :all:", ""),
        ("COPY services/sublet /app/sublet", "COPY . /app"),
        ("COPY services/sublet", "ADD services/sublet"),
        ("pip uninstall --yes pip setuptools wheel", "pip --version"),
        ("WORKDIR /app", "RUN apt-get update && apt-get install --yes gcc"),
        ("WORKDIR /app", "ENV SUBLET_SEAL_KEY=QUFB"),
        ('ENTRYPOINT ["', "ENTRYPOINT "),
    ],
)
def test_a_careless_image_is_noticed(text, instead):
    careful = (ROOT / "services" / "Dockerfile").read_text()
    assert text in careful
    assert breaches(careful.replace(text, instead))


@pytest.mark.parametrize("path", DOCKERFILES, ids=unit_of)
def test_what_an_image_copies_is_there_and_is_sent_to_the_builder(path):
    """`gcloud builds submit` reads .gcloudignore as git reads .gitignore."""
    assert (ROOT / ".dockerignore").read_text() == (ROOT / ".gcloudignore").read_text()
    for source in re.findall(r"^COPY (?!--)(\S+)", path.read_text(), re.MULTILINE):
        for unit in ("control-plane", "lease-broker"):
            place = ROOT / source.replace("${UNIT}", unit)
            assert place.is_file() or (place / "__init__.py").is_file()
            assert not is_ignored(place if place.is_file() else place / "__init__.py")


def test_nothing_else_is_sent_to_the_builder():
    for path in ("README.md", "tests/conftest.py", "services/sublet/local/cloud.py", ".git/config"):
        assert is_ignored(ROOT / path)


def is_ignored(path: Path) -> bool:
    rules = f"core.excludesFile={ROOT / '.gcloudignore'}"
    command = ["git", "-c", rules, "check-ignore", "--no-index", "--quiet", str(path)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True)
    if done.returncode not in (0, 1):
        pytest.skip("this is no git checkout")
    return done.returncode == 0


def test_the_service_in_an_image_is_the_one_that_is_deployed():
    entry = re.search(r"^ENTRYPOINT (\[.*\])$", DOCKERFILES[0].read_text(), re.MULTILINE)
    assert entry is not None
    command = json.loads(entry[1])
    assert command[:2] == ["uvicorn", "main:app"]
    assert command[command.index("--port") + 1] == "8080"
