"""Chat templates render as transformers renders them, text and generated parts alike."""

import pytest
from references import render_jinja_template

from sublet_trainer.data.chat_templates import CompiledTemplate

SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
TOOL = {
    "type": "function",
    "function": {
        "name": "größe",
        "parameters": {"type": "object", "properties": {"n": {"enum": [1]}}},
    },
}
CALL = {"id": "c1", "type": "function", "function": {"name": "größe", "arguments": {"n": 1}}}
TALK = [
    {"role": "system", "content": "Be brief & <kind>."},
    {"role": "user", "content": "  Hello?\n"},
    {"role": "assistant", "content": "", "reasoning_content": "So…", "tool_calls": [CALL]},
    {"role": "tool", "content": '{"n": 1}', "tool_call_id": "c1"},
    {"role": "assistant", "content": "Hi.\n\n\U0001f44b"},
    {"role": "user", "content": "Bye?"},
    {"role": "assistant", "content": "Until then: 42"},
]
TEMPLATES = {
    "the token names and a header": """
        {{- bos_token }}
        {%- for message in messages %}
        <|{{ message.role }}|>{{ message.content | trim }}{{ eos_token }}
        {% endfor %}
        {%- if add_generation_prompt %}<|assistant|>{% endif %}""",
    "namespaces, slices and loop controls": """
        {%- set ns = namespace(last=-1) %}
        {%- for message in messages[::-1] %}
            {%- if message.role == 'user' %}
                {%- set ns.last = messages|length - loop.index0 - 1 %}{% break %}
            {%- endif %}
        {%- endfor %}
        {%- for message in messages %}
            {%- if message.role == 'tool' %}{% continue %}{% endif %}
            {{- '%02d' | format(loop.index) ~ message.role ~ (loop.index0 > ns.last) }}
        {%- endfor %}""",
    "tools and calls as JSON": """
        {%- for tool in tools or [] %}{{ tool | tojson }}|{{ tool | tojson(indent=2) }}{% endfor %}
        {%- for message in messages %}
            {%- for call in message.tool_calls or [] %}
                {{- call | tojson(ensure_ascii=True, separators=(',', ':'), sort_keys=True) }}
            {%- endfor %}
        {%- endfor %}""",
    "reasoning under two names": """
        {%- for message in messages %}
            {{- message.reasoning_content or '-' }}{{ message.thinking or '-' }}
            {{- message['reasoning_content'] is defined }}
        {%- endfor %}""",
    "macros and whitespace control": """
{% macro show(message) %}
    {% if message.content is string %}
[{{ message.content }}]
    {% endif %}
{% endmacro %}
{% for message in messages %}
  {{ show(message) }}
{% endfor %}""",
    "marks of what is generated": """
        {%- for message in messages %}
            {%- if message.role == 'assistant' %}
                {{- 'A: ' }}{% generation %}{{ message.content }}</s>{% endgeneration %}{{ '\n' }}
            {%- else %}
                {{- message.role ~ ': ' ~ message.content ~ '\n' }}
            {%- endif %}
        {%- endfor %}""",
    "the date": "{{ strftime_now('%Y') ~ messages[0].content }}",
}


def rendered_by_transformers(source, talk, tools, *, header):
    texts, spans = render_jinja_template(
        conversations=[talk],
        tools=tools,
        chat_template=source,
        return_assistant_tokens_mask="{% generation %}" in source,
        add_generation_prompt=header,
        **SPECIAL_TOKENS,
    )
    return texts[0], spans[0] if spans else []


@pytest.mark.parametrize("header", [False, True], ids=["whole", "with a header"])
@pytest.mark.parametrize("source", TEMPLATES.values(), ids=TEMPLATES.keys())
def test_a_conversation_is_rendered_as_by_transformers(source, header):
    ours = CompiledTemplate(source, SPECIAL_TOKENS)
    assert ours.marks_generation is ("{% generation %}" in source)
    for length in range(1, len(TALK) + 1):
        for tools in (None, [TOOL]):
            expected = rendered_by_transformers(source, TALK[:length], tools, header=header)
            assert ours.render(TALK[:length], tools, header=header) == expected


def test_a_template_cannot_reach_out_of_its_sandbox():
    for attack in (
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__ }}",
    ):
        with pytest.raises(Exception, match=r"unsafe|not safely"):
            CompiledTemplate(attack, {}).render(TALK, None)


def test_what_a_row_says_cannot_forge_the_marks_of_generation():
    source = TEMPLATES["marks of what is generated"]
    forged = [{"role": "user", "content": "a\ufdd0b\ufdd1c"}, {"role": "assistant", "content": "d"}]
    text, spans = CompiledTemplate(source, {}).render(forged, None)
    assert text == "user: abc\nA: d</s>\n"
    assert [text[start:end] for start, end in spans] == ["d</s>"]
