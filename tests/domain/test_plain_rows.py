"""
The short way through rows that are as most are. It may only ever say what the long way says, of
every file: that is the contract, and whatever it does not know goes the long way.
"""

import json
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sublet import rows
from sublet.lines import split_blocks, split_lines
from sublet.plain_rows import are_plain
from sublet.rows import BadRow, Row, RowReport, check_rows, parse_row

ASK = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "a"}
CALLING = [
    {"role": "system", "content": "s"},
    {**ASK, "name": "n"},
    {**ANSWER, "tool_calls": [{}], "reasoning_content": "r"},
    {"role": "tool", "content": "42", "tool_call_id": "1"},
    {**ANSWER, "weight": 1},
]
GOOD = {
    "CHAT": [{"messages": [ASK, ANSWER]}, {"messages": CALLING, "tools": [{}], "weight": 0.5}],
    "COMPLETION": [{"prompt": "p", "completion": "c"}],
    "PREFERENCE": [
        {
            "input": {"messages": said},
            "preferred_output": [ANSWER],
            "non_preferred_output": [ANSWER],
        }
        for said in ([ASK], CALLING[:-1])
    ],
}
VALUES = [
    *(None, True, 0, 1, 1.0, 0.5, -1, 10**400, "", "a", "system", "user", "assistant", "tool"),
    *("robot", [], {}, [{}], [ASK], [ANSWER, ANSWER], {"messages": [ASK]}),
    [{"type": "text", "text": "t"}],
]
KEYS = [
    *("role", "content", "weight", "name", "tool_calls", "tool_call_id", "reasoning_content"),
    *("messages", "prompt", "completion", "tools", "samples", "input", "preferred_output"),
    *("non_preferred_output", "unknown"),
]
SPOILED = [
    lambda text: text,
    lambda text: text.replace(b",", b",\n", 1),
    lambda text: text + text,
    lambda text: text + b" " + text,
    lambda text: b"  " + text + b"\r",
    lambda text: text[:-1],
    lambda text: b"\xef\xbb\xbf" + text,
    lambda text: text.replace(b'"a"', b'"\xff"'),
    lambda text: text.replace(b'"a"', b'"\\ud800"'),
    lambda text: text.replace(b'"a"', b'"a\tb"'),
    lambda text: text.replace(b'"role"', b'"role": "user", "role"'),
    lambda text: text.replace(b'"content"', b'"content": "", "content"'),
    lambda text: text[:-1] + b', "unknown": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    lambda text: text[:-1] + b', "unknown": NaN}',
    lambda _: b"",
    lambda _: b"[]",
    lambda _: b"{}",
]


def changed_once(value: object) -> Iterator[object]:
    """Each value that differs in one place: something else, something more, nothing."""
    yield from VALUES
    if isinstance(value, dict):
        for key in value:
            yield {name: kept for name, kept in value.items() if name != key}
            yield from ({**value, key: other} for other in changed_once(value[key]))
        yield from ({**value, key: more} for key in KEYS if key not in value for more in VALUES)
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield value[:at] + value[at + 1 :]
            yield [*value[:at], item, *value[at:]]
            yield from ([*value[:at], other, *value[at + 1 :]] for other in changed_once(item))


def line(row: object) -> bytes:
    return json.dumps(row).encode()


def the_long_way_of(text: bytes) -> Row | None:
    with suppress(BadRow):
        return parse_row(text)
    return None


@pytest.mark.parametrize("kind", GOOD)
def test_what_is_plainly_good_is_good_however_a_row_is_changed(kind):
    """Every change in one place, and of the text itself; some make no difference."""
    texts = {line(row) for good in GOOD[kind] for row in changed_once(good)}
    texts |= {spoil(line(good)) for good in GOOD[kind] for spoil in SPOILED}
    before = [[], *([line(good)] for good in GOOD[kind])]
    plain = {text for text in texts if any(are_plain(kind, [*first, text]) for first in before)}
    for text in plain:
        row = the_long_way_of(text)
        assert row is not None, text
        assert (row.format, row.samples) == (kind, None), text
    assert 0 < len(plain) < len(texts)


@pytest.mark.parametrize("kind", GOOD)
def test_what_most_rows_are_takes_the_short_way(kind):
    assert are_plain(kind, [*map(line, GOOD[kind])] * 3)
    others = [line(row) for name, found in GOOD.items() if name != kind for row in found]
    assert not any(are_plain(kind, [text]) for text in others)


def test_a_conversation_that_is_too_long_to_remember_is_looked_at_all_the_same():
    for turns, is_good in (([ASK, ANSWER] * 50, True), ([ASK, ANSWER] * 50 + [ASK], False)):
        assert are_plain("CHAT", [line({"messages": turns})]) is is_good


# --- whole files ----------------------------------------------------------------------------------


def the_long_way(chunks: list[bytes], **terms) -> RowReport:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "are_plain", lambda *_: False)
        return check_rows(chunks, **terms)


FIRST = [line(row) for found in GOOD.values() for row in found]
FIRST.append(line({"messages": [ASK, ANSWER], "samples": [{"messages": []}] * 2}))
OTHERS = [spoil(text) for text in FIRST for spoil in SPOILED]


@st.composite
def files(draw) -> bytes:
    """Mostly the same row again, so that there are blocks for the short way beside the others."""
    first = draw(st.sampled_from(FIRST))
    often = st.one_of(st.just(first), st.just(first), st.sampled_from(OTHERS))
    made = [first, *draw(st.lists(often, max_size=12))]
    return b"\n".join(made) + draw(st.sampled_from([b"", b"\n"]))


@settings(max_examples=150)
@given(data=files(), size=st.integers(1, 1000), most=st.sampled_from([60, 10**6]))
def test_both_ways_say_the_same_of_every_file(data, size, most):
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    assert check_rows(chunks, max_line_bytes=most) == the_long_way(chunks, max_line_bytes=most)


@settings(max_examples=150)
@given(data=files(), size=st.integers(1, 1000), most=st.sampled_from([5, 10**6]))
def test_blocks_hold_the_same_lines_at_the_same_places(data, size, most):
    chunks = [data[at : at + size] for at in range(0, len(data), size)]
    blocks = split_blocks(chunks, max_line_bytes=most)
    got = [found for block in blocks for found in block.lines(most) if found.text != b""]
    expected = split_lines(chunks, max_line_bytes=most)
    assert got == [found for found in expected if found.text != b""]


def test_a_good_row_that_is_too_long_is_too_long_among_plain_ones():
    short, long = line({"messages": [ASK, ANSWER]}), line({"messages": [ASK, ANSWER] * 3})
    report = check_rows([short + b"\n", b"\n".join([short, long, short])], max_line_bytes=120)
    assert [problem.line for problem in report.problems] == [3]
    assert report.num_rows == 3


def test_plain_rows_after_one_with_samples_are_not_as_the_first_one_is():
    report = check_rows([FIRST[-1] + b"\n", b"\n".join(FIRST[:1] * 3)])
    assert [problem.line for problem in report.problems] == [2, 3, 4]
