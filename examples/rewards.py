"""What the example rewards: a short answer that comes to its end."""

from typing import Any

LONGEST = 240
"""Characters."""


def brevity(prompt: dict[str, Any], answer: dict[str, Any]) -> float:  # noqa: ARG001  others need it
    """From 1 for no words at all to 0 for many, or for an answer that was cut short."""
    if answer["finish_reason"] == "length":
        return 0.0
    return max(0.0, 1 - len(answer["content"]) / LONGEST)
