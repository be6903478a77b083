"""
Bundles of functions: main.py, its pins and the sublet package in one zip. The same content gives
the same bytes, on any machine and at any time, so that a deployment changes only where code has.

    python functions/bundle.py DIRECTORY
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, ZipInfo

FUNCTIONS = Path(__file__).parent
PACKAGE = FUNCTIONS.parent / "services" / "sublet"
NOT_DEPLOYED = ("cli", "client", "local", "memory")
"""Parts of the package that run on somebody's own machine, and want libraries of their own."""
_EPOCH = (1980, 1, 1, 0, 0, 0)
_READABLE = 0o644 << 16


def names() -> list[str]:
    return sorted(main.parent.name for main in FUNCTIONS.glob("*/main.py"))


def contents(name: str) -> Iterator[tuple[str, bytes]]:
    """What is in a function's bundle, by path, in order."""
    for file in ("main.py", "requirements.txt"):
        yield file, (FUNCTIONS / name / file).read_bytes()
    for file in sorted(PACKAGE.rglob("*.py")):
        path = file.relative_to(PACKAGE)
        if path.parts[0] not in NOT_DEPLOYED:
            yield f"sublet/{path.as_posix()}", file.read_bytes()


def bundle(name: str, path: Path) -> None:
    """Stored and not deflated: two versions of zlib make two files of one content."""
    with ZipFile(path, "w", compression=ZIP_STORED) as made:
        for place, content in contents(name):
            entry = ZipInfo(place, date_time=_EPOCH)
            entry.external_attr = _READABLE
            entry.create_system = 3  # as on Unix, wherever it is made
            made.writestr(entry, content)


if __name__ == "__main__":
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name in names():
        bundle(name, directory / f"{name}.zip")
        print(directory / f"{name}.zip")
