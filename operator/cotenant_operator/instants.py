"""Moments as text for people and programs. Pure."""

from datetime import UTC, datetime


def utc(unix_s: float) -> str:
    """To the second: `2026-11-26T10:11:12Z`."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def utc_micro(unix_s: float) -> str:
    """To the microsecond, as Kubernetes' MicroTime: `2026-11-26T10:11:12.000345Z`."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
