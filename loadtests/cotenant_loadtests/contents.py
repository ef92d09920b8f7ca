"""What the requests of one stream say: messages, tensors, output lengths. Pure."""

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import NamedTuple

from cotenant_loadtests.amounts import drawer, whole_drawer
from cotenant_loadtests.planned import Message, Segment, Tensor
from cotenant_loadtests.prompts import Prompt
from cotenant_loadtests.seeded import Source, derived_seed
from cotenant_loadtests.spec import StreamSpec
from cotenant_loadtests.spec_values import Amounts, FromTrace
from cotenant_loadtests.traces import BLOCK_TOKENS, TraceRow
from cotenant_loadtests.units import US_PER_S

RowNumber = Callable[[TraceRow], int]


class Turn(NamedTuple):
    """One request's contents. A request that belongs to no conversation is its own only turn."""

    think_us: int
    messages: tuple[Message, ...]
    tensors: tuple[Tensor, ...]
    max_tokens: int | None


def text_seed(source: Source) -> int:
    """53 bits, so that every JSON reader takes it as it is."""
    return source.bits() >> 11


class Contents:
    """Draws the contents of a stream's arrivals, one after the other.

    `prompts` are those of `prompt.file`, taken in turn, from the first again after the last.
    """

    def __init__(self, stream: StreamSpec, source: Source, prompts: Sequence[Prompt] = ()) -> None:
        self._stream = stream
        self._texts = source.child("text")
        self._prompts = cycle(prompts)
        self._prefixes = _prefixes(stream, source.child("shared_prefix"))
        self._prefix_of = source.child("shared_prefix", "group")
        prompt, output, conversation = stream.prompt, stream.output, stream.conversation
        self._prompt_tokens = _tokens(prompt.tokens if prompt else None, source.child("prompt"), "prompt_tokens")
        self._output_tokens = _tokens(output.tokens if output else None, source.child("output"), "output_tokens")
        if conversation:
            self._turns = _whole(conversation.turns, source.child("turns"))
            self._think_s = _number(conversation.think_s, source.child("think"))

    def turns(self, row: TraceRow | None) -> Iterator[Turn]:
        """The turns of one arrival; `row` is what a trace has for it."""
        stream = self._stream
        if stream.api == "oip":
            yield Turn(0, (), self._tensors(), None)
        elif stream.api == "embeddings":
            inputs = stream.prompt.inputs if stream.prompt else 1
            yield Turn(0, tuple(self._message(row, self._prefix())[0] for _ in range(inputs)), (), None)
        elif stream.api == "completions":
            message, max_tokens = self._message(row, self._prefix())
            yield Turn(0, (message,), (), max_tokens)
        else:
            yield from self._chat(row)

    def _chat(self, row: TraceRow | None) -> Iterator[Turn]:
        """Each turn has all before it as history; answers stand in it as words of their planned length.

        What the model really answered is not known to a plan, and equal plans must send equal bytes.
        """
        prefix = self._prefix()
        history: tuple[Message, ...] = (Message("system", prefix),) if prefix else ()
        for turn in range(self._turns() if self._stream.conversation else 1):
            think_us = round(self._think_s() * US_PER_S) if turn else 0
            message, max_tokens = self._message(row, ())
            history += (message,)
            yield Turn(think_us, history, (), max_tokens)
            if self._stream.conversation:
                history += (Message("assistant", (Segment(text_seed(self._texts), max_tokens or 1),)),)

    def _message(self, row: TraceRow | None, prefix: tuple[Segment, ...]) -> tuple[Message, int | None]:
        """The user's words and the `max_tokens` of the answer."""
        output_tokens = self._output_tokens(row) if self._output_tokens else None
        if self._prompt_tokens is None:
            prompt = next(self._prompts)
            return Message("user", text=prompt.prompt), prompt.output_tokens or output_tokens
        tokens = self._prompt_tokens(row)
        if row and row.blocks and isinstance(self._stream.prompt and self._stream.prompt.tokens, FromTrace):
            return Message("user", prefix + self._blocks(row.blocks, tokens)), output_tokens
        return Message("user", (*prefix, Segment(text_seed(self._texts), tokens))), output_tokens

    def _blocks(self, blocks: Sequence[int], tokens: int) -> tuple[Segment, ...]:
        """The trace's blocks; what they do not reach is text of the request's own."""
        rest = tokens - len(blocks) * BLOCK_TOKENS
        own = (Segment(text_seed(self._texts), rest),) if rest > 0 else ()
        return _block_segments(blocks, tokens) + own

    def _prefix(self) -> tuple[Segment, ...]:
        if not self._prefixes:
            return ()
        return (self._prefixes[self._prefix_of.integer(0, len(self._prefixes) - 1)],)

    def _tensors(self) -> tuple[Tensor, ...]:
        return tuple(
            Tensor(tensor.name, tensor.datatype, tensor.shape, text_seed(self._texts))
            for tensor in self._stream.inputs
        )


def _prefixes(stream: StreamSpec, source: Source) -> tuple[Segment, ...]:
    """One segment for each group."""
    shared = stream.prompt.shared_prefix if stream.prompt else None
    if shared is None:
        return ()
    tokens = _whole(shared.tokens, source.child("tokens"))
    return tuple(Segment(text_seed(source), tokens()) for _ in range(shared.groups))


def _block_segments(blocks: Sequence[int], tokens: int) -> tuple[Segment, ...]:
    """A block is the same text wherever its hash stands, so that prompts share what they shared in the trace.

    There are no more blocks than the tokens fill; the last one may be cut.
    """
    return tuple(
        Segment(derived_seed(block, "block") >> 11, min(BLOCK_TOKENS, tokens - index * BLOCK_TOKENS))
        for index, block in enumerate(blocks)
    )


def _tokens(amount: Amounts | None, source: Source, of_row: str) -> Callable[[TraceRow | None], int] | None:
    if amount is None:
        return None
    if isinstance(amount, FromTrace):
        return lambda row: max(1, getattr(row, of_row))
    draw = whole_drawer(amount, source)
    return lambda row: draw()


def _whole(amount: Amounts, source: Source) -> Callable[[], int]:
    assert not isinstance(amount, FromTrace), "reading.py allows no trace here"
    return whole_drawer(amount, source)


def _number(amount: Amounts, source: Source) -> Callable[[], float]:
    assert not isinstance(amount, FromTrace), "reading.py allows no trace here"
    return drawer(amount, source)
