"""Rows that hold several conversations: groups of samples with rewards, and preferences."""

import json

import pytest

from sublet.rows import BadRow, RowFormat, check_rows, parse_row

SECRET = "the-owners-secret"


def turns(*texts, first="user"):
    roles = ("user", "assistant") if first == "user" else ("assistant", "user")
    return [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]


def sample(answer="a", question="q", **more):
    return {"messages": turns(question, answer), "evals": {"score": 1.0}, **more}


def group(*samples, **more):
    return {"samples": list(samples), **more}


def pair(**changes):
    row = {
        "input": {"messages": turns("q")},
        "preferred_output": turns("a", first="assistant"),
        "non_preferred_output": turns("b", first="assistant"),
    }
    return {**row, **changes}


GROUP = group(sample("a"), sample("b"))


def parse(row):
    return parse_row(json.dumps(row).encode())


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (GROUP, RowFormat.RL),
        (group(sample(), sample(), sample(), weight=0.5), RowFormat.RL),
        (
            group(
                {"messages": turns("q", "a"), "score": 0},
                {"messages": turns("q", "b"), "evals": {"right": -3, "short": 1e-9}},
            ),
            RowFormat.RL,
        ),
        (group(sample(logprobs=[-0.1, 0.0, -7]), sample(finish_reason="length")), RowFormat.RL),
        (
            group(*({"messages": turns("p", "x", "q", one), "score": 1} for one in "ab")),
            RowFormat.RL,
        ),
        (pair(), RowFormat.PREFERENCE),
        (pair(input={"messages": turns("p", "x", "q"), "tools": [{"a": 1}]}), RowFormat.PREFERENCE),
    ],
)
def test_a_row_of_the_documented_forms_is_accepted(row, expected):
    assert parse(row).format is expected


def test_a_reward_may_stand_in_evals_or_beside_them():
    beside, inside = ({"messages": turns("q", "a"), **one} for one in ({"score": 0.5}, {}))
    inside["evals"] = {"score": 0.25, "short": 1}
    assert [one.rewards for one in parse(group(beside, inside)).samples] == [
        {"score": 0.5},
        {"score": 0.25, "short": 1.0},
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (group(), r"has 0 samples; expected at least 2 .* at `\$\.samples`"),
        (group(sample()), "has 1 samples; expected at least 2"),
        (group(sample(), sample(question="p")), r"no answer to the prompt .* `\$\.samples\[1]"),
        (group(sample(), {"messages": turns("q", "b")}), r"has no reward.* at `\$\.samples\[1]`"),
        (group(sample(), sample(evals={})), "has no reward"),
        (group(sample(), sample(evals={"score": True})), "Expected `float`, got `bool`"),
        (group(sample(), sample(evals={"score": "1"})), "Expected `float`, got `str`"),
        (group(sample(), sample(score=None, evals=None)), "Expected `object`, got `null`"),
        (group(sample(), sample(evals={"score": -2e9})), r"beyond 1e\+09 .*samples\[1].evals"),
        (group(sample(), sample(logprobs=[-1, 0.5])), r"above 0 - at `\$\.samples\[1].logprobs`"),
        (group(sample(), {"score": 1.0}), "missing required field `messages`"),
        (group(sample(), {"messages": turns("q"), "score": 1}), "last turn is not the assistant"),
        (
            group(
                sample(),
                {
                    "messages": [*turns("q"), {"role": "assistant", "content": "a", "weight": 0}],
                    "score": 1,
                },
            ),
            "weight 0: nothing to learn",
        ),
        (pair(preferred_output=[]), r"has 0 messages; expected 1.* at `\$\.preferred_output`"),
        (pair(non_preferred_output=turns("a", "q", first="assistant")), "has 2 messages"),
        (pair(preferred_output=turns("a")), "a user turn cannot follow user"),
        (pair(input={"messages": []}), r"cannot follow nothing - at `\$\.preferred_output\[0]`"),
        (pair(input={"messages": turns("q", "a")}), "assistant turn cannot follow assistant"),
        (pair(input={"messages": [{"role": "robot"}]}), r"at `\$\.input\.messages\[0]`"),
        (
            pair(preferred_output=[{"role": "assistant", "content": "a", "weight": 0}]),
            "weight 0",
        ),
        ({"input": {"messages": turns("q")}}, "has 0 messages"),
    ],
)
def test_a_bad_row_is_refused_with_the_reason_and_the_place(row, reason):
    with pytest.raises(BadRow, match=reason):
        parse(row)


def test_a_reward_that_is_no_finite_number_is_refused():
    line = json.dumps(group(sample(evals={"score": 12345}), sample()))
    for text in ("1e999", "-1e999", "NaN", "Infinity"):
        with pytest.raises(BadRow):
            parse_row(line.replace("12345", text).encode())


@pytest.mark.parametrize(
    "row",
    [
        group(sample(SECRET), sample(SECRET, question=SECRET)),
        group(sample(SECRET), sample(evals={SECRET: SECRET})),
        group(sample(SECRET), sample(evals={SECRET: None})),
        group(sample(SECRET), sample(SECRET, logprobs=[9])),
        group(sample(SECRET), {"messages": turns(SECRET, SECRET)}),
        pair(preferred_output=turns(SECRET, SECRET)),
        pair(input={"messages": [{"role": SECRET, "content": SECRET}]}),
    ],
)
def test_no_reason_quotes_words_or_names_of_rewards(row):
    with pytest.raises(BadRow) as refusal:
        parse(row)
    assert SECRET not in str(refusal.value)


def test_groups_of_two_sizes_in_one_file_are_refused_with_their_line():
    rows = [GROUP, GROUP, group(sample(), sample(), sample()), GROUP]
    report = check_rows([b"\n".join(json.dumps(row).encode() for row in rows)])
    (problem,) = report.problems
    assert (problem.line, problem.reason) == (
        3,
        "has 3 samples; expected 2, as the first row has",
    )


def test_groups_and_preferences_do_not_mix():
    report = check_rows([json.dumps(GROUP).encode() + b"\n" + json.dumps(pair()).encode()])
    assert report.format is RowFormat.RL
    assert "is a PREFERENCE row in a file of RL rows" in report.problems[0].reason
