"""`cotenant chat MODEL` and `cotenant embed MODEL TEXT…`: the commands that call a model."""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cotenant_operator.cli.completion import ModelName, complete_tenant
from cotenant_operator.cli.options import Output, Shown, State, default_state, show
from cotenant_operator.failure import FlagError

if TYPE_CHECKING:
    from cotenant_operator.caller import Key
    from cotenant_operator.control import ControlClient
    from cotenant_operator.conversation import Conversation
    from cotenant_operator.gateway_client import GatewayClient

TenantOption = Annotated[
    str | None,
    typer.Option(help="Who calls, when several tenants see the model.", autocompletion=complete_tenant),
]
KeyFile = Annotated[
    Path | None, typer.Option(help="File that holds an API key. Default: $COTENANT_API_KEY, else a key of its own.")
]
Url = Annotated[str | None, typer.Option(help="Another gateway; needs a key. Default: that of `up` on this machine.")]


def chat(
    name: ModelName,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Ask this, and end.")] = None,
    system: Annotated[str | None, typer.Option(help="A system message to begin with.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, max=2.0, help="0 is always the same answer.")] = None,
    tenant: TenantOption = None,
    key_file: KeyFile = None,
    url: Url = None,
    state: State = None,
    output: Shown = Output.TABLE,
) -> int:
    """Talk with a model; with --message, or when stdin is no terminal, ask once."""
    from cotenant_operator.conversation import Conversation, converse

    if message is None and not sys.stdin.isatty():
        message = sys.stdin.read()
    _refuse_empty(message, output)
    options = {"max_tokens": max_tokens, "temperature": temperature}
    with _line_to(name, tenant, key_file, url, state, "cotenant chat") as line:
        conversation = Conversation(
            line.client, line.model, {key: value for key, value in options.items() if value is not None}, line.waiting
        )
        if system is not None:
            conversation.messages.append({"role": "system", "content": system})
        return converse(conversation, line.whom) if message is None else _once(conversation, message, output)


def embed(
    name: ModelName,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="Texts. Default: the lines of stdin.")
    ] = None,
    tenant: TenantOption = None,
    key_file: KeyFile = None,
    url: Url = None,
    state: State = None,
    output: Shown = Output.TABLE,
) -> int:
    """Turn texts into vectors: their beginnings in a table, all of them in JSON and YAML."""
    from cotenant_operator.embeddings_report import PATH, vector_document, vector_rows, vectors_of

    given = texts or ([] if sys.stdin.isatty() else [line for line in sys.stdin.read().splitlines() if line.strip()])
    if not given:
        raise FlagError(f"no text is given; say `cotenant embed {name} TEXT`, or write one on each line of stdin")
    with _line_to(name, tenant, key_file, url, state, "cotenant embed") as line, line.waiting():
        answer = line.client().ask(PATH, {"model": line.model, "input": given})
    vectors = vectors_of(answer, given)
    wide = output is Output.WIDE
    return show(vector_rows(given, vectors, wide=wide), vector_document(answer, given, vectors), output)


@dataclass(frozen=True, slots=True)
class _Line:
    """To one model of one gateway, in somebody's name."""

    url: str
    model: str
    whom: str
    key: "Key"
    control: "ControlClient | None"

    def client(self) -> "GatewayClient":
        from cotenant_operator.gateway_client import GatewayClient

        return GatewayClient(self.url, self.key.now())

    def waiting(self) -> Any:
        from cotenant_operator.waking import watch_wake

        return watch_wake(self.control, self.model)


@contextlib.contextmanager
def _line_to(
    name: str, tenant: str | None, key_file: Path | None, url: str | None, state: Path | None, made_by: str
) -> Iterator[_Line]:
    from cotenant_operator.caller import KEY_VARIABLE, choose_caller, given_key, made_key
    from cotenant_operator.control import ControlClient, ControlError, running_up
    from cotenant_operator.gateway_client import base_url
    from cotenant_operator.published import read_published

    key = given_key(key_file, os.environ)
    if key is not None and tenant is not None:
        raise FlagError(f"--tenant says for whom a key is made, but --key-file or {KEY_VARIABLE} gives one; use one")
    if url is not None:
        if key is None:
            raise FlagError(f"--url needs a key of that gateway; set {KEY_VARIABLE}, or give --key-file")
        yield _Line(base_url(url), name, f"{name} at {base_url(url)}", key, None)
        return
    where = state or default_state()
    try:
        running, control = running_up(where), ControlClient.of_state(where)
    except ControlError as error:
        raise ControlError(f"{error} For a gateway elsewhere, as that of a cluster, give --url and a key.") from None
    if key is not None:
        yield _Line(running.gateway_url, name, name, key, control)
        return
    caller = choose_caller(read_published(where), name, tenant)
    with made_key(where, caller.tenant, made_by) as made:
        whom = f"{caller.model} in the name of tenant {caller.tenant}"
        yield _Line(running.gateway_url, caller.model, whom, made, control)


def _refuse_empty(message: str | None, output: Output) -> None:
    if message is not None and not message.strip():
        raise FlagError("the message is empty; give one with -m, or on stdin")
    if message is None and output is not Output.TABLE:
        raise FlagError(f"-o {output} is for one answer; give a message with -m, or on stdin")


def _once(conversation: "Conversation", message: str, output: Output) -> int:
    if output in (Output.JSON, Output.YAML):
        return show(((), []), conversation.whole(message), output)
    conversation.say(message)
    return 0
