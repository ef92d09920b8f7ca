"""Ports for programs that start a while after their port was chosen, or stop and start again on it."""

import itertools
import os
import random
from collections.abc import Iterator

from cotenant_operator.processes import port_is_free

PORTS = range(20_000, 30_000)
"""Below what the kernel gives to whoever asks for any port (from 32768), and below the NodePorts of a cluster."""
SLICES = 20
"""Processes of pytest-xdist that share no port."""


def free_port(host: str = "127.0.0.1") -> int:
    """One that nobody listens on, and that no other test of this run is given soon."""
    return next(port for port in _PORTS if port_is_free(host, port))


def _shuffled() -> Iterator[int]:
    """This process's own, over and over. Another order in each run, as others may run on the machine."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    own = list(PORTS[int(worker) % SLICES :: SLICES])
    random.Random(os.urandom(8)).shuffle(own)
    return itertools.cycle(own)


_PORTS = _shuffled()
