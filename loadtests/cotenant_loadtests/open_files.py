"""How many files a worker has open at most: many systems allow 1,024 until a process asks for more."""

import resource

OTHER_FILES = 64
"""That a worker has open besides its connections, generously."""


def problem_of(connections: int) -> str | None:
    """Why a process may not have so many connections open; None where it may."""
    wanted, (_, hard) = connections + OTHER_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or wanted <= hard:
        return None
    return (
        f"limits.connections: {connections} need {wanted} open files, and this system allows {hard}. "
        "Use fewer connections or more processes, or raise the limit (ulimit -Hn)."
    )


def allow(connections: int) -> None:
    """Ask the system for as many as are needed. Raises ValueError."""
    if (problem := problem_of(connections)) is not None:
        raise ValueError(problem)
    wanted, (soft, hard) = connections + OTHER_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
