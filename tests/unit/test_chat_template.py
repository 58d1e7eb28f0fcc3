"""Chat templates of strangers: rendered as Hugging Face's libraries do, and never without an end."""

import json
from pathlib import Path

import pytest

from engines.generation.chat_template import ChatTemplate, check_template, template_of
from schemas.errors import ModelError, PipelineError
from tests.language import TEMPLATE

jinja2 = pytest.importorskip("jinja2")
HELLO = [{"role": "user", "content": "Hello"}]
CHATML = """{%- if messages[0]['role'] != 'system' -%}
    {{ '<|system|>' + 'Be kind.' ~ eos_token }}
{%- endif -%}
{% for message in messages if message.role in ['user', 'assistant'] %}
    {% if not loop.first and loop.index0 > 90 %}{% break %}{% endif %}
{{- '<|' ~ message['role'] ~ '|>' ~ message['content'] | trim ~ eos_token }}
{% endfor %}
{%- set ns = namespace(tools=[{'name': 'x'}]) %}
{%- if strftime_now is defined %}{{ strftime_now('%d') }}{% endif %}
{%- if add_generation_prompt %}{{ ns.tools | tojson }}{{ '<|assistant|>' }}{% endif %}"""


def test_a_conversation_becomes_text() -> None:
    template = ChatTemplate(CHATML, {"eos_token": "</s>"}, "m")
    given = [{"role": "user", "content": " Grüße \n"}, {"role": "assistant", "content": "1"}, *HELLO]
    assert template.text(given) == (
        '<|system|>Be kind.</s><|user|>Grüße</s>\n<|assistant|>1</s>\n<|user|>Hello</s>\n[{"name": "x"}]<|assistant|>'
    )


def test_it_is_found_where_models_have_it() -> None:
    both = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "{{ bos_token }}!"}]
    settings = {"chat_template": both, "bos_token": {"content": "<s>"}}
    template = template_of({"tokenizer_config.json": json.dumps(settings).encode()}, "m")
    assert template is not None
    assert template.text(HELLO) == "<s>!"
    assert template_of({"chat_template.jinja": b"", "tokenizer_config.json": b"{}"}, "m") is None
    assert template_of({}, "m") is None
    for broken in (b"[1]", b"null", b"{", b"\xff"):
        for beside in ({}, {"chat_template.jinja": b"x"}):
            with pytest.raises(ModelError, match="cannot be read"):
                template_of({"tokenizer_config.json": broken, **beside}, "m")


LONG = "it makes a text of more than"
STEPS = "it does not end within 300,000 steps"
NESTED = "{{% set s = namespace(x=1) %}}{{% for i in range(60) %}}{{% set s.x = {} %}}{{% endfor %}}"
ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (ENDLESS, "it does not end within 300,000 steps"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{% for i in range(99999) %}{{ messages[0].content * 10000 }}{% endfor %}", LONG),
        ("{% set s = namespace(x='a') %}{% for i in range(60) %}{% set s.x = s.x ~ s.x %}{% endfor %}", LONG),
        ("{% set s = namespace(x='a') %}{% for i in range(60) %}{% set s.x = s.x + s.x %}{% endfor %}", LONG),
        ("{{ ['a' * 4000000] * 4000 }}", LONG),
        ("{{ ([['a' * 4000000] * 1000] | string)[:9] }}", LONG),
        ("{{ (['a' * 4000000] * 1000) | join }}", LONG),
        ("{{ (['a' * 4000000] * 1000) | tojson }}", LONG),
        ("{{ 'aaaa'.replace('a', 'b' * 4000000) }}", LONG),
        ("{{ ('a' * 4000) | replace('a', 'b' * 4000) }}", LONG),
        ("{{ 9 ** 9 ** 9 }}", "it uses"),
        ("{{ '%1000000000d' % 1 }}", "it uses %"),
        ("{{ 'x'.center(10000000000) }}", "unsafe"),
        ("{{ '{:>9999999999}'.format(1) }}", "unsafe"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ tools.first.name }}", "'tools' is undefined"),
        (
            "{% set s = namespace(n=10) %}{% for i in range(99) %}{% set s.n = s.n * s.n %}{% endfor %}",
            "numbers that are too large",
        ),
        (NESTED.format("[s.x, s.x]") + "{{ s.x == s.x | list }}", STEPS),
        ("{% for i in range(99999) %}{% set x = ('a' * 4000000) | upper %}{% endfor %}", STEPS),
        ("{% for i in range(99999) %}{% set x = ('a' * 4000000)[::-1] %}{% endfor %}", STEPS),
        ("{% set a = 'a' * 4000000 %}{% for i in range(99999) %}{% set x = 'b' in a %}{% endfor %}", STEPS),
        ("{{ ([range(99999) | list] * 4000) | sum(start=[]) }}", LONG),
        ("{{ 1.5 | round(999999999, 'ceil') }}", "rounds up or down"),
    ],
    ids=range(27),
)
def test_what_a_template_may_not_do_is_an_error_in_words(source: str, reason: str) -> None:
    with pytest.raises(PipelineError, match="model m cannot put the messages into its chat template: ") as error:
        ChatTemplate(source, {}, "m").text(HELLO)
    assert reason in str(error.value)


@pytest.mark.parametrize("source", ["{% for", "{{ x | batch(2) }}", "{{ x | center(99999999999) }}", "{{ " + "(" * 999])
def test_a_template_that_is_no_program_is_refused(source: str) -> None:
    with pytest.raises(ModelError, match="its chat template is damaged"):
        ChatTemplate(source, {}, "m")


def test_a_folder_with_an_endless_template_is_refused(tmp_path: Path) -> None:
    check_template(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE)
    check_template(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('I want a picture') }}")
    check_template(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(ENDLESS)
    with pytest.raises(ModelError, match="does not end within 300,000 steps"):
        check_template(tmp_path)
