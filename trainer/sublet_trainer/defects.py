"""What may be said of a failure that is not one of sublet.errors: nothing of its text."""

from pathlib import Path
from traceback import walk_tb
from typing import Final

from sublet.errors import SubletError

_OURS: Final = ("sublet", "sublet_trainer")


def described(problem: BaseException) -> tuple[str, str]:
    """
    The name of a gRPC code and a message for the user: our own errors' words; of anything else,
    whose text may quote a row, only its type and place.
    """
    if isinstance(problem, SubletError):
        return problem.reason, str(problem)
    kind = type(problem).__name__
    if kind in ("MemoryError", "OutOfMemoryError"):
        return "RESOURCE_EXHAUSTED", (
            "the trainer ran out of memory; lower max_context_length, or train on a larger machine"
        )
    places = [
        f"{Path(frame.f_code.co_filename).name}:{line}"
        for frame, line in walk_tb(problem.__traceback__)
        if frame.f_globals.get("__name__", "").partition(".")[0] in _OURS
    ]
    place = places[-1] if places else "a place outside it"
    return "INTERNAL", f"the trainer failed with {kind} at {place}; this is a bug of sublet"
