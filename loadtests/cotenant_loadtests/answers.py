"""Reading one answer while it comes. `take` is the hot path: once for each piece of the body."""

from array import array
from collections.abc import Callable
from typing import Any

import msgspec

from cotenant_loadtests import answer_shapes as shapes
from cotenant_loadtests.checks import (
    EchoAnswer,
    Finding,
    check_embeddings,
    check_inference,
    check_usage,
    code_of,
    decoding_finding,
    error_code,
    is_utf8,
    same_model,
    short_word,
    status_outcome,
)
from cotenant_loadtests.event_stream import EventStream, EventTooLargeError, NotAnEventError
from cotenant_loadtests.planned import Planned

MAX_ERROR_BYTES = 64 * 1024
"""Of an error's body, kept to find its code."""
MAX_ANSWER_BYTES = 64 << 20
"""Of a stream with its framing. A model's longest, a token a chunk with all its JSON, has some 30 MB."""
MAX_WHOLE_BYTES = 32 << 20
"""Of any other answer: it is kept until it is whole, and decoded at once, which takes a multiple of it."""
OK = Finding("ok")
_DONE = b"[DONE]"
_CHAT_EVENT = msgspec.json.Decoder(shapes.ChatEvent).decode
_COMPLETION_EVENT = msgspec.json.Decoder(shapes.CompletionEvent).decode
_CHAT = msgspec.json.Decoder(shapes.ChatAnswer).decode
_COMPLETION = msgspec.json.Decoder(shapes.CompletionAnswer).decode
_EMBEDDINGS = msgspec.json.Decoder(shapes.Embeddings).decode
_INFERENCE = msgspec.json.Decoder(shapes.Inference).decode


class HangUpError(Exception):
    """Enough of this answer: hang up."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.outcome)
        self.finding = finding


class Answer:
    """One answer. Times are as `take` is given them, nanoseconds."""

    __slots__ = ("server_timing", "text_times", "usage")
    most_bytes = MAX_WHOLE_BYTES

    def __init__(self) -> None:
        self.text_times = array("q")
        """When each event with text came; of a whole answer, when it was whole."""
        self.usage: shapes.Usage | None = None
        self.server_timing = b""
        """What a comment in the stream said of it."""

    @property
    def held_bytes(self) -> int:
        """Kept of it until it ends."""
        return 0

    def take(self, piece: bytes, now_ns: int) -> None:
        """Raises HangUpError."""
        raise NotImplementedError

    def finish(self, now_ns: int) -> Finding:
        """The body is whole."""
        raise NotImplementedError


def read_answer(planned: Planned, status: int, expected: EchoAnswer | None, content_type: bytes) -> Answer:
    if status != 200:
        return ErrorAnswer(status)
    if planned.streamed:
        return StreamedAnswer(planned, expected, content_type)
    return WholeAnswer(planned, expected)


class ErrorAnswer(Answer):
    __slots__ = ("_body", "_status")

    def __init__(self, status: int) -> None:
        super().__init__()
        self._status = status
        self._body = bytearray()

    def take(self, piece: bytes, now_ns: int) -> None:
        self._body += piece[: MAX_ERROR_BYTES - len(self._body)]

    def finish(self, now_ns: int) -> Finding:
        outcome = status_outcome(self._status)
        assert outcome is not None
        return Finding(outcome, error_code(bytes(self._body)))


class StreamedAnswer(Answer):
    """Server-sent events of chat and completions.

    Nearly every piece is one event in one line; those are told apart by three looks at the bytes, the rest goes
    through `EventStream`. Decoding at once costs less than keeping the bytes.
    """

    __slots__ = (
        "_after_error",
        "_at",
        "_cancel_after",
        "_decode",
        "_done",
        "_events",
        "_expected",
        "_finding",
        "_model",
        "_plain",
        "_planned",
    )
    most_bytes = MAX_ANSWER_BYTES

    def __init__(self, planned: Planned, expected: EchoAnswer | None, content_type: bytes = b"") -> None:
        super().__init__()
        self._planned = planned
        self._decode: Callable[[bytes], Any] = _CHAT_EVENT if planned.api == "chat" else _COMPLETION_EVENT
        self._cancel_after = planned.cancel_after_tokens or -1
        self._expected, self._at = expected, 0
        self._model = planned.model
        self._events = EventStream()
        self._plain = True
        """No event is under way, `[DONE]` has not come, and nothing was wrong."""
        self._done = False
        self._finding: Finding | None = None
        self._after_error = False
        """Something came after what was wrong."""
        if content_type.startswith(b"application/json") and planned.check != "none":
            self._finding = Finding("bad_event", "application/json")

    @property
    def held_bytes(self) -> int:
        return len(self._events.rest) + self.text_times.itemsize * len(self.text_times)

    def take(self, piece: bytes, now_ns: int) -> None:
        if self._plain and piece.startswith(b"data: {") and piece.endswith(b"}\n\n") and piece.count(b"\n") == 2:
            self._take_event(piece[6:-2], now_ns)
        else:
            self._take_pieces(piece, now_ns)

    def finish(self, now_ns: int) -> Finding:
        try:
            for data in self._whole_events(self._events.end):
                self._take_data(data, now_ns)
        except HangUpError as ended:
            return ended.finding
        if self._planned.check == "none":
            return OK
        return self._what_ended_it() or self._final_finding() or OK

    def _take_event(self, data: bytes, now_ns: int) -> None:
        try:
            event = self._decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
            self._take_odd_event(data, problem, now_ns)
            return
        if not data.isascii() and not is_utf8(data):
            self._end(Finding("bad_utf8"))
        if event.model != self._model:
            self._judge_model(event.model)
        if event.usage is not None:
            self.usage = event.usage
        if event.error is not None:
            self._find(Finding("error_event", code_of(event.error)))
        for choice in event.choices:
            if text := choice.text:
                times = self.text_times
                times.append(now_ns)
                if self._expected is not None:
                    self._compare(self._expected.text, text)
                if len(times) == self._cancel_after:
                    raise HangUpError(self._finding or Finding("cancelled"))
                return

    def _take_pieces(self, piece: bytes, now_ns: int) -> None:
        for data in self._whole_events(lambda: self._events.feed(piece)):
            self._take_data(data, now_ns)
        self.server_timing = self._events.server_timing
        self._plain = not self._events.rest and not self._done and self._finding is None

    def _take_data(self, data: bytes | None, now_ns: int) -> None:
        if data is None and self._expected is None:
            return  # only of cotenant's own echo engine nothing at all may follow the end
        self._after_error = self._after_error or self._finding is not None
        if self._done:
            self._end(Finding("after_done"))
        elif data is None:
            pass
        elif data.strip() == _DONE:
            self._done = True
        else:
            self._take_event(data, now_ns)

    def _whole_events(self, read: Callable[[], list[bytes | None]]) -> list[bytes | None]:
        try:
            events = read()
        except EventTooLargeError:
            raise HangUpError(Finding("too_large", "event")) from None
        except NotAnEventError:
            self._end(Finding("bad_event", "line"))
            return []
        if self._events.leaked and self._expected is not None:
            self._find(Finding("bad_event", "internal_comment"))
        return events

    def _take_odd_event(self, data: bytes, problem: Exception, now_ns: int) -> None:
        """No event of the API: an error, or nonsense."""
        if self._planned.check == "none":
            self.text_times.append(now_ns)
            return
        finding = decoding_finding(data, problem, "bad_event")
        if finding.outcome == "bad_event" and (error := _error_in(data)) is not None:
            self._find(Finding("error_event", code_of(error)))
        else:
            self._end(finding)

    def _judge_model(self, model: str) -> None:
        if same_model(self._planned.model, model, exactly=self._expected is not None):
            self._model = model
        else:
            self._find(Finding("wrong_model", short_word(model)))

    def _compare(self, expected: str, text: str) -> None:
        if not expected.startswith(text, self._at):
            self._find(Finding("wrong_answer", f"token {len(self.text_times)}"))
        self._at += len(text)

    def _find(self, finding: Finding) -> None:
        """The first thing that is wrong counts."""
        self._finding = self._finding or finding
        self._plain = False

    def _end(self, finding: Finding) -> None:
        """What follows means nothing any more."""
        if self._planned.check != "none":
            raise HangUpError(self._what_ended_it() or finding)

    def _what_ended_it(self) -> Finding | None:
        """An error should be the last event. Some servers send `[DONE]` after it: told, but no failure of its own."""
        finding = self._finding
        if finding is None or finding.outcome != "error_event" or not self._after_error:
            return finding
        return Finding(finding.outcome, f"{finding.detail or 'error'}, then {'[DONE]' if self._done else 'more'}")

    def _final_finding(self) -> Finding | None:
        if not self._done:
            return Finding("no_done")
        if not self.text_times:
            return Finding("empty")
        expected = self._expected
        if expected is not None and self._at != len(expected.text):
            return Finding("wrong_answer", "length")
        if self.usage is None and not self._planned.include_usage:
            return None
        return check_usage(self.usage, expected.tokens if expected else None)


class WholeAnswer(Answer):
    """One JSON body."""

    __slots__ = ("_body", "_expected", "_planned")

    def __init__(self, planned: Planned, expected: EchoAnswer | None) -> None:
        super().__init__()
        self._planned, self._expected = planned, expected
        self._body = bytearray()  # a list of pieces of two bytes would take forty times as much

    @property
    def held_bytes(self) -> int:
        return len(self._body)

    def take(self, piece: bytes, now_ns: int) -> None:
        self._body += piece

    def finish(self, now_ns: int) -> Finding:
        body, self._body = self._body, bytearray()
        self.text_times.append(now_ns)
        finding = self._judge(body)
        return OK if self._planned.check == "none" else finding

    def _judge(self, body: bytearray) -> Finding:
        if not body:
            return Finding("empty")
        try:
            if self._planned.api == "embeddings":
                return self._judge_embeddings(_EMBEDDINGS(body)) or _utf8(body)
            if self._planned.api == "oip":
                return self._judge_inference(_INFERENCE(body)) or _utf8(body)
            answer = (_CHAT if self._planned.api == "chat" else _COMPLETION)(body)
            return self._judge_text(answer) or _utf8(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
            return decoding_finding(body, problem, "bad_json")

    def _judge_text(self, answer: Any) -> Finding | None:
        self.usage = answer.usage
        text = answer.choices[0].text if answer.choices else ""
        expected = self._expected
        if not same_model(self._planned.model, answer.model, exactly=expected is not None):
            return Finding("wrong_model", short_word(answer.model))
        if not text:
            return Finding("empty")
        if expected is not None and text != expected.text:
            return Finding("wrong_answer", "text")
        return check_usage(answer.usage, expected.tokens if expected else None)

    def _judge_embeddings(self, answer: shapes.Embeddings) -> Finding | None:
        self.usage = answer.usage
        if not same_model(self._planned.model, answer.model):
            return Finding("wrong_model", short_word(answer.model))
        return check_embeddings(self._planned, answer)

    def _judge_inference(self, answer: shapes.Inference) -> Finding | None:
        if not same_model(self._planned.model, answer.model_name):
            return Finding("wrong_model", short_word(answer.model_name))
        return check_inference(answer)


def _utf8(body: bytearray) -> Finding:
    """Decoders skip what they need not read."""
    return OK if is_utf8(body) else Finding("bad_utf8")


def _error_in(data: bytes) -> Any:
    fields = msgspec.json.decode(data)
    return fields.get("error") if isinstance(fields, dict) else None
