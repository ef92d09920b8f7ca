"""Runs requests on transformers' continuous batching: admits them, writes their text, replaces a dead loop."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from cotenant_serving.engine.admission import PageLedger
from cotenant_serving.engine.base import Delta, DeltaStream, FinishReason, GenerationError, Job
from cotenant_serving.engine.detokenize import Decode, StopMatcher, TextDecoder
from cotenant_serving.openai_api import Sampling

WATCH_PERIOD_S = 0.25
STOP_TIMEOUT_S = 5.0
GREEDY_TEMPERATURE = 1e-5
"""transformers has no greedy mode per request: top_k 1 is greedy search, this keeps rounding out of it."""

log = logging.getLogger("cotenant.engine")


class Output(Protocol):
    """The part of transformers' GenerationOutput that is read."""

    generated_tokens: list[int]
    error: str | None

    def is_finished(self) -> bool: ...


class Manager(Protocol):
    """The part of transformers' ContinuousBatchingManager that is used."""

    def start(self) -> None: ...
    def stop(self, block: bool = True, timeout: float | None = None, *, hard_stop: bool = False) -> None: ...
    def is_running(self) -> bool: ...
    def register_result_handler(self, request_id: str, callback: Callable[[Any], None]) -> None: ...
    def add_request(self, input_ids: list[int], request_id: str, **options: Any) -> str | None: ...
    def cancel_request(self, request_id: str) -> None: ...


class AnswerWriter:
    """Token ids of one request → deltas in its stream: characters whole, stop strings cut off, eos not shown."""

    def __init__(self, job: Job, stream: DeltaStream, decode: Decode, eos_ids: frozenset[int]) -> None:
        self.job = job
        self.stream = stream
        self._decoder = TextDecoder(decode)
        self._matcher = StopMatcher(job.sampling.stop)
        self._eos_ids = eos_ids
        self._seen = 0

    def accept(self, generated: Sequence[int], *, finished: bool) -> bool:
        """`generated` are all ids so far. Returns whether the answer is complete."""
        new = generated[self._seen :]
        for index, token in enumerate(new, start=1):
            self._seen += 1
            last = finished and index == len(new)
            if self._put(token, last=last):
                return True
        if finished and not self.stream.closed:
            self._end("", "length")
        return finished

    def _put(self, token: int, *, last: bool) -> bool:
        is_eos = token in self._eos_ids
        text = "" if is_eos else self._matcher.push(self._decoder.push([token]))
        if self._matcher.matched:
            self.stream.put(Delta(text, self._seen, "stop"))
            return True
        if last or is_eos:
            self._end(text, "stop" if is_eos else "length")
            return True
        self.stream.put(Delta(text, self._seen))
        return False

    def _end(self, text: str, reason: FinishReason) -> None:
        text += self._matcher.push(self._decoder.finish())
        if self._matcher.matched:
            reason = "stop"
        self.stream.put(Delta(text + self._matcher.finish(), self._seen, reason))


class Batcher:
    """All requests of one model. Event loop only. `manager` runs already; `make_manager` makes and starts another."""

    def __init__(
        self,
        manager: Manager,
        make_manager: Callable[[], Manager],
        ledger: PageLedger,
        decode: Decode,
        eos_ids: frozenset[int],
        vocabulary: int,
    ) -> None:
        self._manager = manager
        self._make_manager = make_manager
        self._ledger = ledger
        self._decode = decode
        self._eos_ids = eos_ids
        self._vocabulary = vocabulary
        self._writers: dict[str, AnswerWriter] = {}
        self._admitted: list[str] = []
        """Have their room in the cache, are not handed over yet."""
        self._handed: set[str] = set()
        self._watching: asyncio.TimerHandle | None = None
        self.restarts = 0
        self.broken = False

    def start(self, job: Job, stream: DeltaStream) -> None:
        """Runs the job now, or when its tokens fit the cache."""
        if self.broken:
            stream.fail(GenerationError("The engine is broken and about to be replaced.", code="engine_broken"))
            return
        self._writers[job.request_id] = AnswerWriter(job, stream, self._decode, self._eos_ids)
        self._ledger.enqueue(job.request_id, job.prompt.tokens + job.max_tokens)
        self._admit()
        if self._watching is None:
            self._watch()

    def cancel(self, request_id: str) -> None:
        """Ends a request's work; its stream is the caller's to end."""
        if self._writers.pop(request_id, None) is None:
            return
        if request_id in self._handed:
            # transformers answers a cancelled request with nothing. It applies cancellations before it schedules
            # what came later, so the pages may be given on at once.
            self._manager.cancel_request(request_id)
        self._forget(request_id)
        self._admit()

    def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        self._fail_all("The engine was stopped.", code="engine_stopped")
        self._manager.stop(block=True, timeout=STOP_TIMEOUT_S, hard_stop=True)

    def _forget(self, request_id: str) -> None:
        self._writers.pop(request_id, None)
        self._handed.discard(request_id)
        self._admitted = [admitted for admitted in self._admitted if admitted != request_id]
        self._ledger.release(request_id)

    def _admit(self, *, fresh: bool = False) -> None:
        """Hands over what fits. `fresh`: the loop was started just now, so another one would be no better."""
        self._admitted += self._ledger.admit()
        while self._admitted:
            if not self._hand_over(self._writers[self._admitted[0]].job):
                self._break() if fresh else self._restart()
                return
            self._handed.add(self._admitted.pop(0))

    def _hand_over(self, job: Job) -> bool:
        """Returns False when the generation loop takes no requests any more."""
        self._manager.register_result_handler(job.request_id, lambda output: self._on_output(job.request_id, output))
        accepted = self._manager.add_request(
            list(job.prompt.ids),
            request_id=job.request_id,
            max_new_tokens=job.max_tokens,
            streaming=True,
            eos_token_id=sorted(self._eos_ids) or -1,
            **sampling_options(job.sampling, self._vocabulary),
        )
        return accepted is not None

    def _on_output(self, request_id: str, output: Output) -> None:
        # One callback delivers a whole batch: an exception here would swallow the tokens of other requests.
        writer = self._writers.get(request_id)
        if writer is None:
            return
        try:
            if output.error is not None:
                self._fail(request_id, writer, output.error)
            elif writer.accept(output.generated_tokens, finished=output.is_finished()):
                if output.is_finished():
                    self._forget(request_id)
                    self._admit()
                else:
                    self.cancel(request_id)
        except Exception as error:
            log.exception("request %s cannot be continued", request_id)
            self._fail(request_id, writer, str(error))
            self._manager.cancel_request(request_id)

    def _fail(self, request_id: str, writer: AnswerWriter, cause: str) -> None:
        log.error("request %s failed: %s", request_id, cause)
        writer.stream.fail(GenerationError(f"Generation failed: {_last_line(cause)}. Send the request again."))
        self._forget(request_id)

    def _watch(self) -> None:
        """Looks after the generation loop, also when there are no requests: the next one should find it alive."""
        self._watching = None
        if not self._manager.is_running() and not self.broken:
            self._restart()
        if not self.broken:
            self._watching = asyncio.get_running_loop().call_later(WATCH_PERIOD_S, self._watch)

    def _restart(self) -> None:
        """The generation loop is dead: its requests fail, a new loop starts, those that waited go on."""
        self.restarts += 1
        log.error("the generation loop ended; starting another (restart %d)", self.restarts)
        for request_id in list(self._handed):
            if writer := self._writers.get(request_id):
                self._fail(request_id, writer, "the generation loop ended")
            self._forget(request_id)
        try:
            self._manager.stop(block=True, timeout=STOP_TIMEOUT_S, hard_stop=True)
            self._manager = self._make_manager()
        except Exception:
            log.exception("no new generation loop can be started")
            self._break()
            return
        self._admit(fresh=True)

    def _break(self) -> None:
        log.error("no generation loop takes requests: this process is of no more use")
        self.broken = True
        self._fail_all("The engine is broken and about to be replaced.", code="engine_broken")

    def _fail_all(self, message: str, *, code: str) -> None:
        for request_id, writer in list(self._writers.items()):
            writer.stream.fail(GenerationError(message, code=code))
            self._forget(request_id)


def sampling_options(sampling: Sampling, vocabulary: int) -> dict[str, Any]:
    """OpenAI's sampling values → transformers' per request. Pure.

    There, top_k 0 is not off but 1, and one above the vocabulary ends the generation loop for every request.
    """
    if sampling.temperature < GREEDY_TEMPERATURE:
        return {"temperature": GREEDY_TEMPERATURE, "top_p": 1.0, "top_k": 1}
    top_k = min(sampling.top_k or vocabulary, vocabulary)
    return {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": top_k}


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].rstrip(".") if lines else "unknown cause"
