"""
The lease broker over HTTP. Every caller shows a Google ID token for this service; the address in it
is the caller. Bodies are those of sublet.handover; what is asked is decided in lending.
"""

from dataclasses import replace
from typing import Annotated, Protocol, TypeVar

import msgspec
from fastapi import Depends, FastAPI, Header, Request, Response
from fastapi.concurrency import run_in_threadpool

from sublet.codec import decode, encode
from sublet.errors import InvalidRequest, SubletError, TryAgain, Unauthenticated
from sublet.handover import Claim, Ending, Heartbeat, OpenForTraining, OpenForVerification, Revoke
from sublet.leases import Lease
from sublet.lending import Lending
from sublet.names import AccountName, Email, LeaseName

T = TypeVar("T")


class VerifiesIdTokens(Protocol):
    def verify(self, token: str, *, audience: str) -> Email: ...

    def recall(self, token: str, *, audience: str) -> Email | None: ...


async def _raw_body(request: Request) -> bytes:
    return await request.body()


async def _lease_name(account: str, lease: str) -> LeaseName:
    return LeaseName.parse(f"accounts/{account}/leases/{lease}")


Body = Annotated[bytes, Depends(_raw_body)]
Named = Annotated[LeaseName, Depends(_lease_name)]


def broker_app(  # noqa: C901  a table of routes
    lending: Lending, verifier: VerifiesIdTokens, *, audience: str
) -> FastAPI:
    app = FastAPI(title="sublet lease broker", docs_url=None, redoc_url=None, openapi_url=None)
    lease = "/v1/accounts/{account}/leases/{lease}"

    async def identified(authorization: Annotated[str, Header()] = "") -> Email:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("expected an ID token for this service as bearer")
        if known := verifier.recall(token, audience=audience):
            return known
        return await run_in_threadpool(verifier.verify, token, audience=audience)

    Caller = Annotated[Email, Depends(identified)]  # noqa: N806  a type

    @app.exception_handler(SubletError)
    async def problem(request: Request, error: SubletError) -> Response:
        del request
        advice = {"Retry-After": str(error.after_s)} if isinstance(error, TryAgain) else None
        return Response(encode(error.to_wire()), error.status, advice, "application/json")

    @app.get("/healthz")
    def healthz() -> Response:
        return _answer({"status": "ok"})

    @app.post("/v1/leases:openForTraining")
    def open_for_training(caller: Caller, body: Body) -> Response:
        asked = _read(body, OpenForTraining)
        return _answer(_shown(lending.open_for_training(caller, asked.job)))

    @app.post("/v1/leases:openForVerification")
    def open_for_verification(caller: Caller, body: Body) -> Response:
        asked = _read(body, OpenForVerification)
        opened = lending.open_for_verification(
            caller, asked.account, asked.reads, asked.identity, asked.reads_beside
        )
        return _answer(opened)

    @app.post(f"{lease}:claim")
    def claim(caller: Caller, name: Named, body: Body) -> Response:
        return _answer(lending.claim(caller, name, _read(body, Claim)))

    @app.post(f"{lease}:renew")
    def renew(caller: Caller, name: Named, body: Body) -> Response:
        return _answer(lending.renew(caller, name, _read(body, Heartbeat)))

    @app.post(f"{lease}:finish")
    def finish(caller: Caller, name: Named, body: Body) -> Response:
        return _answer(_shown(lending.finish(caller, name, _read(body, Ending))))

    @app.post(f"{lease}:revoke")
    def revoke(caller: Caller, name: Named, body: Body) -> Response:
        asked = _read(body, Revoke)
        ended = lending.revoke(caller, name, because=asked.because, silent_since=asked.silent_since)
        return _answer(_shown(ended))

    @app.post("/v1/accounts/{account}/dataAccounts:listUnsettled")
    def list_unsettled(caller: Caller, account: str) -> Response:
        return _answer(lending.unsettled(caller, AccountName.of(account)))

    @app.post("/v1/dataAccounts/{email}:settle")
    def settle(caller: Caller, email: str) -> Response:
        lending.settle(caller, Email(email))
        return _answer(None)

    return app


def _read(body: bytes, kind: type[T]) -> T:
    try:
        return decode(body, kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{kind.__name__}: {error}") from None


def _answer(value: object) -> Response:
    return Response(encode(value), media_type="application/json")


def _shown(lease: Lease) -> Lease:
    """A lease without what is sealed in it, which is nobody's but the broker's."""
    return replace(lease, sealed_token="", sealed_upload="")
