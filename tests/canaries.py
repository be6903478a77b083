"""What nobody may repeat, planted and looked for in every place where somebody could have."""

import re
from pathlib import Path

import psutil

ROW_CANARY = "canary-row-c0ffee"
REWARD_CANARY = 0.8675309421
TOKEN = re.compile(rb"ya29\.[\w-]{20,}|eyJ[\w-]{20,}\.eyJ[\w-]{20,}\.[\w-]{20,}")
PRIVATE_KEY = re.compile(rb"BEGIN [A-Z ]*PRIVATE KEY")
GOOGLES_OWN = ("cloud.db", "cloud.db-wal", "cloud.db-shm", "id-token-key.json")
"""The local cloud's records: what IAM itself knows of tokens and keys."""
KEPT_FOR_THE_OWNER = ("secrets", "stack.json")


def spoken_in(directory: Path) -> dict[str, list[str]]:
    """Which secret was found in which file that is no place for it."""
    keys = {path.name: path.read_bytes() for path in (directory / "secrets").glob("*")}
    found: dict[str, list[str]] = {}
    for path in directory.rglob("*"):
        place = path.relative_to(directory)
        if not path.is_file() or place.name in GOOGLES_OWN or place.parts[0] in KEPT_FOR_THE_OWNER:
            continue
        try:
            content = path.read_bytes()
        except FileNotFoundError:  # a journal of SQLite's that came and went
            continue
        is_dataset = "blobs" in place.parts and content.startswith(b'{"messages"')
        secrets = {
            "a token": bool(TOKEN.search(content)),
            "a private key": bool(PRIVATE_KEY.search(content)),
            "a row": ROW_CANARY.encode() in content and not is_dataset,
            "a reward": str(REWARD_CANARY).encode() in content and not is_dataset,
            **{f"the {name}": key in content for name, key in keys.items()},
        }
        for what in (what for what, is_there in secrets.items() if is_there):
            found.setdefault(what, []).append(str(place))
    return found


def arguments_of(pid: int) -> str:
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    lines = []
    for process in family:
        try:
            lines += process.cmdline()
        except psutil.NoSuchProcess:
            continue
    return "\n".join(lines)
