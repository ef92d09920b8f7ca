"""`cotenant version`."""

import typer


def version() -> int:
    """Print the version."""
    from importlib.metadata import version as version_of

    typer.echo(f"cotenant {version_of('cotenant')}")
    return 0
