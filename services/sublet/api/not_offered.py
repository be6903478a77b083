"""
What others offer on the same wire and sublet does not: said at once, with what to use instead, and
in a form that no client repeats.
"""

from collections.abc import Callable
from typing import Any, Final

from fastapi import APIRouter

from sublet.api.control_plane import Caller
from sublet.errors import Unimplemented

router = APIRouter()

USE: Final = {
    "reinforcementFineTuningJobs": "rollouts and rewards stay with you: roll out and score "
    "yourself (`sublet rollout`), and train on the result with rlorTrainerJobs",
    "evaluators": "rewards stay with you: score yourself, and keep the code in your own cloud",
    "evaluationJobs": "evaluate the adapter yourself: its files are in your own bucket",
    "batchInferenceJobs": "load the adapter from your own bucket into a server of yours",
    "deployments": "load the adapter from your own bucket into a server of yours, vLLM for one",
    "deployedModels": "load the adapter from your own bucket into a server of yours, vLLM for one",
    "deploymentShapes": "load the adapter from your own bucket into a server of yours",
    "secrets": "sublet keeps no secrets: access is by grants on your bucket (`sublet get account`)",
    "trainingSessions": "train with supervisedFineTuningJobs",
}
_METHODS: Final = ["GET", "POST", "PATCH", "DELETE"]


def _refusal(collection: str, instead: str) -> Callable[..., dict[str, Any]]:
    def refuse(caller: Caller, account: str) -> dict[str, Any]:
        caller.own(account)
        raise Unimplemented(f"{collection} are not offered; {instead}")

    return refuse


for _collection, _instead in USE.items():
    for _path in (_collection, f"{_collection}/{{rest:path}}"):
        router.add_api_route(
            f"/v1/accounts/{{account}}/{_path}",
            _refusal(_collection, _instead),
            methods=_METHODS,
            include_in_schema=False,
        )
