"""
What of an error's message a program may want, as the messages of google.rpc have it. Given where
it is known, and never more than the message says.

Source: https://google.aip.dev/193,
https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto
"""

from collections.abc import Iterable, Mapping
from typing import Final

Detail = Mapping[str, object]

DOMAIN: Final = "sublet.dev"
_TYPES: Final = "type.googleapis.com/google.rpc"


def error_info(reason: str, **metadata: str) -> Detail:
    """
    Args:
        reason: in UPPER_SNAKE_CASE, the same for every error of that cause.
        metadata: what of it differs from case to case; what is empty is left out.
    """
    known = {name: value for name, value in metadata.items() if value}
    info = {"reason": reason, "domain": DOMAIN, "metadata": known}
    return {"@type": f"{_TYPES}.ErrorInfo", **info}


def bad_fields(violations: Iterable[tuple[str, str]]) -> Detail:
    """
    Args:
        violations: paths in camelCase, as in a request's JSON, and what is wrong there.
    """
    found = [{"field": field, "description": text} for field, text in violations]
    return {"@type": f"{_TYPES}.BadRequest", "fieldViolations": found}


def unmet(violations: Iterable[tuple[str, str, str]]) -> Detail:
    """
    Args:
        violations: which precondition, of what or whom, and what to do about it.
    """
    found = [{"type": t, "subject": s, "description": text} for t, s, text in violations]
    return {"@type": f"{_TYPES}.PreconditionFailure", "violations": found}


def retry_after(seconds: int) -> Detail:
    return {"@type": f"{_TYPES}.RetryInfo", "retryDelay": f"{seconds}s"}
