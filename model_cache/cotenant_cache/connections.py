"""One HTTP request on one connection: addresses are judged before a byte is sent, and no wait is without an end.

http.client alone waits for ever for a server that sends a byte now and then, and connects wherever a name leads.
"""

import base64
import http.client
import io
import math
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from cotenant_cache.backoff import LeftS, TryAgainError, no_end
from cotenant_cache.errors import CacheError, FetchStoppedError, HubUnreachableError
from cotenant_cache.http_answers import is_inner, origin_of, shown

_LOOK_S = 0.5
_LEAST_S = 0.1
_BUFFER_BYTES = 64 * 2**10


@dataclass(frozen=True, slots=True)
class Waits:
    """The longest waits: for a connection, for the whole of an answer's headers, and for any next byte."""

    connect_s: float = 10.0
    answer_s: float = 60.0
    stall_s: float = 30.0
    stop: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.monotonic
    left_s: LeftS = no_end

    def connecting_s(self) -> float:
        """What no look at `stop` can cut off ends with the time of whoever asked. Above 0, which is not to wait."""
        return max(_LEAST_S, min(self.connect_s, self.left_s()))


class _Stream(io.RawIOBase):
    """A connected socket as http.client reads from it."""

    def __init__(self, sock: socket.socket, waits: Waits) -> None:
        super().__init__()
        self._sock, self._waits = sock, waits
        self.wait_anew()

    def readable(self) -> bool:
        return True

    def wait_anew(self) -> None:
        """What is read from here on has the time of an answer's headers, however many waits it takes."""
        self.until = self._waits.clock() + self._waits.answer_s

    def makefile(self, mode: str, buffering: int | None = None) -> io.BufferedReader:
        del mode, buffering
        return io.BufferedReader(self, _BUFFER_BYTES)

    def readinto(self, buffer: Any) -> int:
        """Raises TryAgainError when nothing comes, FetchStoppedError, OSError."""
        waits = self._waits
        until = min(self.until, waits.clock() + waits.stall_s)
        late = f"no whole answer came in {waits.answer_s:g} s" if until == self.until else ""
        while not waits.stop():
            left_s = until - waits.clock()
            if left_s <= 0:
                raise TryAgainError(late or f"nothing came for {waits.stall_s:g} s")
            self._sock.settimeout(min(left_s, _LOOK_S))
            try:
                return self._sock.recv_into(buffer)
            except TimeoutError:
                continue
        raise _stopped()

    def close(self) -> None:
        if not self.closed:
            self._sock.close()
        super().close()


class Answer:
    """Status and headers (by lower-case name), and a body that is read as it comes."""

    def __init__(self, response: http.client.HTTPResponse, stream: _Stream, *, inner: bool) -> None:
        self._response, self._stream = response, stream
        self._left: float = math.inf if response.length is None else response.length
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.inner = inner
        """Whether who answered is on this machine or a private network; False behind a proxy."""

    def readinto(self, buffer: memoryview) -> int:
        """What is there, at most the buffer; 0 at the end. Raises TryAgainError, FetchStoppedError."""
        with _network_errors():
            if self._response.chunked:
                return self._of_a_chunk(buffer)
            # http.client's own readinto waits for a full buffer, and loses what it has when nothing more comes.
            count = self._response.fp.readinto1(buffer[: int(min(self._left, len(buffer)))]) if self._left else 0
            self._left -= count
            return count

    def _of_a_chunk(self, buffer: memoryview) -> int:
        """Of one at most, so that whoever reads sees how slowly they come. Its header, and what may stand after the
        last one, are lines without an end to whoever waits for each byte alone.
        """
        self._stream.wait_anew()
        data = self._response.read1(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def whole(self, most_bytes: int) -> bytes | None:
        """The body; None when it is longer than that. Raises TryAgainError, FetchStoppedError."""
        content, buffer = bytearray(), memoryview(bytearray(_BUFFER_BYTES))
        while got := self.readinto(buffer):
            content += buffer[:got]
            if len(content) > most_bytes:
                return None
        if 0 < self._left < math.inf:
            raise TryAgainError(f"the connection ended after {len(content)} bytes")
        return bytes(content)

    def __enter__(self) -> "Answer":
        return self

    def __exit__(self, *_: object) -> None:
        self._response.close()


def get(url: str, headers: Mapping[str, str], *, inner_allowed: bool, waits: Waits, direct: bool = False) -> Answer:
    """Sends the request and reads the answer's headers; the body is the caller's to read. `direct`: by no proxy.

    Raises TryAgainError, FetchStoppedError, HubUnreachableError.
    """
    origin = origin_of(url)
    with _network_errors():
        sock, target, more = _connected(url, origin, inner_allowed, waits, direct)
        try:
            inner = not more.pop("via proxy", "") and is_inner(sock.getpeername()[0])
            sock.settimeout(waits.connecting_s())
            sock.sendall(_request(urlsplit(url), target, {**headers, **more}))
            stream = _Stream(sock, waits)
            response = http.client.HTTPResponse(stream, method="GET")  # type: ignore[arg-type]
            response.begin()
            stream.until = math.inf
            return Answer(response, stream, inner=inner)
        except BaseException:
            sock.close()
            raise


def _request(url: SplitResult, target: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"GET {target} HTTP/1.1", f"host: {url.netloc.rpartition('@')[2]}", "connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if not all(line.isprintable() and line.isascii() for line in lines):
        raise HubUnreachableError(
            "the token or another header of the request has characters that HTTP does not allow"
        )
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _connected(
    url: str, origin: tuple[str, str, int], inner_allowed: bool, waits: Waits, direct: bool
) -> tuple[socket.socket, str, dict[str, str]]:
    """The socket, the request's target, and headers that a proxy needs."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    proxy = None if direct else _proxy(origin)
    if proxy is None:
        sock = _dial(origin[1], origin[2], inner_allowed, waits)
        return (_encrypted(sock, origin[1]) if origin[0] == "https" else sock), target, {}
    _refuse_inner_names(origin[1], inner_allowed)
    via, login = proxy
    try:
        if origin[0] == "http":
            return _dial(*via, True, waits), _absolute(parts), {**login, "via proxy": "yes"}
        tunnel = _tunnel(via, login, origin, waits)
    except (OSError, http.client.HTTPException, TryAgainError) as error:
        raise _proxy_failed(origin[0], error) from None
    return _encrypted(tunnel, origin[1]), target, {"via proxy": "yes"}


def _tunnel(
    via: tuple[str, int], login: Mapping[str, str], origin: tuple[str, str, int], waits: Waits
) -> socket.socket:
    """A proxy's connection to an origin. What it answers is waited for as for any answer.

    Raises TryAgainError, FetchStoppedError, OSError, HTTPException.
    """
    target = f"[{origin[1]}]:{origin[2]}" if ":" in origin[1] else f"{origin[1]}:{origin[2]}"
    sock = _dial(*via, True, waits)
    try:
        sock.settimeout(waits.connecting_s())
        lines = [f"CONNECT {target} HTTP/1.1", f"host: {target}", *(f"{name}: {login[name]}" for name in login)]
        sock.sendall("\r\n".join([*lines, "", ""]).encode("ascii"))
        with closing(_Stream(sock.dup(), waits)) as stream:  # which closes what it reads from
            answer = http.client.HTTPResponse(stream, method="CONNECT")  # type: ignore[arg-type]
            answer.begin()
        if answer.status != http.client.OK:
            raise TryAgainError(f"HTTP {answer.status}")
        sock.settimeout(waits.connecting_s())
        return sock
    except BaseException:
        sock.close()
        raise


def _absolute(parts: SplitResult) -> str:
    """The absolute address that a proxy wants in the request line, without a user's name in it."""
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()


def _proxy(origin: tuple[str, str, int]) -> tuple[tuple[str, int], dict[str, str]] | None:
    """As HTTP_PROXY, HTTPS_PROXY and NO_PROXY say; its address, and the header with its user."""
    address = getproxies().get(origin[0], "")
    if not address or proxy_bypass(f"{origin[1]}:{origin[2]}"):
        return None
    parts = urlsplit(address if "://" in address else f"http://{address}")
    if parts.scheme != "http" or not parts.hostname:
        raise HubUnreachableError(
            f"the proxy {shown(address)} is no http:// address; change {origin[0].upper()}_PROXY"
        )
    user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    encoded = base64.b64encode(user.encode()).decode()
    return (parts.hostname, parts.port or 80), {"proxy-authorization": f"Basic {encoded}"} if parts.username else {}


def _proxy_failed(scheme: str, error: Exception) -> TryAgainError:
    """Without what the proxy wrote: it may repeat its password."""
    own = error.reason if isinstance(error, TryAgainError) else ""
    said = own or getattr(error, "strerror", None) or type(error).__name__
    return TryAgainError(f"the proxy of {scheme.upper()}_PROXY did not connect: {said}")


def _dial(host: str, port: int, inner_allowed: bool, waits: Waits) -> socket.socket:
    """To the first address that answers, of those that were judged: a name is looked up once."""
    addresses = [info[4] for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not inner_allowed and any(is_inner(str(address[0])) for address in addresses):
        raise _inner(host)
    until, failed = waits.clock() + waits.connecting_s(), OSError(f"{host} has no address")
    for address in addresses:
        left_s = until - waits.clock()
        if waits.stop():
            raise _stopped()
        if left_s <= 0:
            break
        try:
            return socket.create_connection((str(address[0]), port), timeout=left_s)
        except OSError as error:
            failed = error
    raise failed


def _stopped() -> FetchStoppedError:
    return FetchStoppedError("stopped while it was fetched; what came is kept")


def _refuse_inner_names(host: str, inner_allowed: bool) -> None:
    """Behind a proxy only what is written can be judged; the proxy looks names up."""
    try:
        inner = is_inner(host)
    except ValueError:
        inner = host == "localhost" or host.endswith((".localhost", ".local", ".internal"))
    if inner and not inner_allowed:
        raise _inner(host)


def _inner(host: str) -> HubUnreachableError:
    return HubUnreachableError(
        f"a public hub redirects to {host}, an address of this machine or of a private network; that is not "
        "followed: check HF_ENDPOINT"
    )


def _encrypted(sock: socket.socket, host: str) -> socket.socket:
    try:
        return _tls().wrap_socket(sock, server_hostname=host)
    except BaseException:
        sock.close()
        raise


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """Of huggingface_hub's own client, so that both trust the same authorities (SSL_CERT_FILE, SSL_CERT_DIR)."""
    return httpx2.create_ssl_context()


@contextmanager
def _network_errors() -> Iterator[None]:
    """What the network and TLS say → ours; none of the messages has the request in it."""
    try:
        yield
    except (CacheError, TryAgainError):
        raise
    except ssl.SSLCertVerificationError as error:
        raise HubUnreachableError(
            f"the certificate of the server is not trusted ({error.verify_message}); set SSL_CERT_FILE to the "
            "authority's certificate, or check the clock and HF_ENDPOINT"
        ) from None
    except TimeoutError:
        raise TryAgainError("the connection did not come about in time") from None
    except http.client.HTTPException as error:  # its text is the server's, and may repeat what it was sent
        raise TryAgainError(f"the answer broke off or is no HTTP ({type(error).__name__})") from None
    except (OSError, ValueError) as error:
        said = str(error).splitlines()[0][:160] if str(error) else "no details"
        raise TryAgainError(f"{type(error).__name__}: {said}") from None
