"""
The OpenAPI document, made of the routes and of what stands beside them. An answer that it does not
name is a bug that the tests look for.

Source: https://spec.openapis.org/oas/v3.1.0
"""

import re
from collections.abc import Iterable
from inspect import Parameter, getdoc, signature
from typing import Any, Final

import msgspec
from fastapi.routing import APIRoute

from sublet.api.bodies import IGNORED_HEADER
from sublet.api.control_plane import Mask, Page
from sublet.api.masks import camel
from sublet.api.operations import Operation, operation_of
from sublet.api.pages import MAX_PAGE

Json = dict[str, Any]

_SCHEMAS: Final = "#/components/schemas"
_ID: Final = {"type": "string", "pattern": "^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"}
_TEXT: Final = {"type": "string"}
_READ_MASK: Final = ("readMask", "Fields to show, joined by commas; none or * is all.", _TEXT)
_PAGE: Final = (
    ("pageSize", f"At most {MAX_PAGE}, 50 if not given.", {"type": "integer", "minimum": 0}),
    ("pageToken", "The nextPageToken of the page before.", _TEXT),
    ("filter", 'FIELD="VALUE", joined by AND.', _TEXT),
    ("orderBy", "name or createTime, with desc to turn it round.", _TEXT),
    _READ_MASK,
)
_REFUSALS: Final = {
    400: "The request is wrong, or what it is about is in a state that does not allow it.",
    401: "No API key, or an unknown, expired or revoked one.",
    403: "The key's role may not, the account is another's, or a bucket does not grant enough.",
    404: "There is no such thing.",
    409: "There is another thing of that name.",
    501: "Not offered; the message says what to use.",
    503: "Something passing is in the way: ask again after the seconds of Retry-After.",
}
_HEADERS: Final = {
    501: {"x-should-retry": {"schema": {"const": "false"}}},
    503: {"Retry-After": {"schema": {"type": "string", "pattern": "^[0-9]+$"}}},
}
_ERROR: Final[Json] = {
    "type": "object",
    "properties": {
        "code": {"type": "integer", "minimum": 1, "maximum": 16},
        "message": {"type": "string", "minLength": 1},
        "details": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"@type": {"type": "string", "pattern": "google.rpc"}},
                "required": ["@type"],
            },
        },
    },
    "required": ["code", "message", "details"],
    "additionalProperties": False,
}


def document_of(routes: Iterable[APIRoute]) -> Json:
    shown = [route for route in routes if route.include_in_schema]
    paths: dict[str, Json] = {}
    for route in shown:
        for method in sorted(route.methods or ()):
            paths.setdefault(route.path, {})[method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "sublet",
            "version": "v1",
            "description": "Fine-tuning on data that stays in its owner's bucket. A field may be "
            "sent as camelCase or snake_case; null is as if it were not there.",
        },
        "paths": paths,
        "components": {
            "schemas": {"Error": _ERROR, **_schemas(operation_of(r.endpoint) for r in shown)},
            "securitySchemes": {"apiKey": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"apiKey": []}],
    }


def _operation(route: APIRoute) -> Json:
    operation = operation_of(route.endpoint)
    described: Json = {
        "operationId": f"{route.endpoint.__module__.rpartition('.')[2]}.{route.endpoint.__name__}",
        "summary": route.endpoint.__name__.replace("_", " ").capitalize(),
        "description": getdoc(route.endpoint) or "",
        "parameters": [*_path_parameters(route.path), *_query_parameters(route, operation)],
        "responses": _responses(route, operation),
    }
    if operation.takes:
        schema = {"$ref": f"{_SCHEMAS}/{operation.takes.__name__}"}
        content = {"application/json": {"schema": schema}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _path_parameters(path: str) -> list[Json]:
    return [
        _parameter(name, "path", "An id, or a full name with its slashes encoded.", _ID)
        for name in re.findall(r"\{(\w+)\}", path)
    ]


def _query_parameters(route: APIRoute, operation: Operation) -> list[Json]:
    needs = _needs(route)
    known = _PAGE if Page in needs else (_READ_MASK,) if Mask in needs else ()
    return [
        *(_parameter(name, "query", text, schema) for name, text, schema in known),
        *(_parameter(name, "query", "", _TEXT) for name in operation.query),
    ]


def _parameter(name: str, place: str, text: str, schema: Json) -> Json:
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "description": text,
        "schema": schema,
    }


def _responses(route: APIRoute, operation: Operation) -> Json:
    is_masked = not {Page, Mask}.isdisjoint(_needs(route))
    refusals = {400, 401, 503, *operation.refusals}
    if "{account}" in route.path:
        refusals.add(403)
    if route.path.count("{") > 1:
        refusals.add(404)
    responses: Json = {"200": _response("As asked.", _given(operation, is_masked=is_masked))}
    if operation.takes:
        ignored = {"description": "Fields that were sent and are not known.", "schema": _TEXT}
        responses["200"]["headers"] = {IGNORED_HEADER: ignored}
    for status in sorted(refusals):
        responses[str(status)] = _response(_REFUSALS[status], {"$ref": f"{_SCHEMAS}/Error"})
        if headers := _HEADERS.get(status):
            responses[str(status)]["headers"] = headers
    return responses


def _response(text: str, schema: Json) -> Json:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _given(operation: Operation, *, is_masked: bool) -> Json:
    if operation.gives is None:
        return {"type": "object", "additionalProperties": False}
    if operation.gives is dict:
        return {"type": "object"}
    suffix = "Masked" if is_masked else ""
    one = {"$ref": f"{_SCHEMAS}/{operation.gives.__name__}{suffix}"}
    if not operation.listed_as:
        return one
    fields = {
        operation.listed_as: {"type": "array", "items": one},
        "nextPageToken": _TEXT,
        "totalSize": {"type": "integer", "minimum": 0},
    }
    return {
        "type": "object",
        "properties": fields,
        "required": [*fields],
        "additionalProperties": False,
    }


def _schemas(operations: Iterable[Operation]) -> Json:
    """Of what is taken; of what is given, whole; and the same where a mask may have cut it."""
    operations = list(operations)
    taken = {o.takes for o in operations if o.takes}
    given = {o.gives for o in operations if o.gives and o.gives is not dict}
    return {
        **{name: _in_camel_case(schema) for name, schema in _components(taken, "").items()},
        **{name: _closed(schema) for name, schema in _components(given, "").items()},
        **{
            f"{name}Masked": _closed({**schema, "required": []})
            for name, schema in _components(given, "Masked").items()
        },
    }


def _components(kinds: set[type], suffix: str) -> dict[str, Json]:
    ordered = sorted(kinds, key=lambda kind: kind.__name__)
    template = f"{_SCHEMAS}/{{name}}{suffix}"
    _, components = msgspec.json.schema_components(ordered, ref_template=template)
    return components


def _closed(schema: Json) -> Json:
    return {**schema, "additionalProperties": False} if "properties" in schema else schema


def _in_camel_case(schema: Json) -> Json:
    if "properties" not in schema:
        return schema
    named = {camel(name): value for name, value in schema["properties"].items()}
    return {**schema, "properties": named, "required": [*map(camel, schema.get("required", []))]}


def _needs(route: APIRoute) -> list[object]:
    found: Iterable[Parameter] = signature(route.endpoint).parameters.values()
    return [parameter.annotation for parameter in found]
