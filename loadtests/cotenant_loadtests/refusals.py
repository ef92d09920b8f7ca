"""The base of the errors that end a command before anything is sent."""


class RefusedError(Exception):
    """`str()` is one sentence for each problem: what is wrong, why, and what to do next."""


EXTRA = ("uvloop", "httptools", "numpy", "pyarrow")
"""Packages of the extra `loadtest`."""


def missing(package: str) -> str:
    return f"the package {package} is not installed; run `pip install 'cotenant[loadtest]'`"
