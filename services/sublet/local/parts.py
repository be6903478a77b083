"""The parts of the local cloud that can be had alone; a command line names them and loads none."""

from typing import Final

PARTS: Final = ("storage", "pubsub", "run", "iam")
"""`iam` is also IAM Credentials, STS and the metadata servers."""
