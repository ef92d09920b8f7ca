"""What a hub's, a CDN's or a peer's answer means for a file that is fetched. Pure.

`headers` are looked up by lower-case name.
"""

import email.utils
import ipaddress
import math
import re
from collections.abc import Mapping
from datetime import UTC
from urllib.parse import urljoin, urlsplit

from cotenant_cache.backoff import TryAgainError
from cotenant_cache.errors import HubUnreachableError

REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRANSIENT = frozenset({408, 425, 429})
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII)
_PORTS = {"http": 80, "https": 443}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_PLAIN = re.compile(r"[!-~]+")


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port; who differs in one of them is somebody else. Raises HubUnreachableError."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        host, port = "", None
    if not host or parts.scheme not in _PORTS or not _PLAIN.fullmatch(url):
        raise HubUnreachableError(f"{shown(url)} is no http or https address; check HF_ENDPOINT")
    return parts.scheme, host, port or _PORTS[parts.scheme]


def is_hub_address(address: str) -> bool:
    """`http(s)://host[:port][/path]`: without a user or a query, which would not be sent, and may be secrets."""
    try:
        parts = urlsplit(address)
        good = parts.scheme in _PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return good and not set("@?#") & set(address) and _PLAIN.fullmatch(address) is not None


def shown(url: str) -> str:
    """For messages: without user, query and fragment, which may hold secrets (a signature of a CDN)."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{re.split('[?#]', rest)[0].rpartition('@')[2]}"[:200]


def next_url(url: str, location: str) -> str:
    """Where a redirect leads. Raises HubUnreachableError for an address that is none, and for https to http."""
    try:
        target = urljoin(url, location)
    except ValueError:
        raise HubUnreachableError(
            f"{shown(url)} redirects to {shown(location)}, which is no address; check HF_ENDPOINT"
        ) from None
    scheme, _, _ = origin_of(target)
    if scheme == "http" and origin_of(url)[0] == "https":
        raise HubUnreachableError(
            f"{shown(url)} redirects to {shown(target)}, which is not encrypted; that is not followed: "
            "check HF_ENDPOINT"
        )
    return target


def is_inner(address: str) -> bool:
    """Whether an IP address is of this machine, its link or a private network, however it is written."""
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _NAT64:
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        else:
            ip = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else ip)
    return not ip.is_global or ip.is_multicast


def is_transient(status: int) -> bool:
    return status in _TRANSIENT or status >= 500


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """Retry-After in seconds from now, whether it is a number or a date; None without one that makes sense."""
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = email.utils.parsedate_to_datetime(value)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
        # A date without a zone is read as UTC, which HTTP's dates are.
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
    return max(0.0, seconds) if math.isfinite(seconds) else None


def body_start(status: int, headers: Mapping[str, str], *, offset: int, size: int) -> int:
    """Where in the file the body of an answer begins, for bytes asked for from `offset`.

    0 when the range was ignored and the whole file comes. Raises TryAgainError when it is another file's, or
    compressed, so that not a byte of it is written.
    """
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise TryAgainError(f"it came compressed ({encoding[:20]!r}) although that was not asked for", wrong=True)
    if status == 206:
        return _part_start(headers.get("content-range", ""), offset, size)
    if status != 200:
        raise TryAgainError(f"HTTP {status}")
    length = headers.get("content-length", "").strip()
    if length and length != str(size):
        raise TryAgainError(f"{length[:20]} bytes were announced, the listing says {size}", wrong=True)
    return 0


def part_span(content_range: str) -> tuple[int, int] | None:
    """First and last byte that it names; None where nothing readable stands."""
    match = _CONTENT_RANGE.fullmatch(content_range.strip())
    return (int(match[1]), int(match[2])) if match else None


def _part_start(content_range: str, offset: int, size: int) -> int:
    match = _CONTENT_RANGE.fullmatch(content_range.strip())
    if match is None:
        raise TryAgainError(f"a part came without a readable Content-Range ({content_range[:40]!r})", wrong=True)
    first, last, total = match.groups()
    if total not in ("*", str(size)):
        raise TryAgainError(f"a part of {total[:20]} bytes was announced, the listing says {size}", wrong=True)
    if int(first) != offset or not offset <= int(last) < size:
        raise TryAgainError(f"bytes {first[:20]}-{last[:20]} came, {offset}-{size - 1} were asked for", wrong=True)
    return offset
