"""A refusal means the same on both sides of the wire."""

import re

import pytest

from sublet.client import errors
from sublet.client.errors import refusal_of
from sublet.error_details import error_info
from sublet.errors import BetterAlone, LostRace, MalformedEvent, SubletError


def family(kind):
    return [kind, *(one for child in kind.__subclasses__() for one in family(child))]


SENT = [
    kind
    for kind in family(SubletError)
    if kind.__module__ == "sublet.errors" and kind not in (BetterAlone, LostRace, MalformedEvent)
]


@pytest.mark.parametrize("kind", SENT, ids=lambda kind: kind.__name__)
def test_what_the_server_raises_is_what_the_client_raises(kind):
    sent = kind("bucket gs://b: no grant; run: gcloud ...")
    sent.details = (error_info("NO_GRANT", bucket="b"),)
    received = refusal_of(kind.status, sent.to_wire())
    assert type(received) is kind
    assert str(received) == str(sent)
    assert received.details == sent.details


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, errors.Unauthenticated),
        (403, errors.AccessDenied),
        (404, errors.NotFound),
        (429, errors.TryAgain),
        (502, errors.TryAgain),
        (418, errors.UnexpectedAnswer),
        (500, errors.UnexpectedAnswer),
    ],
)
def test_the_words_of_what_stands_between_are_shown_as_such(status, kind):
    refusal = refusal_of(status, "<html>upstream</html>")
    assert type(refusal) is kind
    assert f"HTTP {status}, not in the words of a control plane" in str(refusal)


def test_a_quota_is_a_fault_that_passes():
    body = {"code": 8, "message": "too many", "details": []}
    assert isinstance(refusal_of(429, body), errors.TryAgain)


def test_the_drawn_tree_is_the_tree():
    drawn = re.findall(r"^( *)(?:\|   )*\+-- (\w+)", errors.__doc__, re.MULTILINE)
    lines = [line for line in errors.__doc__.splitlines() if "+-- " in line]
    parents = {0: SubletError}
    for line in lines:
        depth = line.index("+-- ") // 4
        kind = getattr(errors, re.search(r"\+-- (\w+)", line)[1])
        assert parents[depth - 1] in kind.__bases__, line
        parents[depth] = kind
    names = {name for _, name in drawn} | {"SubletError"}
    assert names == {name for name in errors.__all__ if name[0].isupper()}


def test_a_bad_state_is_a_runtime_error_too():
    """Callers of the Fireworks client catch that."""
    assert issubclass(errors.JobFailed, RuntimeError)
