"""Bytes and seconds of downloads, as people say them. Pure."""

import math


def in_bytes(size_bytes: int) -> str:
    """What is fetched, for people: `8.0 GB`, `800 MB`."""
    return f"{size_bytes / 10**9:.1f} GB" if size_bytes >= 10**9 else f"{size_bytes / 10**6:.0f} MB"


def of_bytes(done_bytes: int, total_bytes: int) -> str:
    """For people: `3.1 of 8.0 GB`."""
    if total_bytes < 10**9:
        return f"{done_bytes / 10**6:.0f} of {in_bytes(total_bytes)}"
    return f"{done_bytes / 10**9:.1f} of {in_bytes(total_bytes)}"


def about(seconds: float) -> str:
    """For people, in steps, so that it does not change all the time: `about 40 s`, `about 12 min`."""
    if seconds > 120:
        return f"about {math.ceil(seconds / 60)} min"
    return f"about {max(1, math.ceil(seconds / 5)) * 5} s"
