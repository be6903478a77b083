"""Rows: what trains, what does not, and that nobody ever reads a row in a message."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublet.lines import split_lines
from sublet.rows import BadRow, RowFormat, check_rows, parse_row

GOOD = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}


def line(row: object) -> bytes:
    return json.dumps(row).encode()


def chat(*turns: tuple[str, object], **more: object) -> dict[str, object]:
    return {"messages": [{"role": role, "content": content} for role, content in turns], **more}


@pytest.mark.parametrize(
    "row",
    [
        GOOD,
        chat(("system", "s"), ("user", "q"), ("assistant", "a")),
        chat(("user", "q"), ("assistant", "a"), ("user", "q"), ("assistant", "a"), weight=0.5),
        chat(("user", [{"type": "text", "text": "q"}]), ("assistant", "a")),
        {"prompt": "p", "completion": "c"},
        {"prompt": "", "completion": "c", "unknown": {"a": 1}},
        {
            "messages": [
                {"role": "user", "content": "q"},
                {"role": "assistant", "tool_calls": [{"type": "function"}]},
                {"role": "tool", "content": "42"},
                {"role": "assistant", "content": "a"},
            ]
        },
    ],
)
def test_a_row_of_the_documented_forms_is_accepted(row):
    assert parse_row(line(row)) is not None


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": []}, "last turn"),
        (chat(("user", "q")), "last turn"),
        (chat(("robot", "q"), ("assistant", "a")), "role is not one of"),
        (chat(("assistant", "a")), "cannot follow nothing"),
        (chat(("user", "q"), ("user", "q"), ("assistant", "a")), "cannot follow user"),
        (chat(("user", "q"), ("system", "s"), ("assistant", "a")), "cannot follow user"),
        (chat(("user", ""), ("assistant", "a")), "content is empty"),
        (chat(("user", 3), ("assistant", "a")), "content"),
        (chat(("user", [{"type": "image_url"}]), ("assistant", "a")), "not text"),
        ({"messages": [GOOD["messages"][0], {**GOOD["messages"][1], "weight": 0.5}]}, "not 0 or 1"),
        (
            {"messages": [GOOD["messages"][0], {**GOOD["messages"][1], "weight": 0}]},
            "nothing to learn",
        ),
        ({"prompt": "p"}, "neither"),
        ({"prompt": "p", "completion": ""}, "empty"),
        ([1], "object"),
    ],
)
def test_a_bad_row_is_refused_with_the_reason(row, reason):
    with pytest.raises(BadRow, match=reason):
        parse_row(line(row))


@pytest.mark.parametrize(
    "text",
    [
        b"{",
        b"nonsense",
        b'{"messages": NaN}',
        b'{"prompt": "\xff", "completion": "c"}',
        b'{"prompt": "\\ud800", "completion": "c"}',
        b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"prompt": "p", "completion": "c", "weight": ' + b"9" * 5000 + b"}",
    ],
)
def test_garbage_is_a_bad_row_and_never_another_exception(text):
    with pytest.raises(BadRow):
        parse_row(text)


SECRET = "the-owners-secret"


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"messages": [{"role": SECRET, "content": SECRET}]}),
        json.dumps({"messages": SECRET}),
        json.dumps({"prompt": [SECRET], "completion": SECRET}),
        json.dumps(chat(("user", [{"type": SECRET, "text": SECRET}]), ("assistant", SECRET))),
        f'{{"messages": "{SECRET}',
        f"{SECRET}",
    ],
)
def test_no_reason_ever_quotes_the_row(text):
    with pytest.raises(BadRow) as refusal:
        parse_row(text.encode())
    assert SECRET not in str(refusal.value)


def test_each_bad_line_is_reported_by_number_and_offset():
    first, bad, last = line(GOOD), b'{"prompt": 1}', line(GOOD)
    report = check_rows([first + b"\n" + bad + b"\n" + last + b"\n" + last])
    assert [(p.line, p.offset) for p in report.problems] == [(2, len(first) + 1)]
    assert (report.num_rows, report.num_problems, report.is_complete) == (3, 1, True)


def test_rows_of_two_formats_in_one_file_are_refused():
    report = check_rows([line(GOOD) + b"\n" + line({"prompt": "p", "completion": "c"})])
    assert report.format is RowFormat.CHAT
    assert report.problems[0].line == 2


def test_fewer_rows_than_a_training_needs_are_refused():
    report = check_rows([line(GOOD) + b"\n" + line(GOOD)])
    assert "ends after 2 rows" in report.problems[0].reason


def test_empty_lines_are_passed_over_and_still_counted():
    report = check_rows([b"\n\n" + (line(GOOD) + b"\n") * 3 + b"\n{\n"])
    assert (report.num_rows, report.problems[0].line) == (3, 7)


def test_a_byte_order_mark_is_named():
    report = check_rows([b"\xef\xbb\xbf" + (line(GOOD) + b"\n") * 4])
    assert "byte order mark" in report.problems[0].reason


def test_only_so_many_problems_are_kept_but_all_are_counted():
    report = check_rows([b"{\n" * 1000])
    assert (len(report.problems), report.num_problems) == (100, 1000)


def test_a_line_of_any_length_is_passed_over_in_bounded_memory():
    def chunks():
        yield line(GOOD) + b"\n"
        for _ in range(1000):
            yield b"x" * 1000
        yield b"\n" + (line(GOOD) + b"\n") * 2

    report = check_rows(chunks(), max_line_bytes=10_000)
    assert (report.num_rows, [p.line for p in report.problems]) == (3, [2])


def test_running_out_of_time_is_not_an_error_of_the_rows():
    report = check_rows([line(GOOD) + b"\n" + line(GOOD)[:10]] * 3, is_out_of_time=lambda: True)
    assert (report.num_rows, report.num_problems, report.is_complete) == (1, 0, False)


@given(st.binary(max_size=200), st.lists(st.integers(1, 20), max_size=30), st.integers(1, 40))
def test_lines_do_not_depend_on_how_the_bytes_arrive(data, sizes, max_line_bytes):
    chunks, start = [], 0
    for size in sizes:
        chunks.append(data[start : start + size])
        start += size
    chunks.append(data[start:])
    expected, offset = [], 0
    pieces = data.split(b"\n")
    for number, piece in enumerate(pieces, start=1):
        if number == len(pieces) and not piece:
            break
        expected.append((number, offset, piece if len(piece) <= max_line_bytes else None))
        offset += len(piece) + 1
    got = [(x.number, x.offset, x.text) for x in split_lines(chunks, max_line_bytes=max_line_bytes)]
    assert got == expected
