"""Templates are programs of strangers: what they take is bounded, and nothing else changes."""

import types

import pytest
from refusals import refused

from jaxalign.data.text import chats
from jaxalign.errors import InputError

TURNS = [{"role": "user", "content": "Zoë says: \ud83d"}]
LOOP = "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}"
MACRO = "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}"


def render(template, **options):
    tokenizer = types.SimpleNamespace(
        get_chat_template=lambda: template, special_tokens_map={"bos_token": "<s>"}
    )
    return chats.render(tokenizer, [TURNS, TURNS], source="model m", **options)


def test_chats_by_hand():
    template = "{{ bos_token }}{% for x in messages %}{{ x['content'] }}{% endfor %}"
    assert render(template) == ["<s>Zoë says: \ud83d"] * 2
    template += "{% if add_generation_prompt %}?{% endif %}"
    assert render(template, ask=True) == ["<s>Zoë says: \ud83d?"] * 2


@pytest.mark.parametrize("template", ["{{ 'x' * 10**9 }}", "{{ 'x' | center(10**9) }}"])
def test_memory_is_bounded(template):
    with refused("model m: the chat template must be a short program", "512 MB of memory"):
        render(template)


def test_what_is_written_is_bounded():
    with refused("model m: the chat template", "more than 10,000,000 characters"):
        render("{{ 'x' * 10**7 }}")


@pytest.mark.parametrize("template", [MACRO, "{{ nothing.at.all }}", "{% for %}"])
def test_a_template_that_fails_is_an_error_in_one_line(template):
    with pytest.raises(chats.TemplateError, match="must take these turns: [^\n]+$"):
        render(template)


@pytest.mark.slow
@pytest.mark.parametrize("template", [LOOP, "{{ 7 ** (10 ** 9) }}"])
def test_time_is_bounded(monkeypatch, template):
    monkeypatch.setattr(chats, "SECONDS", 1)
    with pytest.raises(InputError, match="a short program, but it takes more than 1 s"):
        render(template)
    assert render("good") == ["good"] * 2
