"""`cotenant version`."""

import platform

import typer

from cotenant_operator.cli.options import Output, Shown, show

_SHOWN = ("ray", "torch", "transformers", "huggingface-hub", "uvicorn", "pydantic")


def version(output: Shown = Output.TABLE) -> int:
    """Print the version; wide, JSON and YAML also those of Python and of the packages that matter most."""
    number = _version("cotenant") or "0 (not installed: it runs from its source tree)"
    if output is Output.TABLE:
        typer.echo(f"cotenant {number}")
        return 0
    versions = {"cotenant": number, "python": platform.python_version(), **{name: _version(name) for name in _SHOWN}}
    rows: list[tuple[str, ...]] = [(name, found or "not installed") for name, found in versions.items()]
    return show((("PACKAGE", "VERSION"), rows), versions, output)


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as version_of

    try:
        return version_of(name)
    except PackageNotFoundError:
        return None
