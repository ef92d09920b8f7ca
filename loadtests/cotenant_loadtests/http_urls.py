"""What every address that is dialled has in common: an http or https URL with a host. Pure."""

from urllib.parse import SplitResult, urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}


def http_parts(url: str) -> SplitResult | None:
    """None for anything else; then a caller says so in its own words, for the URL may hold a secret."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in DEFAULT_PORTS and parts.hostname and parts.port != 0
    except ValueError:  # of a port, or of brackets
        return None
    return parts if good else None


def port_of(parts: SplitResult) -> int:
    return parts.port or DEFAULT_PORTS[parts.scheme]
