"""What a function has to say, as Cloud Logging reads it."""

import json
import sys


def log(severity: str, message: str, **fields: object) -> None:
    """One line of JSON on standard error."""
    line = {"severity": severity, "message": message, **fields}
    print(json.dumps(line), file=sys.stderr, flush=True)  # noqa: T201
