"""
What one task of an execution runs. What would change what the task sees and is not here - volumes,
secrets, sidecars - is refused by name; what only sizes or places it is kept and not enforced.

Source: https://cloud.google.com/run/docs/reference/rest/v2/TaskTemplate
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final

from sublet.errors import InvalidRequest

MAX_TASKS: Final = 10_000
MAX_RETRIES: Final = 10
MAX_TIMEOUT: Final = timedelta(hours=168)
_DEFAULT_RETRIES: Final = 3

_KEPT_OF_A_TASK: Final = frozenset(
    {"executionEnvironment", "gpuZonalRedundancyDisabled", "nodeSelector", "vpcAccess"}
)
_KEPT_OF_A_CONTAINER: Final = frozenset({"name", "resources"})
_KEPT_OF_AN_EXECUTION: Final = frozenset({"annotations", "labels"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTemplate:
    """
    `command` is the container's, since there is no image here. `kept_*` are shown again and nothing
    else. A parallelism of 0 is as many at once as there may be.
    """

    image: str
    command: tuple[str, ...]
    arguments: tuple[str, ...]
    environment: dict[str, str]
    service_account: str
    max_retries: int
    timeout_s: float
    task_count: int
    parallelism: int = 0
    kept_of_task: dict[str, Any] = field(default_factory=dict)
    kept_of_container: dict[str, Any] = field(default_factory=dict)
    kept_of_execution: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_wire(cls, template: Mapping[str, Any]) -> "TaskTemplate":
        """
        Read an ExecutionTemplate.

        Raises:
            InvalidRequest: a field is missing, out of its range or not offered here.
        """
        task = template.get("template") or {}
        containers = task.get("containers") or [{}]
        if len(containers) != 1:
            raise InvalidRequest(
                f"got {len(containers)} containers; this local cloud runs one a task"
            )
        container = containers[0]
        _refuse_others(
            template, "template", {"template", "taskCount", "parallelism"}, _KEPT_OF_AN_EXECUTION
        )
        _refuse_others(
            task,
            "template.template",
            {"containers", "maxRetries", "serviceAccount", "timeout"},
            _KEPT_OF_A_TASK,
        )
        _refuse_others(
            container, "container", {"image", "command", "args", "env"}, _KEPT_OF_A_CONTAINER
        )
        retries = task.get("maxRetries")
        made = cls(
            image=str(container.get("image", "")),
            command=tuple(container.get("command", [])),
            arguments=tuple(container.get("args", [])),
            environment=_environment(container.get("env", [])),
            service_account=str(task.get("serviceAccount", "")).casefold(),
            max_retries=_DEFAULT_RETRIES if retries is None else int(retries),
            timeout_s=parse_seconds(task.get("timeout", "600s")),
            task_count=int(template.get("taskCount") or 1),
            parallelism=int(template.get("parallelism") or 0),
            kept_of_task=_kept(task, _KEPT_OF_A_TASK),
            kept_of_container=_kept(container, _KEPT_OF_A_CONTAINER),
            kept_of_execution=_kept(template, _KEPT_OF_AN_EXECUTION),
        )
        made.check()
        return made

    def check(self) -> None:
        """
        Raises:
            InvalidRequest: it could not run; names the field.
        """
        if not self.command:
            raise InvalidRequest("the container needs a command: there is no image to take it from")
        if not self.service_account:
            raise InvalidRequest(
                "serviceAccount is required: this local cloud has no default compute account"
            )
        _check_range("maxRetries", self.max_retries, 0, MAX_RETRIES)
        _check_range("taskCount", self.task_count, 1, MAX_TASKS)
        _check_range("parallelism", self.parallelism, 0, MAX_TASKS)
        if not 0 < self.timeout_s <= MAX_TIMEOUT.total_seconds():
            raise InvalidRequest(
                f"got timeout {self.timeout_s:g}s; expected more than 0 s and at most {MAX_TIMEOUT}"
            )

    def overridden(self, overrides: Mapping[str, Any]) -> "TaskTemplate":
        """
        The template with what one run asks for instead; identity and image cannot be overridden.
        """
        changed = self
        containers = overrides.get("containerOverrides", [])
        if len(containers) > 1:
            raise InvalidRequest(
                f"got {len(containers)} containerOverrides; there is one container"
            )
        for container in containers:
            changed = changed._with_container(container)
        if "timeout" in overrides:
            changed = replace(changed, timeout_s=parse_seconds(overrides["timeout"]))
        if overrides.get("taskCount"):
            changed = replace(changed, task_count=int(overrides["taskCount"]))
        changed.check()
        return changed

    def _with_container(self, container: Mapping[str, Any]) -> "TaskTemplate":
        name, own = container.get("name"), self.kept_of_container.get("name")
        if name and name != own:
            raise InvalidRequest(f"got an override of container {name!r}; the job has {own!r}")
        if container.get("clearArgs") and container.get("args"):
            raise InvalidRequest("got clearArgs and args; expected one of them")
        environment = self.environment | _environment(container.get("env", []))
        arguments = self.arguments
        if container.get("clearArgs") or container.get("args"):
            arguments = tuple(container.get("args", []))
        return replace(self, environment=environment, arguments=arguments)

    def to_wire(self) -> dict[str, Any]:
        """The TaskTemplate of one task."""
        return {
            **self.kept_of_task,
            "containers": [
                {
                    **self.kept_of_container,
                    "image": self.image,
                    "command": list(self.command),
                    "args": list(self.arguments),
                    "env": [{"name": k, "value": v} for k, v in self.environment.items()],
                }
            ],
            "maxRetries": self.max_retries,
            "timeout": f"{self.timeout_s:g}s",
            "serviceAccount": self.service_account,
        }

    def execution_to_wire(self) -> dict[str, Any]:
        """The ExecutionTemplate that this is the whole of."""
        return {
            **self.kept_of_execution,
            "taskCount": self.task_count,
            "parallelism": self.parallelism,
            "template": self.to_wire(),
        }


def parse_seconds(text: object) -> float:
    """A protobuf duration in JSON: `"3.5s"`."""
    if not isinstance(text, str) or not text.endswith("s"):
        raise InvalidRequest(f'got duration {text!r}; expected seconds, as "600s"')
    try:
        return timedelta(seconds=float(text[:-1])).total_seconds()
    except (ValueError, OverflowError):
        raise InvalidRequest(f'got duration {text!r}; expected seconds, as "600s"') from None


def _environment(entries: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    for entry in entries:
        if entry.get("valueSource"):
            raise InvalidRequest(
                f"env {entry.get('name')!r} is of a secret; this local cloud has none, give a value"
            )
    return {entry["name"]: entry.get("value", "") for entry in entries}


def _refuse_others(
    wire: Mapping[str, Any], what: str, known: Iterable[str], kept: Iterable[str]
) -> None:
    if unknown := sorted(name for name in wire if name not in {*known, *kept} and wire[name]):
        raise InvalidRequest(
            f"{what} has {', '.join(unknown)}, which this local cloud does not have: a task is a "
            "process here, not a container; leave it out"
        )


def _kept(wire: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: wire[name] for name in sorted(names) if name in wire}


def _check_range(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InvalidRequest(f"got {name} {value}; expected {least} to {most}")
