"""One way to write a statement, and no way to change one unseen."""

import json

import pytest

from sublet.errors import InvalidRequest
from sublet.signing import Ed25519Signer, new_private_key, verify_statement
from sublet.statements import (
    ForgedStatement,
    Statement,
    canonical_json,
    parse_statement,
    signed_bytes,
)

KIND = "dev.sublet.test.v1"


def signed(content: dict) -> Statement:
    signer = Ed25519Signer(new_private_key())
    return Statement(
        kind=KIND,
        content=content,
        public_key=signer.public_key,
        signature=signer.sign(signed_bytes(KIND, content)),
    )


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ({"b": 1, "a": [True, None, "x"]}, b'{"a":[true,null,"x"],"b":1}'),
        ({"text": 'a "b"\n\u20ac\U0001f600'}, '{"text":"a \\"b\\"\\n€😀"}'.encode()),
        ({"A": 1, "a": 2, "B": 3}, b'{"A":1,"B":3,"a":2}'),
    ],
)
def test_a_value_is_written_as_rfc_8785_writes_it(value, written):
    assert canonical_json(value) == written


@pytest.mark.parametrize("value", [{"a": 0.5}, {"é": 1}, {1: 2}, {"a": {1, 2}}, {"a": b"x"}])
def test_what_has_no_one_form_is_refused(value):
    with pytest.raises(InvalidRequest):
        canonical_json(value)


def test_a_statement_is_the_same_however_its_file_is_laid_out():
    statement = signed({"b": 1, "a": "€"})
    document = json.loads(statement.to_text())
    for text in (statement.to_text(), json.dumps(document), json.dumps(document, sort_keys=True)):
        parsed = parse_statement(text)
        verify_statement(parsed)
        assert parsed == statement


def test_a_signature_for_one_kind_is_none_for_another():
    document = json.loads(signed({"a": 1}).to_text())
    with pytest.raises(ForgedStatement):
        verify_statement(parse_statement(json.dumps({**document, "kind": "dev.sublet.other.v1"})))


def test_a_signature_by_another_key_is_refused():
    document = json.loads(signed({"a": 1}).to_text())
    other = json.loads(signed({"a": 1}).to_text())
    other["signature"]["value"] = document["signature"]["value"]
    with pytest.raises(ForgedStatement):
        verify_statement(parse_statement(json.dumps(other)))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"kind": "k"}', '{"a": 1, "a": 2}', "[" * 99_999, '"x"', "null"]
)
def test_what_is_no_statement_is_refused_in_words(text):
    with pytest.raises(InvalidRequest, match="no signed statement"):
        parse_statement(text)
