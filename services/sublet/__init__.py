"""
sublet: fine-tune models on data that stays in its owner's bucket, and prove that the access ended.

What a caller of the API needs is here: `from sublet import LLM, Dataset, Client`. It is loaded when
it is asked for, since every deploy unit imports this package and none of them needs a client.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from sublet.client.client import Client
    from sublet.client.errors import (
        AccessDenied,
        AlreadyExists,
        BadState,
        Conflict,
        FailedPrecondition,
        InvalidRequest,
        JobCancelled,
        JobDeleted,
        JobFailed,
        NotConfigured,
        NotFound,
        SubletError,
        TryAgain,
        Unauthenticated,
        UnexpectedAnswer,
        Unimplemented,
        Unreachable,
        WaitTimedOut,
    )
    from sublet.client.jobs import DpoJob, Job, ReinforcementStep, SupervisedFineTuningJob
    from sublet.client.llm import LLM
    from sublet.client.resources import Account, Dataset, Model, Receipt

__all__ = [
    "LLM",
    "AccessDenied",
    "Account",
    "AlreadyExists",
    "BadState",
    "Client",
    "Conflict",
    "Dataset",
    "DpoJob",
    "FailedPrecondition",
    "InvalidRequest",
    "Job",
    "JobCancelled",
    "JobDeleted",
    "JobFailed",
    "Model",
    "NotConfigured",
    "NotFound",
    "Receipt",
    "ReinforcementStep",
    "SubletError",
    "SupervisedFineTuningJob",
    "TryAgain",
    "Unauthenticated",
    "UnexpectedAnswer",
    "Unimplemented",
    "Unreachable",
    "WaitTimedOut",
]

_MODULES: Final = {
    "LLM": "llm",
    "Client": "client",
    **dict.fromkeys(("Account", "Dataset", "Model", "Receipt"), "resources"),
    **dict.fromkeys(("DpoJob", "Job", "ReinforcementStep", "SupervisedFineTuningJob"), "jobs"),
}


if not TYPE_CHECKING:  # a type checker that sees it believes in every name

    def __getattr__(name: str) -> Any:  # noqa: ANN401  a module's attribute is of any type
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"sublet.client.{_MODULES.get(name, 'errors')}"), name)
