"""Options that the commands share, and what is said with them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cotenant_loadtests.setting_up import Choices, Wishes


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


def choices_of(context: typer.Context) -> "Choices":
    """Of the command's parameters, those that say which scenario, and how. Not every command has all of them."""
    from cotenant_loadtests.setting_up import Choices

    said = context.params
    return Choices(
        scenario=said.get("scenario") or "",
        url=said.get("url"),
        settings=tuple(said.get("settings") or ()),
        seed=said.get("seed"),
        processes=said.get("processes"),
        permitted=tuple(said.get("permitted") or ()),
    )


def wishes_of(context: typer.Context) -> "Wishes":
    from cotenant_loadtests.setting_up import Wishes

    return Wishes(out=context.params["out"], quiet=context.params["quiet"])
