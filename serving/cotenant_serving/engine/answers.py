"""OpenAI's answer shapes and the gateway's usage notes, as bytes. Pure."""

from dataclasses import dataclass
from typing import Any

import msgspec
import orjson

from cotenant_serving.contract import USAGE_COMMENT, Usage
from cotenant_serving.engine.base import Delta, FinishReason
from cotenant_serving.openai_api import GenerateRequest, Kind

DONE = b"data: [DONE]\n\n"


def usage_comment(usage: Usage) -> bytes:
    """The comment that ends every stream, for the gateway: see `contract.USAGE_COMMENT`."""
    return USAGE_COMMENT + usage_json(usage) + b"\n\n"


def usage_json(usage: Usage) -> bytes:
    return msgspec.json.encode(usage)


def _usage_object(usage: Usage) -> dict[str, int]:
    total = usage.prompt_tokens + usage.completion_tokens
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": total,
    }


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """What all parts of one answer have in common. `created` is unix seconds."""

    kind: Kind
    id: str
    model: str
    created: int
    include_usage: bool = False

    def chunk(self, delta: Delta, *, first: bool) -> bytes:
        """One server-sent event."""
        choice: dict[str, Any] = {"index": 0}
        if self.kind == "chat":
            choice["delta"] = self._chat_delta(delta, first)
        else:
            choice["text"] = delta.text
        choice["logprobs"] = None
        choice["finish_reason"] = delta.finish_reason
        body = self._head(stream=True) | {"choices": [choice]}
        if self.include_usage:
            body["usage"] = None
        return _event(body)

    @staticmethod
    def _chat_delta(delta: Delta, first: bool) -> dict[str, str]:
        if first:
            return {"role": "assistant", "content": delta.text}
        return {"content": delta.text} if delta.text else {}

    def end(self, usage: Usage) -> bytes:
        """Everything after the last chunk of a complete stream: to be sent in one write."""
        chunk = b""
        if self.include_usage:
            chunk = _event(self._head(stream=True) | {"choices": [], "usage": _usage_object(usage)})
        return chunk + usage_comment(usage) + DONE

    def whole(self, text: str, finish_reason: FinishReason | None, usage: Usage) -> bytes:
        """The body of an answer that is not streamed."""
        choice: dict[str, Any] = {"index": 0}
        if self.kind == "chat":
            choice["message"] = {"role": "assistant", "content": text, "refusal": None}
        else:
            choice["text"] = text
        choice["logprobs"] = None
        choice["finish_reason"] = finish_reason
        return orjson.dumps(self._head(stream=False) | {"choices": [choice], "usage": _usage_object(usage)})

    def _head(self, *, stream: bool) -> dict[str, Any]:
        kinds = {"chat": "chat.completion.chunk" if stream else "chat.completion", "completion": "text_completion"}
        return {"id": self.id, "object": kinds[self.kind], "created": self.created, "model": self.model}


def answer_form(request: GenerateRequest, request_id: str, created: int) -> AnswerForm:
    prefix = "chatcmpl-" if request.kind == "chat" else "cmpl-"
    return AnswerForm(request.kind, prefix + request_id, request.model, created, request.include_usage)


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"
