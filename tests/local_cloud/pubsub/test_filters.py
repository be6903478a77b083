import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublet.errors import InvalidRequest
from sublet.local.pubsub.filters import And, Equals, Has, HasPrefix, Not, Or, parse_filter

MESSAGES = [
    {"lang": "en", "name": "com", "zone": "UTC"},
    {"lang": "en", "name": "net"},
    {"lang": "cn", "name": "com"},
    {"lang": "jp", "name": "co"},
    {"lang": "jp"},
    {"name": "com", "iana.org/language_tag": "en"},
    {},
]


@pytest.mark.parametrize(
    ("text", "passing"),
    [
        ("attributes:lang", [0, 1, 2, 3, 4]),
        ('attributes.name = "com"', [0, 2, 5]),
        ('attributes.name != "com"', [1, 3, 4, 6]),
        ("NOT attributes:name", [4, 6]),
        ("-attributes:name", [4, 6]),
        ('hasPrefix(attributes.name, "co")', [0, 2, 3, 5]),
        ('NOT hasPrefix(attributes.name, "co")', [1, 4, 6]),
        ('attributes:"iana.org/language_tag"', [5]),
        ('attributes."iana.org/language_tag" = "en"', [5]),
        ('attributes.lang = "en" AND attributes.name = "com"', [0]),
        ('attributes.lang = "cn" OR attributes.lang = "jp" OR attributes:zone', [0, 2, 3, 4]),
        ('attributes.lang="en" AND (attributes.name="com" OR attributes.name="net")', [0, 1]),
        ("NOT (attributes:lang OR attributes:name)", [6]),
        ("NOT attributes:lang AND attributes:name", [5]),
        ("-attributes:lang AND -attributes:name", [6]),
        ("((attributes:zone))", [0]),
        ('attributes.name = "\\x63\\u006f\\155"', [0, 2, 5]),
        ('attributes.name="com"  ', [0, 2, 5]),
        ("", [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_a_filter_lets_pass_what_the_documentation_says(text, passing):
    parsed = parse_filter(text)
    assert [number for number, m in enumerate(MESSAGES) if parsed.matches(m)] == passing


@pytest.mark.parametrize(
    "text",
    [
        "garbage ===",
        "attributes",
        "attributes:",
        "attributes.name",
        "attributes.name = com",
        "attributes.name = 'com'",
        'attributes.name == "com"',
        'attributes.name : "com"',
        'attributes.name = "com',
        'attributes.name = "\\q"',
        'attributes.name = "\\uD"',
        'attributes.name = "\\UFFFFFFFF"',
        'attributes.size > "3"',
        'data = "x"',
        'hasSuffix(attributes.name, "m")',
        "hasPrefix(attributes.name)",
        "attributes:a attributes:b",
        "attributes:a and attributes:b",
        "attributes:a AND",
        "attributes:a AND attributes:b OR attributes:c",
        "attributes:a OR attributes:b AND attributes:c",
        "NOT NOT attributes:a",
        "NOT",
        "()",
        "(attributes:a",
        "attributes:a)",
        "(" * 256,
        f'attributes.name = "{"x" * 250}"',
        "   ",
    ],
)
def test_what_is_no_filter_is_refused(text):
    with pytest.raises(InvalidRequest):
        parse_filter(text)


def test_a_refusal_says_where_and_what_was_expected():
    with pytest.raises(InvalidRequest, match="got and at column 14; expected AND, OR"):
        parse_filter("attributes:a and attributes:b")


KEYS = st.sampled_from(["kind", "ce-type", "iana.org/tag", 'quo"te', "ключ", "back\\slash"])
VALUES = st.sampled_from(["", "new", "newer", 'a "b" \\ c', "日本", "line\nend"])
ATTRIBUTES = st.dictionaries(KEYS, VALUES, max_size=4)


def junction(kind):
    return lambda operands: st.builds(kind, st.lists(operands, min_size=2, max_size=3).map(tuple))


FILTERS = st.recursive(
    st.builds(Has, KEYS) | st.builds(Equals, KEYS, VALUES) | st.builds(HasPrefix, KEYS, VALUES),
    lambda inner: st.builds(Not, inner) | junction(And)(inner) | junction(Or)(inner),
    max_leaves=4,
)


def quoted(text):
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def written(node):
    """The model's own way to write a filter down, with every part in parentheses."""
    match node:
        case Has(key):
            return f"attributes:{quoted(key)}"
        case Equals(key, value):
            return f"attributes.{quoted(key)} = {quoted(value)}"
        case HasPrefix(key, prefix):
            return f"hasPrefix(attributes.{quoted(key)}, {quoted(prefix)})"
        case Not(operand):
            return f"NOT ({written(operand)})"
        case And(operands):
            return " AND ".join(f"({written(operand)})" for operand in operands)
        case Or(operands):
            return " OR ".join(f"({written(operand)})" for operand in operands)


def passes(node, attributes):
    """The model: what each form means, said once more and otherwise."""
    match node:
        case Has(key):
            return attributes.get(key) is not None
        case Equals(key, value):
            return (key, value) in attributes.items()
        case HasPrefix(key, prefix):
            return (
                (attributes.get(key) or "\0")[: len(prefix)] == prefix
                if prefix
                else (key in attributes)
            )
        case Not(operand):
            return not passes(operand, attributes)
        case And(operands):
            return {passes(operand, attributes) for operand in operands} == {True}
        case Or(operands):
            return True in {passes(operand, attributes) for operand in operands}


@given(FILTERS, ATTRIBUTES)
def test_what_is_written_down_is_read_as_it_was_meant(node, attributes):
    text = written(node)
    if len(text.encode()) > 256:
        with pytest.raises(InvalidRequest, match="256"):
            parse_filter(text)
    else:
        assert parse_filter(text).matches(attributes) is passes(node, attributes)


PIECES = st.sampled_from(
    [*'():.,-="\\', "!=", "attributes", "hasPrefix", "AND", "OR", "NOT", "k", '"v"', " ", "\n", "é"]
)


@given(st.lists(PIECES, max_size=40).map("".join))
def test_whatever_is_written_it_is_read_or_refused(text):
    with contextlib.suppress(InvalidRequest):
        assert parse_filter(text).matches({"k": "v"}) in (True, False)


def test_only_what_passes_is_delivered_or_kept(cloud, subscribe, publish, pull):
    subscription = subscribe(filter='hasPrefix(attributes.kind, "a")')
    publish(
        {"data": b"1", "attributes": {"kind": "ab"}},
        {"data": b"2", "attributes": {"kind": "ba"}},
        b"3",
    )
    assert [got.message.data for got in pull(subscription)] == [b"1"]
    assert cloud.held() == (1, 1)
