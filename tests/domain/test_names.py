"""Names are strict once, so that nothing downstream has to be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublet.errors import InvalidRequest
from sublet.names import (
    AccountName,
    DatasetName,
    Generation,
    ModelName,
    ObjectVersion,
    check_prefix,
    parse_gs_url,
)

ACME = AccountName.of("acme")


@pytest.mark.parametrize("text", ["a", "a1", "my-dataset-2", "x" * 63])
def test_a_resource_id_of_the_api_is_accepted(text):
    assert DatasetName.of(ACME, text).id == text


@pytest.mark.parametrize(
    "text", ["", "1a", "-a", "a-", "A", "a_b", "a.b", "ä", "x" * 64, "a/b", "a\n"]
)
def test_anything_else_is_refused_as_a_resource_id(text):
    with pytest.raises(InvalidRequest):
        DatasetName.of(ACME, text)


def test_a_bare_id_belongs_to_the_account_and_a_full_name_to_its_own():
    assert ModelName.under(ACME, "m") == "accounts/acme/models/m"
    assert ModelName.under(ACME, "accounts/fireworks/models/m").account == AccountName.of(
        "fireworks"
    )


def test_a_name_of_another_collection_is_refused():
    with pytest.raises(InvalidRequest, match="datasets"):
        DatasetName.parse("accounts/acme/models/m")


def test_a_gs_url_is_split_without_decoding_anything():
    assert parse_gs_url("gs://acme-data/a/b%2Fc.jsonl") == ("acme-data", "a/b%2Fc.jsonl")


@pytest.mark.parametrize(
    "url",
    [
        "http://acme-data/a",
        "gs://acme-data",
        "gs://acme-data/",
        "gs:///a",
        "gs://user@acme/a",
        "gs://192.168.1.1/a",
        "gs://goog-data/a",
        "gs://Acme/a",
        "gs://acme-data/../b",
        "gs://acme-data/a//b",
        "gs://acme-data/a/./b",
        "gs://acme-data/a#1234",
        "gs://acme-data/a*",
        "gs://acme-data/a?generation=1",
        'gs://acme-data/a"b',
        "gs://acme-data/a'b",
        "gs://acme-data/a\\b",
        "gs://acme-data/a\nb",
        "gs://acme-data/a\x00b",
        "gs://acme-data/a\u202eb",
        "gs://acme-data/" + "x" * 1025,
    ],
)
def test_a_url_that_has_fooled_somebody_before_is_refused(url):
    with pytest.raises(InvalidRequest):
        parse_gs_url(url)


@pytest.mark.parametrize("prefix", ["", "tenants/acme", "/", "a//"])
def test_a_prefix_that_could_match_a_neighbour_is_refused(prefix):
    """`tenants/acme` would cover `tenants/acme-evil/` too."""
    with pytest.raises(InvalidRequest):
        check_prefix(prefix)


@given(st.text())
def test_no_accepted_object_name_can_break_out_of_a_quoted_condition(text):
    try:
        version = ObjectVersion(bucket="acme-data", object=text, generation=Generation(1))
    except InvalidRequest:
        return
    assert not set(version.object) & set("\"'\\\n\r\0")


@pytest.mark.parametrize("text", ["0", "-1", "01", "1.0", "", "9" * 20, "１"])  # noqa: RUF001
def test_a_generation_is_a_positive_int64_in_plain_digits(text):
    with pytest.raises(InvalidRequest):
        Generation.parse(text)


def test_two_generations_never_share_a_digest():
    one = ObjectVersion(bucket="acme-data", object="a", generation=Generation(1))
    other = ObjectVersion(bucket="acme-data", object="a", generation=Generation(2))
    assert one.digest != other.digest
