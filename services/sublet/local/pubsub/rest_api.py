"""
The Pub/Sub v1 REST API: the same methods as over gRPC, with JSON in the form of the same protobuf
messages. It has no streaming pull, as the real one has none, and no schemas.

Source: https://cloud.google.com/pubsub/docs/reference/rest
"""

import asyncio
import base64
import re
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from google.protobuf import json_format

from sublet.errors import FailedPrecondition, InvalidRequest, SubletError, Unimplemented
from sublet.local.grpc_calls import Proto
from sublet.local.pubsub.broker import PubSub
from sublet.local.pubsub.iam_policy_api import IamPolicyApi
from sublet.local.pubsub.methods import Unary, Waiting, details_of
from sublet.local.pubsub.publisher_api import PublisherApi
from sublet.local.pubsub.subscriber_api import SubscriberApi
from sublet.local.web import HttpError, Request, Response, Router, json_response

MAX_BODY_BYTES: Final = 20 * 2**20
"""Base64 makes 13.4 MiB of the 10 that a publish may have; above that it is refused unread."""

PULL_WAIT_S: Final = 55.0
"""Less than the 60 s after which Google's clients give a REST call up, unless they name another."""

_SYSTEM_PARAMETERS: Final = frozenset({"alt", "fields", "key", "prettyPrint", "quotaUser"})
"""Those of every Google API: https://cloud.google.com/apis/docs/system-parameters."""
_SNAKE: Final = re.compile("_([a-z])")
"""Masks come in the spelling of JSON or of protobuf; both are taken."""


@dataclass(frozen=True, slots=True)
class _Route:
    """
    `path` comes after /v1/projects/PROJECT/; `field` is the request's field that takes the name
    which the path begins with: of the project, or of the collection's `{id}`.
    """

    http_method: str
    path: str
    field: str
    rpc: str

    def name_in(self, parameters: Mapping[str, str]) -> str:
        project = f"projects/{parameters['project']}"
        if "id" not in parameters:
            return project
        return f"{project}/{self.path.partition('/')[0]}/{parameters['id']}"


_ROUTES: Final = (
    # What has a verb stands before what has none: a verb is a part of the last segment.
    _Route("POST", "topics/{id}:publish", "topic", "Publish"),
    _Route("PUT", "topics/{id}", "name", "CreateTopic"),
    _Route("PATCH", "topics/{id}", "topic.name", "UpdateTopic"),
    _Route("DELETE", "topics/{id}", "topic", "DeleteTopic"),
    _Route("GET", "topics", "project", "ListTopics"),
    _Route("GET", "topics/{id}/subscriptions", "topic", "ListTopicSubscriptions"),
    _Route("GET", "topics/{id}/snapshots", "topic", "ListTopicSnapshots"),
    _Route("POST", "subscriptions/{id}:pull", "subscription", "Pull"),
    _Route("POST", "subscriptions/{id}:acknowledge", "subscription", "Acknowledge"),
    _Route("POST", "subscriptions/{id}:modifyAckDeadline", "subscription", "ModifyAckDeadline"),
    _Route("POST", "subscriptions/{id}:modifyPushConfig", "subscription", "ModifyPushConfig"),
    _Route("POST", "subscriptions/{id}:seek", "subscription", "Seek"),
    _Route("POST", "subscriptions/{id}:detach", "subscription", "DetachSubscription"),
    _Route("PUT", "subscriptions/{id}", "name", "CreateSubscription"),
    _Route("PATCH", "subscriptions/{id}", "subscription.name", "UpdateSubscription"),
    _Route("DELETE", "subscriptions/{id}", "subscription", "DeleteSubscription"),
    _Route("GET", "subscriptions", "project", "ListSubscriptions"),
    _Route("PUT", "snapshots/{id}", "name", "CreateSnapshot"),
    _Route("PATCH", "snapshots/{id}", "snapshot.name", "UpdateSnapshot"),
    _Route("DELETE", "snapshots/{id}", "snapshot", "DeleteSnapshot"),
    _Route("GET", "snapshots", "project", "ListSnapshots"),
    *(
        _Route(http_method, f"{collection}/{{id}}:{verb}", "resource", rpc)
        for collection in ("topics", "subscriptions", "snapshots")
        for http_method, verb, rpc in (
            ("GET", "getIamPolicy", "GetIamPolicy"),
            ("POST", "setIamPolicy", "SetIamPolicy"),
            ("POST", "testIamPermissions", "TestIamPermissions"),
        )
    ),
    _Route("GET", "topics/{id}", "topic", "GetTopic"),
    _Route("GET", "subscriptions/{id}", "subscription", "GetSubscription"),
    _Route("GET", "snapshots/{id}", "snapshot", "GetSnapshot"),
)


class RestApi:
    def __init__(self, pubsub: PubSub) -> None:
        self._tokens = pubsub.iam.tokens
        self._methods: dict[str, Unary | Waiting] = {
            **PublisherApi(pubsub).methods(),
            **SubscriberApi(pubsub).methods(),
            **IamPolicyApi(pubsub).methods(),
        }

    def app(self) -> Router:
        router = Router(_no_such_method)
        for route in _ROUTES:
            answer = partial(self._answer, route, self._methods[route.rpc])
            router.add(route.http_method, f"/v1/projects/{{project}}/{route.path}", answer)
        router.add("*", "/v1/projects/{project}/schemas{rest...}", _refuse_schemas)
        return router

    async def _answer(self, route: _Route, method: Unary | Waiting, request: Request) -> Response:
        try:
            caller = self._tokens.resolve(request.authorization)
            proto = await _read(route, method.request, request)
            if isinstance(method, Waiting):
                answer = await _unless_gone(
                    request, method.answer(caller, proto, _patience_s(request))
                )
            else:
                answer = method.answer(caller, proto)
        except SubletError as error:
            return _refusal(error)
        return json_response(_to_json(answer, request))


async def _read(route: _Route, kind: Proto, request: Request) -> Proto:
    """
    The request as a protobuf message: its body, or for what has none the query, and the path.

    Raises:
        InvalidRequest: a field is unknown or of the wrong type; names it.
    """
    has_body = route.http_method not in ("GET", "DELETE")
    fields = await _body(request) if has_body else _fields_in(request.query)
    _put(fields, route.field, route.name_in(request.parameters))
    _verify_base64(fields.get("messages"))
    if isinstance(mask := fields.get("updateMask"), str):
        fields["updateMask"] = _SNAKE.sub(lambda letter: letter[1].upper(), mask)
    proto = kind()
    try:
        json_format.ParseDict(fields, proto)
    except json_format.ParseError as error:
        raise InvalidRequest(f"Invalid JSON payload received. {error}") from None
    return proto


async def _body(request: Request) -> dict[str, Any]:
    try:
        return await request.json(max_bytes=MAX_BODY_BYTES)
    except HttpError as error:
        raise InvalidRequest(f"Request payload size exceeds the limit: {error}") from None


def _verify_base64(messages: object) -> None:
    """The reader of protobuf's JSON skips what is not base64, and so would change the data."""
    for number, message in enumerate(messages if isinstance(messages, list) else ()):
        try:
            data = message.get("data") or ""
            base64.b64decode(data.replace("-", "+").replace("_", "/"), validate=True)
        except (AttributeError, ValueError):
            raise InvalidRequest(
                f"Invalid value at 'messages[{number}].data' (TYPE_BYTES), Base64 decoding failed"
            ) from None


def _fields_in(query: Mapping[str, str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in query.items():
        if not name.startswith("$") and name not in _SYSTEM_PARAMETERS:
            _put(fields, name, value)
    return fields


def _put(fields: dict[str, Any], path: str, value: str) -> None:
    """Set a field of a field: `topic.name` of {} makes it {"topic": {"name": ...}}."""
    *parents, last = path.split(".")
    for parent in parents:
        fields = fields.setdefault(parent, {})
        if not isinstance(fields, dict):
            raise InvalidRequest(f"got {parent} that is not an object; expected one")
    fields[last] = value


def _to_json(proto: Proto, request: Request) -> dict[str, Any]:
    """Google's own clients ask for enums as numbers, which outlive a change of their names."""
    as_numbers = "enum-encoding=int" in request.query.get("$alt", "")
    return json_format.MessageToDict(proto, use_integers_for_enums=as_numbers)


def _refusal(error: SubletError) -> Response:
    """HTTP's 412 is for its own preconditions; these APIs answer 400 to one that failed."""
    status = getattr(error, "http_status", error.status)
    status = 400 if isinstance(error, FailedPrecondition) else status
    wire: dict[str, object] = {"code": status, "message": str(error), "status": error.reason}
    if details := details_of(error):
        wire["details"] = [json_format.MessageToDict(detail) for detail in details]
    return json_response({"error": wire}, status)


def _no_such_method(status: int, error: SubletError) -> object:
    """For a path, or a verb of one, that the API does not have."""
    reason = "NOT_FOUND" if status == 404 else "INVALID_ARGUMENT"
    return {"error": {"code": status, "message": str(error), "status": reason}}


def _patience_s(request: Request) -> float:
    """How long the client will wait, which some clients say."""
    try:
        return min(float(request.headers.get("x-server-timeout", "")), PULL_WAIT_S)
    except ValueError:
        return PULL_WAIT_S


async def _unless_gone(request: Request, waiting: Awaitable[Proto]) -> Proto:
    """
    Give up waiting when the client has: what came then would be leased to nobody.

    Raises:
        ConnectionError: the client went away.
    """
    answer, gone = asyncio.ensure_future(waiting), asyncio.ensure_future(_departure(request))
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ConnectionError("the client closed the connection")
        return answer.result()
    finally:
        answer.cancel()
        gone.cancel()
        await asyncio.gather(answer, gone, return_exceptions=True)


async def _departure(request: Request) -> None:
    async for _ in request.chunks():
        pass


async def _refuse_schemas(request: Request) -> Response:
    del request
    return _refusal(Unimplemented("this local Pub/Sub has no schemas; leave them out"))
