"""A client that costs next to nothing: it shares the cores with what is measured."""

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

TOKENS = re.compile(rb'"completion_tokens":\s*(\d+)')
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


async def post(port: int, path: str, key: str, body: Mapping[str, Any]) -> bytes:
    """The raw answer, head and all, of one request on its own connection. Raises RuntimeError if it is not 200."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    payload = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(payload)}\r\n\r\n"
    )
    writer.write(head.encode() + payload)
    parts = []
    while part := await reader.read(1 << 16):
        parts.append(part)
    writer.close()
    answer = b"".join(parts)
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(f"{path}: {answer[:500].decode(errors='replace')}")
    return answer


async def complete(port: int, key: str, model: str, prompts: Sequence[Sequence[int]], max_tokens: int) -> int:
    """Streams one completion for each prompt, all at once. Returns the tokens; RuntimeError when one broke off."""

    async def one(prompt: Sequence[int]) -> int:
        body = {
            "model": model,
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        answer = await post(port, "/v1/completions", key, body)
        found = TOKENS.findall(answer)
        if not found or b"data: [DONE]" not in answer:
            raise RuntimeError(f"a stream broke off: {answer[-300:].decode(errors='replace')}")
        return int(found[-1])

    return sum(await asyncio.gather(*(one(prompt) for prompt in prompts)))


class Caller:
    """One client that asks over and over on one connection. Answers must come with a content-length."""

    def __init__(self, port: int, path: str, key: str) -> None:
        self._port, self._path, self._key = port, path, key

    async def __aenter__(self) -> "Caller":
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def ask(self, body: Mapping[str, Any]) -> bytes:
        """The body of the answer. Raises RuntimeError unless its status is 200."""
        payload = json.dumps(body).encode()
        head = (
            f"POST {self._path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {self._key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(payload)}\r\n\r\n"
        )
        self._writer.write(head.encode() + payload)
        answered = await self._reader.readuntil(b"\r\n\r\n")
        length = LENGTH.search(answered)
        content = await self._reader.readexactly(int(length[1])) if length else b""
        if not answered.startswith(b"HTTP/1.1 200 ") or not length:
            raise RuntimeError(f"{self._path}: {(answered + content)[:500].decode(errors='replace')}")
        return content


async def embed(port: int, key: str, model: str, texts: Sequence[str], callers: int) -> list[bytes]:
    """The answers for all texts, one text a request. Each of the callers asks again as soon as it is answered."""
    answers: dict[int, bytes] = {}
    waiting = iter(enumerate(texts))

    async def call() -> None:
        async with Caller(port, "/v1/embeddings", key) as caller:
            for number, text in waiting:
                answers[number] = await caller.ask({"model": model, "input": text})

    await asyncio.gather(*(call() for _ in range(callers)))
    return [answers[number] for number in range(len(texts))]
