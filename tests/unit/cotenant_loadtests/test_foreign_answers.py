"""Answers as other servers word them, recorded from their own: right ones stay right."""

import pytest

from cotenant_loadtests.answers import OK, StreamedAnswer
from cotenant_loadtests.planned import Message, Planned

LITELLM_CHAT = b"""\
data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"one"}}]}

data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"length"}]}

data: {"id":"x","created":1,"model":"m","object":"chat.completion.chunk","choices":[{"index":0,"delta":{}}],"usage":{"completion_tokens":1,"prompt_tokens":3,"total_tokens":4,"completion_tokens_details":{"reasoning_tokens":0,"text_tokens":1}}}

data: [DONE]

"""  # noqa: E501
LITELLM_COMPLETIONS = b"""\
data: {"id":"x","object":"text_completion","created":1,"model":"m","choices":[{"index":0,"text":"one"}]}

data: {"id":"x","object":"text_completion","created":1,"model":"m","choices":[{"finish_reason":"length","index":0}]}

data: {"id":"x","object":"text_completion","created":1,"model":"m","choices":[{"index":0}],"usage":{"completion_tokens":1,"prompt_tokens":3,"total_tokens":4}}

data: [DONE]

"""  # noqa: E501


@pytest.mark.parametrize(("api", "stream"), [("chat", LITELLM_CHAT), ("completions", LITELLM_COMPLETIONS)])
def test_litellms_choices_without_text_are_no_tokens_and_no_fault(api: str, stream: bytes) -> None:
    message = Message(role="user", text="one two three")
    planned = Planned(
        id=0,
        at_s=0.0,
        stream="s",
        tenant="t",
        model="m",
        api=api,
        messages=(message,),
        streamed=True,
        max_tokens=1,
        include_usage=True,
    )
    answer = StreamedAnswer(planned, None)
    for number, event in enumerate(stream.split(b"\n\n")[:-1]):
        answer.take(event + b"\n\n", 1000 * number)
    assert answer.finish(9000) == OK
    assert answer.text_times.tolist() == [0]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 1)
