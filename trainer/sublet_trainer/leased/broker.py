"""
The lease broker over HTTP: claim, renew, finish. Translates its answers into what they mean for
this process, and bears passing faults until a stated moment; it keeps no state of the lease.
"""

from collections.abc import Callable
from time import monotonic
from typing import Final

import httpx
import msgspec

from sublet.clock import clock_of
from sublet.codec import decode, encode
from sublet.errors import TryAgain
from sublet.handover import Assignment, Claim, Ending, Heartbeat, Renewal
from sublet.names import LeaseName
from sublet_trainer.leased.identity import IdentityTokens
from sublet_trainer.leased.retries import persist
from sublet_trainer.stops import BrokerRefused, BrokerSilent, LeaseElsewhere, LeaseLost, Stop

CLAIM_PATIENCE_S: Final = 60.0
"""A claim holds no token whose death could end its patience."""
TIMEOUT_S: Final = 10.0
_LEASE_IS_OVER: Final = frozenset({404, 409, 410, 412})


class Broker:
    """One lease's broker. Calls must not overlap; HeldLease sees to that."""

    def __init__(self, *, url: str, metadata_host: str, lease: LeaseName) -> None:
        # An HTTP_PROXY in the environment must not become a reader of tokens.
        self._client = httpx.Client(
            timeout=TIMEOUT_S,
            trust_env=False,
            verify=url.startswith("https"),  # no certificates are read where none are to be checked
        )
        self._identity = IdentityTokens(self._client, metadata_host=metadata_host, audience=url)
        self._url = f"{url.rstrip('/')}/v1/{lease}"
        self._lease = lease
        self._clock = clock_of()

    def claim(self, claim: Claim, *, wait: Callable[[float], object]) -> Assignment:
        """
        Raises:
            LeaseElsewhere: another holder is alive, or the lease has ended.
            BrokerRefused: this identity may not claim it.
            BrokerSilent: no answer within CLAIM_PATIENCE_S.
        """
        answer = self._post("claim", claim, until=monotonic() + CLAIM_PATIENCE_S, wait=wait)
        self._check(answer, over=LeaseElsewhere)
        return decode(answer.content, Assignment)

    def renew(
        self, heartbeat: Heartbeat, *, until: float, wait: Callable[[float], object]
    ) -> Renewal:
        """
        Raises:
            LeaseLost: another holder took over, or the lease was ended: stop at once.
            BrokerSilent: no answer until `until` (time.monotonic()).
        """
        answer = self._post("renew", heartbeat, until=until, wait=wait)
        self._check(answer, over=LeaseLost)
        return decode(answer.content, Renewal)

    def finish(self, ending: Ending, *, until: float) -> None:
        """
        Raises:
            LeaseLost, BrokerSilent: as for renew; the job's end was not recorded.
        """
        answer = self._post("finish", ending, until=until)
        self._check(answer, over=LeaseLost)

    def _post(
        self,
        verb: str,
        body: Claim | Heartbeat | Ending,
        *,
        until: float,
        wait: Callable[[float], object] | None = None,
    ) -> httpx.Response:
        content = encode(body)

        def send() -> httpx.Response:
            bearer = f"Bearer {self._identity.token(self._clock.now())}"
            return self._client.post(
                f"{self._url}:{verb}",
                content=content,
                headers={
                    "Authorization": bearer,
                    # Cloud Run checks this one, and would take the signature off the other.
                    "X-Serverless-Authorization": bearer,
                    "Content-Type": "application/json",
                },
            )

        patience = {"wait": wait} if wait else {}
        try:
            answer = persist(send, what=f"{verb} {self._lease}", until=until, **patience)
            if answer.status_code in (401, 403):  # a key rotation, or an identity gone stale
                self._identity.forget()
                answer = persist(send, what=f"{verb} {self._lease}", until=until, **patience)
        except TryAgain as silence:
            raise BrokerSilent(str(silence)) from None
        return answer

    def _check(self, answer: httpx.Response, *, over: type[Stop]) -> None:
        if answer.is_success:
            return
        said = f"{self._lease}: the broker says {answer.status_code}: {_message_of(answer)}"
        raise over(said) if answer.status_code in _LEASE_IS_OVER else BrokerRefused(said)


class _Problem(msgspec.Struct):
    message: str = ""


def _message_of(answer: httpx.Response) -> str:
    try:
        return msgspec.json.decode(answer.content, type=_Problem).message or answer.reason_phrase
    except msgspec.DecodeError:
        return answer.reason_phrase
