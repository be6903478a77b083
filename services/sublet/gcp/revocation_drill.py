"""
How long revocation takes, measured on a project of the user's own: the three numbers that no page
promises. A scratch service account is granted a scratch object, disabled, enabled, and its grant is
taken back and let expire, while its tokens are tried until they are refused.

Source: https://cloud.google.com/iam/docs/access-change-propagation
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import requests

from sublet.buckets import POLICY_VERSION
from sublet.errors import FailedPrecondition, NotFound
from sublet.gcp.answers import check_answer, translated
from sublet.gcp.endpoints import Endpoints
from sublet.gcp.sessions import Session
from sublet.gcp.token_mint import boundary, cut_down
from sublet.names import Email, Generation, ObjectVersion
from sublet.ports import Clock
from sublet.roles import OBJECT_VIEWER

_OBJECT: Final = "sublet-revocation-drill.txt"
_TITLE: Final = "sublet revocation drill"
_ALWAYS: Final = 'resource.service == "storage.googleapis.com"'
_TOKEN_LIFE_S: Final = 3600
_TIMEOUT_S: Final = 10
_STAYS_FOR: Final = 3
"""An answer counts when it stays for so many tries: changes reach Google's servers one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """`took` is None where it did not happen within the time that was given."""

    what: str
    took: timedelta | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillTerms:
    """`lead` is how long before its end a grant is made, so that it is in force by then."""

    every: timedelta = timedelta(seconds=0.5)
    give_up: timedelta = timedelta(minutes=15)
    lead: timedelta = timedelta(minutes=10)


class RevocationDrill:
    """
    Args:
        session: of somebody who may impersonate, disable and enable the account, write objects into
            the bucket, and change its policy.
        account: nobody else's: whatever else uses it is refused meanwhile.
        sleep: lets time pass.
    """

    def __init__(
        self,
        *,
        endpoints: Endpoints,
        session: Session,
        account: Email,
        bucket: str,
        clock: Clock,
        sleep: Callable[[timedelta], None],
        terms: DrillTerms,
    ) -> None:
        self._endpoints = endpoints
        self._session = session
        self._account = account
        self._bucket = bucket
        self._clock = clock
        self._sleep = sleep
        self._terms = terms

    def run(self) -> Iterator[Measured]:
        """
        Measure, one thing after the other, and leave account, bucket and policy as they were.

        Raises:
            FailedPrecondition: the account is disabled already, or a grant never opened.
        """
        with self._scratch_object() as version:
            tokens = self._mint(version)
            self._bind()
            opened = self._until(lambda: all(map(self._opens, tokens.values())))
            yield Measured(what="a new grant opens after", took=opened)
            if opened is None:
                raise FailedPrecondition(f"the grant to {self._account} never opened; nothing more")
            yield from self._switched(tokens)
            yield from self._taken_back(tokens)
            yield from self._expired(tokens)

    def _switched(self, tokens: dict[str, str]) -> Iterator[Measured]:
        began = self._switch("disable")
        try:
            refusals = {name: partial(self._refuses, token) for name, token in tokens.items()}
            took = self._each(refusals, began=began)
        finally:
            began = self._switch("enable")
        for name, time in took.items():
            yield Measured(what=f"disabling the account refuses {name} after", took=time)
        revived = self._until(lambda: all(map(self._opens, tokens.values())), began=began)
        yield Measured(what="enabling it makes its old tokens open again after", took=revived)

    def _taken_back(self, tokens: dict[str, str]) -> Iterator[Measured]:
        self._unbind()
        took = self._until(lambda: all(map(self._refuses, tokens.values())))
        yield Measured(what="a grant that is taken back refuses after", took=took)

    def _expired(self, tokens: dict[str, str]) -> Iterator[Measured]:
        ends = self._clock.now() + self._terms.lead
        self._bind(f'request.time < timestamp("{ends:%Y-%m-%dT%H:%M:%S}.{ends:%f}Z")')
        opened = self._until(lambda: all(map(self._opens, tokens.values())), until=ends)
        if opened is None:
            raise FailedPrecondition(
                f"a grant was not in force within {self._terms.lead}: give it a longer --lead"
            )
        while self._clock.now() < ends:
            self._sleep(min(self._terms.every, ends - self._clock.now()))
        took = self._until(lambda: all(map(self._refuses, tokens.values())), began=ends)
        yield Measured(what="a grant with an end refuses after its end by", took=took)

    # --- trying -----------------------------------------------------------------------------------

    def _until(
        self,
        happens: Callable[[], bool],
        *,
        began: datetime | None = None,
        until: datetime | None = None,
    ) -> timedelta | None:
        return self._each({"it": happens}, began=began, until=until)["it"]

    def _each(
        self,
        happens: Mapping[str, Callable[[], bool]],
        *,
        began: datetime | None = None,
        until: datetime | None = None,
    ) -> dict[str, timedelta | None]:
        """How long after `began` (now) each first happened, of the times that it went on to."""
        began = began or self._clock.now()
        deadline = until or began + self._terms.give_up
        firsts: dict[str, datetime] = {}
        times: Counter[str] = Counter()
        while any(times[what] < _STAYS_FOR for what in happens):
            is_on_its_way = any(0 < times[what] < _STAYS_FOR for what in happens)
            if self._clock.now() >= deadline and not is_on_its_way:
                break
            for what, check in happens.items():
                now = self._clock.now()
                if times[what] == _STAYS_FOR:
                    continue
                if check():
                    firsts.setdefault(what, now)
                    times[what] += 1
                else:
                    firsts.pop(what, None)
                    times[what] = 0
            self._sleep(self._terms.every)
        return {
            what: max(firsts[what] - began, timedelta(0)) if times[what] == _STAYS_FOR else None
            for what in happens
        }

    def _opens(self, token: str) -> bool:
        return self._try(token) == 200

    def _refuses(self, token: str) -> bool:
        return self._try(token) in (401, 403)

    def _try(self, token: str) -> int:
        with translated("try a token"):
            answer = requests.get(
                f"{self._objects}/{_OBJECT}",
                headers={"Authorization": f"Bearer {token}"},
                timeout=_TIMEOUT_S,
            )
        return answer.status_code

    # --- what it is tried on ----------------------------------------------------------------------

    @contextmanager
    def _scratch_object(self) -> Iterator[ObjectVersion]:
        uploads = f"{self._endpoints.storage}/upload/storage/v1/b/{self._bucket}/o"
        query = {"uploadType": "media", "name": _OBJECT}
        made = self._ask("POST", uploads, params=query, data=b"scratch\n")
        try:
            yield ObjectVersion(
                bucket=self._bucket, object=_OBJECT, generation=Generation(int(made["generation"]))
            )
        finally:
            self._unbind()
            with suppress(NotFound):
                self._ask("DELETE", f"{self._objects}/{_OBJECT}")

    def _mint(self, version: ObjectVersion) -> dict[str, str]:
        url = (
            f"{self._endpoints.iam_credentials}/v1/projects/-/serviceAccounts/"
            f"{self._account}:generateAccessToken"
        )
        scope = ["https://www.googleapis.com/auth/cloud-platform"]
        body = {"scope": scope, "lifetime": f"{_TOKEN_LIFE_S}s"}
        whole = str(self._ask("POST", url, json=body)["accessToken"])
        narrow = cut_down(Session(), self._endpoints, whole, boundary(version, None))
        return {"a plain token": whole, "a cut-down token": narrow}

    def _switch(self, verb: str) -> datetime:
        """When it was done, as far as the answer tells."""
        url = f"{self._endpoints.iam}/v1/projects/-/serviceAccounts/{self._account}:{verb}"
        self._ask("POST", url, json={})
        return self._clock.now()

    def _bind(self, expression: str = "") -> None:
        binding: dict[str, Any] = {
            "role": OBJECT_VIEWER,
            "members": [f"serviceAccount:{self._account}"],
            "condition": {"title": _TITLE, "expression": expression or _ALWAYS},
        }
        self._change_policy(lambda bindings: [*bindings, binding])

    def _unbind(self) -> None:
        self._change_policy(
            lambda bindings: [b for b in bindings if b.get("condition", {}).get("title") != _TITLE]
        )

    def _change_policy(self, change: Callable[[list[Any]], list[Any]]) -> None:
        url = f"{self._endpoints.storage}/storage/v1/b/{self._bucket}/iam"
        version = {"optionsRequestedPolicyVersion": str(POLICY_VERSION)}
        policy = self._ask("GET", url, params=version)
        bindings = change(policy.get("bindings", []))
        if bindings != policy.get("bindings", []):
            self._ask("PUT", url, json={**policy, "version": POLICY_VERSION, "bindings": bindings})

    @property
    def _objects(self) -> str:
        return f"{self._endpoints.storage}/storage/v1/b/{self._bucket}/o"

    def _ask(self, method: str, url: str, **options: Any) -> Any:  # noqa: ANN401  JSON is any
        with translated(url):
            answer = self._session.request(method, url, timeout=_TIMEOUT_S, **options)
        check_answer(answer, url)
        return answer.json() if answer.content else {}
