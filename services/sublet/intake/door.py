"""
The door of every function: it lets an event in if it is small, sent by whom we expect, and
readable. What is none of these is answered 2xx, quarantined and counted, because a redelivery would
find it the same. What failed for a passing reason is answered 5xx, and comes again.
"""

import json
from collections.abc import Callable, Mapping
from typing import Final, Protocol, TypeVar

from flask import Request, Response

from sublet.errors import MalformedEvent, SubletError, Unauthenticated
from sublet.intake.envelopes import Envelope, open_envelope
from sublet.intake.logs import log
from sublet.names import Email
from sublet.ports import Clock, Registry
from sublet.quarantine import quarantine

E = TypeVar("E")

MAX_EVENT_BYTES: Final = 2**20
_DONE: Final = ("", 204)


class VerifiesIdTokens(Protocol):
    def verify(self, token: str, *, audience: str) -> Email: ...


class Door:
    def __init__(
        self,
        *,
        unit: str,
        registry: Registry,
        clock: Clock,
        verifier: VerifiesIdTokens,
        audience: str,
        senders: frozenset[Email],
    ) -> None:
        self._unit = unit
        self._registry = registry
        self._clock = clock
        self._verifier = verifier
        self._audience = audience
        self._senders = senders

    def receive(
        self,
        request: Request,
        parse: Callable[[Envelope], E | None],
        handle: Callable[[E], object],
    ) -> tuple[str, int]:
        """Answer one delivery: 204 when done or hopeless, 503 to have it again."""

        def deliver(body: bytes) -> None:
            headers = {name.lower(): value for name, value in request.headers.items()}
            event = parse(open_envelope(headers, body))
            if event is not None:
                handle(event)

        return self._admit(request, deliver)

    def ring(self, request: Request, act: Callable[[], Mapping[str, object]]) -> Response:
        """Answer a call that says little but "now", as Cloud Scheduler's, and log the report."""
        report: dict[str, object] = {}

        def do(_: bytes) -> None:
            report.update(act())
            if any(report.values()):
                log("NOTICE", f"{self._unit} had work to do", **report)

        refused, status = self._admit(request, do)
        if not report:
            return Response(refused, status)
        return Response(json.dumps(report), 200, mimetype="application/json")

    def _admit(self, request: Request, act: Callable[[bytes], object]) -> tuple[str, int]:
        if request.method != "POST":
            return "", 405
        body = b""
        try:
            body = _read(request)
            self._check_sender(request)
            act(body)
        except MalformedEvent as error:
            return self._quarantined("malformed", error, body)
        except Unauthenticated as error:
            return self._quarantined("forged", error, body)
        except SubletError as error:
            log("WARNING", f"{self._unit}: {error.reason}: {error}; asking for it again")
            return error.reason, 503
        return _DONE

    def _check_sender(self, request: Request) -> None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("the delivery carries no ID token")
        sender = self._verifier.verify(token, audience=self._audience)
        if sender not in self._senders:
            raise Unauthenticated(f"{sender} is not one of our senders")

    def _quarantined(self, kind: str, error: SubletError, body: bytes) -> tuple[str, int]:
        kept = quarantine(
            self._registry, self._clock, unit=self._unit, kind=kind, reason=str(error), body=body
        )
        log("ERROR", f"{self._unit}: {kind} event quarantined ({kept.count} so far): {error}")
        return _DONE


def _read(request: Request) -> bytes:
    """The body, or no more of it than tells that it is too large."""
    body = request.stream.read(MAX_EVENT_BYTES + 1)
    if len(body) > MAX_EVENT_BYTES:
        raise MalformedEvent(f"the event is larger than {MAX_EVENT_BYTES} bytes")
    return bytes(body)
