"""
Which permission stands before what. The policies that count are those of the job and of its
project; an execution, a task and an operation have none of their own.

Source: https://cloud.google.com/run/docs/reference/iam/permissions
"""

from typing import Final

from sublet.errors import NotFound
from sublet.local.iam.callers import PolicyMethods, target_of, target_of_missing
from sublet.local.iam.enforcement import Iam, Target
from sublet.local.iam.tokens import Caller
from sublet.local.run.templates import TaskTemplate
from sublet.names import Email

SERVICE: Final = "run.googleapis.com"


class Guard:
    def __init__(self, iam: Iam) -> None:
        self._iam = iam
        self.policies = PolicyMethods(iam)

    def check(self, caller: Caller, permission: str, name: str) -> None:
        """
        Args:
            name: of a job, or of what is below one, or of a location.

        Raises:
            AccessDenied: the caller lacks `run.<permission>` there.
        """
        self._iam.authorize(caller, f"run.{permission}", target_of_job(name))

    def check_act_as(self, caller: Caller, template: TaskTemplate) -> None:
        """Whoever says what a job runs gives it an identity, and needs the right to that."""
        email = Email(template.service_account)
        try:
            target = target_of(self._iam.service_accounts.get(email))
        except NotFound:
            self._iam.authorize(caller, "iam.serviceAccounts.actAs", target_of_missing(email))
            raise
        self._iam.authorize(caller, "iam.serviceAccounts.actAs", target)


def target_of_job(name: str) -> Target:
    job = name.partition("/executions/")[0]
    project = "/".join(name.split("/")[:2])
    return Target(
        policies=(job, project),
        name=job,
        type=f"{SERVICE}/Job" if "/jobs/" in job else "",
        service=SERVICE,
    )
