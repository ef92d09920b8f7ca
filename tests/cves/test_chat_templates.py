"""Chat templates are programs of whoever made the model. The real rendering: no way out, and an end in time."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.builders.engine import CHAT_TEMPLATE, generate_args, make_tiny_llama

from cotenant_serving.contract import Reason
from cotenant_serving.engine.base import LoadError
from cotenant_serving.engine.chat_template import check_template, render
from cotenant_serving.engine.generate import GenerateEngine
from cotenant_serving.engine.timed_thread import TimedThread
from cotenant_serving.openai_api import ChatMessage, GenerateRequest, RequestError

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

REQUEST = GenerateRequest(kind="chat", model="m", messages=(ChatMessage("user", "{{ 7 * 7 }} {% raw %}"),))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(make_tiny_llama(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def thread() -> Iterator[TimedThread]:
    made = TimedThread("template")
    yield made
    made.close()


async def rendered(tokenizer: Any, template: str, thread: TimedThread, most_s: float = 60.0) -> str:
    """The prompt, or the message of the refusal."""
    tokenizer.chat_template = template
    check_template(template)
    try:
        return await thread.run(lambda: render(tokenizer, REQUEST, thread, most_s))
    except RequestError as refused:
        return f"{refused.status} {refused.code}: {refused.message}"


ESCAPES = (
    "''.__class__.__mro__[1].__subclasses__()",
    "messages.__class__.__base__.__subclasses__()",
    "raise_exception.__globals__['os'].mkdir(MARKER)",
    "strftime_now.__globals__.__builtins__.__import__('os').mkdir(MARKER)",
    "self.__init__.__globals__.__builtins__.open(MARKER, 'w')",
    "self._TemplateReference__context.environment.globals",
    "cycler.__init__.__globals__.os.mkdir(MARKER)",
    "lipsum.__globals__['os'].mkdir(MARKER)",
    "namespace.__init__.__globals__",
    "joiner.__init__.__globals__.os.popen('mkdir ' + MARKER)",
    "dict.__base__.__subclasses__()",
    "('%s' | format)|attr('__class__')|attr('__mro__')",
    "('{0.__class__.__init__.__globals__[os]}').format(raise_exception)",
    "[messages]|map(attribute='__class__.__mro__')|list",
    "messages.append(1)",
    "messages[0].update({'role': 'system'})",
    "messages|tojson(__import__('os').mkdir(MARKER))",
)


@pytest.mark.parametrize("expression", ESCAPES)
async def test_a_template_gets_at_nothing_but_its_messages(
    expression: str, tokenizer: Any, thread: TimedThread, tmp_path: Path
) -> None:
    """CVE-2026-5760 (SGLang: the chat template of a GGUF file was rendered by a plain Jinja environment, which is
    code execution), and vLLM's CVE-2026-115911. Breaks when templates are rendered outside Jinja's sandbox."""
    marker = tmp_path / "executed"
    text = await rendered(tokenizer, "{{ " + expression.replace("MARKER", repr(str(marker))) + " }}", thread)
    refused = text.startswith("400 chat_template_error")
    assert refused or not any(word in text for word in ("<class", "<module", "<function", "builtins", "'sys'"))
    assert not marker.exists()


async def test_a_message_is_text_and_no_template(tokenizer: Any, thread: TimedThread) -> None:
    """CVE-2026-115918 (vLLM: templates out of the request): what a client writes is not rendered."""
    assert "{{ 7 * 7 }} {% raw %}" in await rendered(tokenizer, CHAT_TEMPLATE, thread)


LOOPS = (
    "{% for a in r %}{% for b in r %}{% for c in r %}{% endfor %}{% endfor %}{% endfor %}",
    "{% macro f() %}{% for a in r %}{{ f() }}{% endfor %}{% endmacro %}{{ f() }}",
    "{% set n = namespace(x='a') %}{% for a in r %}{% for b in r %}{% set n.x = n.x[:9] %}{% endfor %}{% endfor %}",
    "{% for a in messages * 99999 %}{% for b in r %}{{ a.role if a.role is defined }}{% endfor %}{% endfor %}",
)


@pytest.mark.parametrize("template", LOOPS)
async def test_a_template_that_does_not_end_is_ended_and_the_next_one_is_rendered(
    template: str, tokenizer: Any, thread: TimedThread
) -> None:
    """CVE-2026-5760's other half, and CVE-2025-62426 (a template's parameters kept vLLM's only thread busy for
    everybody): the request ends with a 400, and the thread is free again. Without the bound this test never ends."""
    refused = await rendered(tokenizer, "{% set r = range(99999) %}" + template, thread, 0.5)
    assert refused.startswith("400 chat_template_error")
    assert "assistant" in await rendered(tokenizer, CHAT_TEMPLATE, thread)


async def test_work_that_ends_in_time_is_never_broken_off() -> None:
    """The other side of the test before: the end of a part and the look at its deadline may fall together."""
    late = TimedThread("late", clock=lambda: time.monotonic() + late_by)
    late_by = 0.0
    loop = asyncio.get_running_loop()
    for number in range(2000):
        late_by = 0.0
        done = asyncio.ensure_future(late.run(lambda: late.within(1.0, lambda: sum(range(200)))))
        late_by = 10.0 * (number % 2)
        late._look(loop)
        try:
            assert await done == sum(range(200))
        except TimeoutError:
            assert late_by
        assert await late.run(lambda: "still here") == "still here"
    late.close()


@pytest.mark.parametrize(
    "template", ["{{ 9 ** 9 ** 9 }}", "{% set x = (2)**(10 ** 9) %}", "{%- if messages|length ** 2 -%}{% endif %}"]
)
def test_a_template_with_a_power_is_not_loaded(template: str) -> None:
    """CVE-2026-5760: `9 ** 9 ** 9` is a single operation that nothing can break off."""
    for form in (template, {"default": CHAT_TEMPLATE, "tool_use": template}):
        with pytest.raises(LoadError) as refused:
            check_template(form)
        assert refused.value.reason is Reason.UNSAFE_FILES


@pytest.mark.parametrize(
    "template",
    [
        None,
        CHAT_TEMPLATE,
        "{{ '**bold**' }} 2 ** 3",
        "{# a ** b #}",
        "{{ f(**x) }}{{ g(1, **x) }}",
        "{% broken",
        "{{ 3 * 3 }}",
    ],
)
def test_other_templates_are_loaded(template: str | None) -> None:
    """Stars in texts, comments and options are no powers; a template that is no template says so when it is used."""
    check_template(template)


async def test_a_prompt_that_the_template_makes_huge_is_not_tokenized(tmp_path: Path) -> None:
    """CVE-2026-5760: the engine has memory for its context and no more; what a template adds counts too."""
    folder = make_tiny_llama(tmp_path / "m", chat_template="{{ 'a' * 50000000 }}")
    engine = GenerateEngine(generate_args(folder))
    await asyncio.to_thread(engine.load, lambda *_, **__: None)
    try:
        with pytest.raises(RequestError) as refused:
            await engine.encode(REQUEST)
        assert refused.value.code == "context_length_exceeded"
    finally:
        engine.close()
