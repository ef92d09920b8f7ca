"""Does anything listen at the target? One connection, closed at once, before anything is sent or made."""

import errno
import socket
import ssl
import time
from collections.abc import Sequence

from cotenant_loadtests.pool import Endpoint, EndpointError, make_endpoint
from cotenant_loadtests.refusals import RefusedError
from cotenant_loadtests.spec import Scenario

PATIENCE_S = 5.0
"""For all addresses together, TLS included."""
ELSEWHERE = "or give another address (--url, or target.url in the scenario)"


def check_reached(scenario: Scenario, addresses: Sequence[str], *, patience_s: float = PATIENCE_S) -> None:
    """`addresses`: those of the target's host. Raises RefusedError that says what stands in the way."""
    target = scenario.target
    try:
        endpoint = make_endpoint(target.url, addresses, ca_file=target.ca_file, verify_tls=target.verify_tls)
    except EndpointError as error:
        raise RefusedError(str(error)) from None
    problem: OSError | None = None
    until_s = time.monotonic() + patience_s
    for address in endpoint.addresses:
        try:
            _connect(endpoint, address, until_s)
            return
        except OSError as error:
            problem = error
    raise RefusedError(_sentence(target.url, problem, patience_s))


def _connect(endpoint: Endpoint, address: str, until_s: float) -> None:
    """Raises OSError."""
    with socket.create_connection((address, endpoint.port), _left_s(until_s)) as plain:
        if endpoint.tls is not None:
            plain.settimeout(_left_s(until_s))
            with endpoint.tls.wrap_socket(plain, server_hostname=endpoint.host):
                pass


def _left_s(until_s: float) -> float:
    return max(0.01, until_s - time.monotonic())


def _sentence(url: str, problem: OSError | None, patience_s: float) -> str:
    if isinstance(problem, ssl.SSLCertVerificationError):
        return (
            f"{url}: its certificate is not accepted ({problem.verify_message}); name the authority that signed it "
            "in target.ca_file, or take any with target.verify_tls: false"
        )
    if isinstance(problem, TimeoutError):
        return f"{url} does not answer within {patience_s:g} s; look whether the server runs, {ELSEWHERE}"
    if isinstance(problem, ssl.SSLError | ConnectionResetError | ConnectionAbortedError):
        return (
            f"{url}: what listens there speaks no TLS that is understood; give an address with http://, {ELSEWHERE}"
        )
    if problem is not None and problem.errno == errno.ECONNREFUSED:
        return f"nothing listens at {url}; start the server (`cotenant up` is one), {ELSEWHERE}"
    why = problem.strerror if problem is not None else "its host has no address"
    return f"{url} cannot be reached: {why}; look whether the server runs, {ELSEWHERE}"
