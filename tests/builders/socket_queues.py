"""What is on its way through this machine's kernel: a program that is stopped loses what it has not read yet."""

from pathlib import Path

_LISTENS = "0A"


def bytes_on_their_way(url: str) -> int:
    """Sent from or to this address of 127.0.0.1, and not read at the other end."""
    port = f":{int(url.rpartition(':')[2]):04X}"
    _, *lines = Path("/proc/net/tcp").read_text().splitlines()
    count = 0
    for line in lines:
        _, here, there, state, queues, *_ = line.split()
        if state != _LISTENS and port in (here[-5:], there[-5:]):
            count += sum(int(queue, 16) for queue in queues.split(":"))
    return count
