"""A condition is never TRUE by accident: compared with cel-python over generated expressions."""

from datetime import UTC, datetime, timedelta

import celpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sublet.conditions import Request, Truth, any_of, evaluate, evaluate_throughout

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
NAME = "projects/_/buckets/acme-data/objects/data/train.jsonl"
REQUEST = Request(time=NOW, resource_name=NAME, resource_type="storage.googleapis.com/Object")


@pytest.mark.parametrize(
    ("expression", "truth"),
    [
        ('resource.name.startsWith("projects/_/buckets/acme-data/objects/data/")', Truth.TRUE),
        ("resource.name.startsWith('projects/_/buckets/acme-data/objects/other/')", Truth.FALSE),
        ('resource.type == "storage.googleapis.com/Object"', Truth.TRUE),
        ('resource.service != "storage.googleapis.com"', Truth.FALSE),
        ('request.time < timestamp("2026-11-22T12:00:01Z")', Truth.TRUE),
        ('request.time < timestamp("2026-11-22T13:00:00+01:00")', Truth.FALSE),
        ('resource.name.extract("objects/{folder}/") == "data"', Truth.TRUE),
        ('!(resource.name.endsWith(".csv"))', Truth.TRUE),
        ('resource.name.endsWith(".csv") || resource.name.endsWith(".jsonl")', Truth.TRUE),
        ("true || true && false", Truth.TRUE),
        ("false && false || true", Truth.TRUE),
        ("false || true && true", Truth.TRUE),
    ],
)
def test_what_iam_documents_is_understood(expression, truth):
    assert evaluate(expression, REQUEST) is truth


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "true true",
        "resource.matchTag('env', 'prod')",
        'request.auth.claims.email == "a@b.c"',
        'request.time.getHours("Europe/Berlin") < 17',
        'resource.name.matches(".*")',
        'resource.name.startsWith("a", "b")',
        'api.getAttribute("storage.googleapis.com/objectListPrefix", "") == ""',
        'request.time < timestamp("tomorrow")',
        'request.time < timestamp("2026-11-22T12:00:00.0000001Z")',
        "resource.name == 1",
        'resource.name + "x" == "y"',
        "true ? true : false",
        "(" * 200 + "true" + ")" * 200,
        'resource.name.startsWith("\\x41")',
        "1 < 2 < 3",
    ],
)
def test_what_is_not_understood_is_unknown_and_never_true(expression):
    assert evaluate(expression, REQUEST) is Truth.UNKNOWN
    assert evaluate(f"!({expression})", REQUEST) is Truth.UNKNOWN


def test_the_unknown_is_absorbed_only_by_what_decides():
    unknown = "resource.matchTag('a', 'b') == true"
    assert evaluate('resource.type == "x" && resource.foo == "y"', REQUEST) is Truth.FALSE
    assert (
        evaluate('resource.service == "storage.googleapis.com" || resource.foo == "y"', REQUEST)
        is Truth.TRUE
    )
    assert evaluate(unknown, REQUEST) is Truth.UNKNOWN


def test_a_grant_that_ends_before_the_job_could_is_not_true_throughout():
    expires = 'request.time < timestamp("2026-11-22T13:00:00Z")'
    truth, at = evaluate_throughout(expires, REQUEST, NOW + timedelta(hours=12))
    assert (truth, at) == (Truth.FALSE, NOW + timedelta(hours=1))
    assert evaluate_throughout(expires, REQUEST, NOW + timedelta(minutes=59))[0] is Truth.TRUE


def test_a_hole_in_the_middle_is_found():
    hole = '!(request.time == timestamp("2026-11-22T13:00:00Z"))'
    assert evaluate_throughout(hole, REQUEST, NOW + timedelta(hours=2))[0] is Truth.FALSE


strings = st.sampled_from(
    [
        NAME,
        "projects/_/buckets/acme-data/objects/data/",
        ".jsonl",
        "storage.googleapis.com/Object",
        "",
    ]
)
literals = strings.map(lambda s: f'"{s}"')
texts = st.one_of(literals, st.sampled_from(["resource.name", "resource.type", "resource.service"]))
times = st.integers(-3, 3).map(
    lambda h: f'timestamp("{NOW + timedelta(hours=h):%Y-%m-%dT%H:%M:%SZ}")'
)
atoms = st.one_of(
    st.builds("{}.{}({})".format, texts, st.sampled_from(["startsWith", "endsWith"]), texts),
    st.builds("{} {} {}".format, texts, st.sampled_from(["==", "!=", "<", ">="]), texts),
    st.builds(
        "request.time {} {}".format, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), times
    ),
    st.sampled_from(["true", "false", "1 < 2", "2 == 3"]),
)
expressions = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.builds("({} && {})".format, inner, inner),
        st.builds("({} || {})".format, inner, inner),
        st.builds("!({})".format, inner),
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(expressions, st.integers(-4, 4))
def test_it_agrees_with_cel_wherever_it_answers(expression, hours):
    request = Request(
        time=NOW + timedelta(hours=hours),
        resource_name=NAME,
        resource_type="storage.googleapis.com/Object",
    )
    assert evaluate(expression, request) is (
        Truth.TRUE if _cel(expression, request) else Truth.FALSE
    )


beyond = st.sampled_from(
    [
        'resource.name.matches(".*jsonl")',
        "size(resource.name) > 3",
        'resource.type in ["storage.googleapis.com/Object"]',
        'resource.name + "x" != resource.name',
        '(true ? resource.type : "x") == resource.type',
        "request.time.getHours() < 23",
        'resource.owner == "me"',
        "1 + 1 == 2",
        "resource.name == 1",
        "resource",
        'resource.name.contains("data")',
        'timestamp("2026-11-22T12:00:00.0000001Z") <= request.time',
        'timestamp("tomorrow") < request.time',
        '"\\u0061" == "a"',
        "-1 < 0",
        "null == null",
    ]
)
mixed = st.recursive(
    st.one_of(atoms, beyond),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=4).flatmap(
            lambda parts: st.lists(
                st.sampled_from([" && ", " || "]), min_size=len(parts), max_size=len(parts)
            ).map(
                lambda between: "".join(
                    x for pair in zip(parts, between, strict=True) for x in pair
                )[:-4]
            )
        ),
        st.builds("!({})".format, inner),
        st.builds("!!({})".format, inner),
        st.builds("({})".format, inner),
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(mixed, st.integers(-4, 4))
def test_whatever_it_is_asked_it_is_never_true_where_cel_is_not_nor_false(expression, hours):
    """
    Over what the subset lacks as well, in any mixture and without parentheses: an answer other than
    UNKNOWN is CEL's own, which may also be that the expression is in error.
    """
    request = Request(
        time=NOW + timedelta(hours=hours),
        resource_name=NAME,
        resource_type="storage.googleapis.com/Object",
    )
    truth = evaluate(expression, request)
    if truth is Truth.UNKNOWN:
        return
    try:
        answer = _cel(expression, request)
    except (celpy.CELEvalError, celpy.CELParseError, TypeError, ValueError):
        answer = None
    assert (truth is Truth.TRUE) is answer, expression


def test_of_two_grants_one_holds_whenever_either_does():
    early, late = ('request.time < timestamp("2026-11-22T13:00:00Z")', "resource.matchTag('a')")
    joint = any_of([early, f"!({early})", late])
    assert evaluate_throughout(joint, REQUEST, NOW + timedelta(hours=3))[0] is Truth.TRUE
    assert evaluate(any_of([late]), REQUEST) is Truth.FALSE


def _cel(expression: str, request: Request) -> bool:
    environment = celpy.Environment()
    program = environment.program(environment.compile(expression))
    context = celpy.json_to_cel(
        {
            "resource": {
                "name": request.resource_name,
                "type": request.resource_type,
                "service": request.resource_service,
            }
        }
    )
    context["request"] = celpy.celtypes.MapType(
        {celpy.celtypes.StringType("time"): celpy.celtypes.TimestampType(request.time)}
    )
    return bool(program.evaluate(context))
