"""Which tokens of a row are trained on."""

import json
from dataclasses import replace

import pytest
from references import AutoTokenizer

from sublet.errors import FailedPrecondition
from sublet.rows import BadRow, parse_row
from sublet_trainer.data.base_tokenizer import BaseTokenizer
from sublet_trainer.data.documents import Tokeniser

MARKED_CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
)
MARKLESS_CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
FORGETFUL = (
    "{% for message in messages %}{% if message['role'] == 'user' or loop.last %}"
    "{{ message['role'] + ': ' + message['content'] + '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def turn(role, content, **more):
    return {"role": role, "content": content, **more}


TALK = [
    turn("system", "Be brief."),
    turn("user", "Hello?"),
    turn("assistant", "Hi."),
    turn("user", "Bye?"),
    turn("assistant", "  Until\n\nthen: 42  "),
]


@pytest.fixture
def tokenizer(models):
    return BaseTokenizer.load(models / "tiny-random")


@pytest.fixture
def theirs(models):
    """The same tokenizer as transformers has it."""
    return AutoTokenizer.from_pretrained(models / "tiny-random")


def with_template(tokenizer, source):
    return replace(tokenizer, chat_templates={"default": source})


def document(tokenizer, row, max_tokens=1000):
    tokeniser = Tokeniser(tokenizer, max_tokens=max_tokens)
    return tokeniser.documents([tokeniser.render(parse_row(json.dumps(row).encode()))])[0]


def decoded(tokenizer, ids):
    return tokenizer.backend.decode(ids.tolist(), skip_special_tokens=False)


def supervised_text(tokenizer, document):
    return decoded(tokenizer, document.ids_T[document.is_supervised_T])


def test_a_conversation_is_tokenised_as_its_chat_template_renders_it(tokenizer, theirs):
    expected = theirs.apply_chat_template(TALK, return_dict=False)
    assert document(tokenizer, {"messages": TALK}).ids_T.tolist() == expected


def test_every_assistant_turn_is_supervised_with_its_end_and_nothing_else_is(tokenizer):
    text = supervised_text(tokenizer, document(tokenizer, {"messages": TALK}))
    assert text == "Hi.<|im_end|>  Until\n\nthen: 42  <|im_end|>"


def test_the_end_of_turn_is_learnt_although_it_is_also_the_padding_token(tokenizer, theirs):
    assert theirs.pad_token_id == theirs.eos_token_id == tokenizer.end_id
    found = document(tokenizer, {"messages": TALK})
    ends = found.ids_T[found.is_supervised_T] == tokenizer.end_id
    assert ends.sum() == 2


def test_a_turn_of_weight_0_stays_in_the_context_and_out_of_the_loss(tokenizer):
    talk = [*TALK[:2], turn("assistant", "Hi.", weight=0), *TALK[3:]]
    found = document(tokenizer, {"messages": talk})
    assert supervised_text(tokenizer, found) == "  Until\n\nthen: 42  <|im_end|>"
    assert found.ids_T.tolist() == document(tokenizer, {"messages": TALK}).ids_T.tolist()


@pytest.mark.parametrize("weight", [0, 1])
def test_a_template_that_marks_generation_gives_the_same_mask_as_its_prefixes(tokenizer, weight):
    row = {"messages": [*TALK[:2], turn("assistant", "Hi.", weight=weight), *TALK[3:]]}
    by_prefix = document(tokenizer, row)
    tokenizer = with_template(tokenizer, MARKED_CHATML)
    by_mark = document(tokenizer, row)
    assert by_mark.ids_T.tolist() == by_prefix.ids_T.tolist()
    assert by_mark.is_supervised_T.tolist() == by_prefix.is_supervised_T.tolist()


def test_a_template_that_changes_earlier_turns_is_told_of_without_quoting_them(tokenizer):
    tokenizer = with_template(tokenizer, FORGETFUL)
    with pytest.raises(BadRow, match="changes earlier turns") as refusal:
        document(tokenizer, {"messages": TALK})
    assert "Hi." not in str(refusal.value)


THINKING = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if loop.last and message['role'] == 'assistant' %}"
    "{{ '<think>' + (message['reasoning_content'] or '') + '</think>' }}{% endif %}"
    "{{ message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_a_conversation_whose_earlier_turns_change_is_unrolled_into_one_for_each_answer(tokenizer):
    """As Qwen3 does: what was thought is shown of the last turn alone."""
    talk = [*TALK[:2], turn("assistant", "Hi.", reasoning_content="polite"), *TALK[3:]]
    tokeniser = Tokeniser(with_template(tokenizer, THINKING), max_tokens=1000)
    parsed = parse_row(json.dumps({"messages": talk}).encode())
    found = tokeniser.documents(tokeniser.renderings(parsed, line=7))
    assert [supervised_text(tokenizer, one) for one in found] == [
        "<think>polite</think>Hi.<|im_end|>",
        "<think></think>  Until\n\nthen: 42  <|im_end|>",
    ]
    assert "polite" not in decoded(tokenizer, found[1].ids_T)
    assert [one.line for one in found] == [7, 7]


def test_a_conversation_that_one_rendering_shows_whole_is_not_unrolled(tokenizer):
    tokeniser = Tokeniser(tokenizer, max_tokens=1000)
    parsed = parse_row(json.dumps({"messages": TALK}).encode())
    assert tokeniser.renderings(parsed) == [tokeniser.render(parsed)]


ASKS_TO_THINK = MARKLESS_CHATML + "{% if add_generation_prompt %}{{ '<think>\n' }}{% endif %}"


def test_an_answer_that_does_not_think_where_it_is_asked_to_is_learnt_all_the_same(tokenizer):
    """As DeepSeek's templates ask; what the prompt and the answer share is the prompt's."""
    found = document(with_template(tokenizer, ASKS_TO_THINK), {"messages": TALK})
    assert supervised_text(tokenizer, found) == "Hi.<|im_end|>  Until\n\nthen: 42  <|im_end|>"


def test_arguments_of_a_tool_call_reach_the_template_as_an_object(tokenizer):
    """In a row they are text; quoted once more they would be learnt so, and served otherwise."""
    source = (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
        "{% for call in message['tool_calls'] or [] %}{{ call['function'] | tojson }}{% endfor %}"
        "{{ (message['content'] or '') + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    function = {"name": "add", "arguments": '{"a": 1, "b": [2]}'}
    call = {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]}
    found = document(with_template(tokenizer, source), {"messages": [turn("user", "1+2?"), call]})
    said = '{"name": "add", "arguments": {"a": 1, "b": [2]}}<|im_end|>'
    assert supervised_text(tokenizer, found) == said


def test_what_a_template_complains_about_is_not_repeated(tokenizer):
    tokenizer = with_template(
        tokenizer, "{{ raise_exception('I dislike ' + messages[0]['content']) }}"
    )
    with pytest.raises(BadRow) as refusal:
        document(tokenizer, {"messages": TALK})
    assert str(refusal.value) == "is refused by the base model's chat template"


def test_a_completion_row_learns_the_completion_and_when_to_stop(tokenizer):
    found = document(tokenizer, {"prompt": "1+1=", "completion": "2"})
    assert decoded(tokenizer, found.ids_T) == "1+1=2<|im_end|>"
    assert supervised_text(tokenizer, found) == "2<|im_end|>"


def test_the_first_token_is_never_supervised_because_nothing_predicts_it(tokenizer):
    found = document(tokenizer, {"prompt": "", "completion": "2+2"})
    assert supervised_text(tokenizer, found) == "+2<|im_end|>"


def test_a_document_longer_than_the_context_loses_its_end_and_says_so(tokenizer):
    whole = document(tokenizer, {"messages": TALK})
    found = document(tokenizer, {"messages": TALK}, max_tokens=60)
    assert found.ids_T.tolist() == whole.ids_T[:60].tolist()
    assert (found.is_truncated, whole.is_truncated) == (True, False)


def test_tool_turns_and_part_lists_reach_the_template(tokenizer):
    tokenizer = with_template(
        tokenizer,
        "{% for m in messages %}[{{ m.role }}:{{ m.content }}"
        "{% for call in m.tool_calls or [] %}!{{ call.function.name }}{% endfor %}]{% endfor %}"
        "{% if add_generation_prompt %}[assistant:{% endif %}",
    )
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    talk = [
        turn("user", [{"type": "text", "text": "1"}, {"type": "text", "text": "+1"}]),
        {"role": "assistant", "tool_calls": [call]},
        turn("tool", "2", tool_call_id="c1"),
        turn("assistant", "two"),
    ]
    found = document(tokenizer, {"messages": talk})
    assert decoded(tokenizer, found.ids_T) == "[user:1+1][assistant:!add][tool:2][assistant:two]"
    assert supervised_text(tokenizer, found) == "!add]two]"


def test_chat_rows_need_a_chat_template(tokenizer):
    tokenizer = replace(tokenizer, chat_templates={})
    with pytest.raises(FailedPrecondition, match="no chat template"):
        document(tokenizer, {"messages": TALK})
