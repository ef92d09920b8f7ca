"""Chat templates: programs in Jinja that come with the model. Run in Jinja's sandbox, and here within bounds."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from cotenant_serving.contract import Reason
from cotenant_serving.engine.base import LoadError
from cotenant_serving.engine.timed_thread import TimedThread
from cotenant_serving.openai_api import GenerateRequest, RequestError

TEMPLATE_TIMEOUT_S = 5.0
"""Of one rendering. Real ones take milliseconds."""


def check_template(template: Any) -> None:
    """`tokenizer.chat_template`: None, a template or several by name.

    Raises LoadError for powers: `9 ** 9 ** 9` is one operation in C, which no bound on time can break off.
    """
    texts = template.values() if isinstance(template, Mapping) else [template]
    if any(_has_power(text) for text in texts if isinstance(text, str)):
        raise LoadError(
            Reason.UNSAFE_FILES,
            "the model's chat template has the operator **, which no template needs and which can take for ever. "
            "Take it out of a local copy, if you trust the rest.",
        )


def render(tokenizer: Any, request: GenerateRequest, thread: TimedThread, most_s: float = TEMPLATE_TIMEOUT_S) -> str:
    """Messages → prompt. Called in the thread. Raises RequestError (400)."""
    if not tokenizer.chat_template:
        raise RequestError(
            400,
            f"Model {request.model!r} has no chat template; send its text to /v1/completions instead.",
            param="messages",
            code="no_chat_template",
        )
    messages = [{"role": message.role, "content": message.content} for message in request.messages]
    rendering = partial(tokenizer.apply_chat_template, messages, add_generation_prompt=True, tokenize=False)
    try:
        text: str = thread.within(most_s, rendering)
    except TimeoutError:
        raise _refusal(f"took more than {most_s:g} s for these messages. Send fewer") from None
    except Exception as error:  # jinja's errors, and whatever an expression of the template raises
        raise _refusal(f"refuses these messages: {error}. Change their roles or their order") from error
    return text


def _refusal(what: str) -> RequestError:
    return RequestError(400, f"The model's chat template {what}.", param="messages", code="chat_template_error")


def _has_power(template: str) -> bool:
    """Whether two values have ** between them; in `f(**options)` it stands behind a bracket or a comma."""
    before = ""
    for part in _parts(template):
        if part == "**" and before not in ("(", ","):
            return True
        before = part
    return False


def _parts(template: str) -> Iterator[str]:
    import jinja2

    try:
        for _, kind, text in jinja2.Environment().lex(template):  # noqa: S701  # nothing is rendered
            if kind not in ("whitespace", "comment", "data"):
                yield text
    except jinja2.TemplateSyntaxError:
        return  # every rendering will say so
