"""Options that the commands share."""

from pathlib import Path
from typing import Annotated

import typer


def _folder(text: str) -> Path:
    """An empty one would be the current folder."""
    if not text:
        raise typer.BadParameter("is empty; name a folder")
    return Path(text)


Scenarios = Annotated[
    str, typer.Argument(metavar="SCENARIO", help="A YAML file, or a shipped one's name: see `scenarios`.")
]
Url = Annotated[
    str | None, typer.Option(help="Target. Default: the scenario's, else that of `cotenant up` on this machine.")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Another value of a field. Repeatable.")
]
Seed = Annotated[int | None, typer.Option(min=0, help="Another seed.")]
Processes = Annotated[int | None, typer.Option(min=1, help="Worker processes.")]
Out = Annotated[
    Path | None,
    typer.Option(parser=_folder, metavar="PATH", help="Folder for what is written. Default: loadtest-NAME-TIME."),
]
Permitted = Annotated[
    list[str] | None,
    typer.Option("--i-may-load-this", metavar="HOST", help="Needed for a host that is not this machine. Repeatable."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No live view.")]
