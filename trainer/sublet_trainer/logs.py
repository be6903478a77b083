"""
One JSON object a line on standard output, as Cloud Logging reads it. Callers pass names, numbers
and messages written by us; a token or a row's text never gets here.

Source: https://cloud.google.com/run/docs/logging#using-json
"""

import json
import sys
from typing import Final

INFO: Final = "INFO"
WARNING: Final = "WARNING"
ERROR: Final = "ERROR"


def log(severity: str, message: str, **fields: object) -> None:
    """Write one line, whole: heartbeats log from their own thread."""
    sys.stdout.write(json.dumps({"severity": severity, "message": message, **fields}) + "\n")
    sys.stdout.flush()
