"""A usual request from admission to the last byte without a coroutine: most requests, and those that cost least.

What is usual: a chat or completion that is not streamed, whose body came with its head, from a client whose key this
connection has shown before, for a model with a free slot at an engine that has an idle connection. `QuickStart.begin`
takes such a request and nothing else; whatever it finds missing, it leaves the request as it was, for `asgi`.

From there on a `Quick` waits on the engine's connection for a plain answer that comes in one piece, and gives it to
the client in that very callback. Anything else that happens (another answer, a lost engine or client, a deadline)
makes it an `Exchange` that has sent its request: there is one place that knows what to do then, and it is not here.
"""

import logging
import time
from collections.abc import Collection

import msgspec

from cotenant_serving.contract_gateway import EngineRow
from cotenant_serving.gateway import answers
from cotenant_serving.gateway.account import Call, Ending, settle
from cotenant_serving.gateway.admission import TenantLimits, estimated_tokens
from cotenant_serving.gateway.bodies import JSON, SMALL_BYTES
from cotenant_serving.gateway.client import Client
from cotenant_serving.gateway.config import Directory
from cotenant_serving.gateway.errors import error
from cotenant_serving.gateway.exchange import Exchange, Sent
from cotenant_serving.gateway.journal import Entry
from cotenant_serving.gateway.reply import Reply
from cotenant_serving.gateway.request_ids import RequestIds
from cotenant_serving.gateway.routes import JSON_FIELDS, Route
from cotenant_serving.gateway.state import Gateway
from cotenant_serving.gateway.timing import server_timing
from cotenant_serving.gateway.upstream import ANSWERED, Outgoing
from cotenant_serving.gateway.upstream_answer import LeanAnswer
from cotenant_serving.gateway.upstream_lean import LeanUpstream, request_line
from cotenant_serving.openai_api import RequestError
from cotenant_serving.tracing import NO_TRACER

log = logging.getLogger("cotenant.gateway")


class Known(msgspec.Struct):
    """What a connection has shown: a key, for which `directory` has a tenant."""

    directory: Directory
    shown: tuple[bytes | None, bytes | None, bool]
    """Authorization, x-api-key, and whether no header stood there twice."""
    tenant: str
    like: object = None
    """Of a request with usual headers and this key (`Client.like`)."""


class QuickStart:
    def __init__(self, gateway: Gateway, upstream: LeanUpstream, ids: RequestIds) -> None:
        self._gateway, self._upstream, self._ids = gateway, upstream, ids
        self._small_bytes = min(SMALL_BYTES, gateway.settings.max_body_bytes)
        self._watched = gateway.tracer is not NO_TRACER

    def begin(self, client: Client, route: Route) -> bool:
        """Whether the request is on its way to an engine. If not, nothing was taken from anybody."""
        usual, gateway = route.usual, self._gateway
        known: Known | None = client.known
        if usual is None or known is None or known.directory is not gateway.directory or self._watched:
            return False
        if known.like is None or known.like is not client.like:
            if not _usual_headers(client, route, known):
                return False
            known.like = client.like
        body = client.small_body(self._small_bytes)
        asked = usual(body) if body else None
        if not body or asked is None or asked.stream:
            return False
        tenant = known.tenant
        view = known.directory.tenants[tenant]
        model = view.named.get(asked.model)
        if model is None or model.task not in route.tasks:
            return False
        row = gateway.dispatcher.at_once(model.name)
        if row is None:
            return False
        size = len(body)
        tokens = estimated_tokens(size, asked.max_tokens)
        quick = Quick(gateway, client, route, body, tenant, model.name, row, size // 4, tokens)
        if self._send(quick, row, gateway.limits(view.tenant)):
            return True
        gateway.dispatcher.release(row)
        return False

    def _send(self, quick: "Quick", row: EngineRow, limits: TenantLimits) -> bool:
        connection = self._upstream.idle(row)
        if connection is None:
            return False
        gateway, body = self._gateway, quick.body_sent
        quick.began = now = gateway.clock()
        try:
            limits.admit(quick.tokens, now)
        except RequestError:  # it is raised once more where it is answered
            connection.rest()
            return False
        quick.limits, quick.limit_fields = limits, limits.fields(now)
        quick.request_id = request_id = self._ids.new()
        quick.deadline = now + gateway.settings.request_timeout_s
        quick.entry = entry = gateway.usage.journal.begin(
            request_id, quick.tenant, quick.model, prompt_tokens=quick.prompt_tokens, now=time.time()
        )
        entry.sent(True)
        gateway.exchanges.add(quick)
        client = quick.client
        client.take_body()
        client.watch(quick.left, _nothing, _nothing)
        quick.connection = connection
        line = request_line(quick.route.method, client.path)
        connection.carry(quick, self._upstream.message(row, line, request_id, body))
        return True


def _usual_headers(client: Client, route: Route, known: Known) -> bool:
    headers = client.headers
    fields = dict(headers)
    return (
        client.method == route.method
        and (fields.get(b"authorization"), fields.get(b"x-api-key"), len(fields) == len(headers)) == known.shown
        and fields.get(b"content-type") == JSON
        and b"content-encoding" not in fields
        and b"x-request-id" not in fields
    )


class Quick(LeanAnswer):
    """One request that was sent, and the answer to it; a signal that goes on by itself when it is given."""

    __slots__ = (
        "_gateway", "_handed_over", "began", "body_sent", "client", "deadline", "entry", "limit_fields", "limits",
        "model", "prompt_tokens", "request_id", "route", "row", "tenant", "tokens",
    )  # fmt: skip

    began: float
    deadline: float
    entry: Entry
    limit_fields: bytes
    limits: TenantLimits
    request_id: str

    def __init__(
        self,
        gateway: Gateway,
        client: Client,
        route: Route,
        body: bytes,
        tenant: str,
        model: str,
        row: EngineRow,
        prompt_tokens: int,
        tokens: int,
    ) -> None:
        """What is not given here `QuickStart` sets once it is sure that the request is sent."""
        super().__init__(None)
        self._gateway, self.client, self.route, self.body_sent = gateway, client, route, body
        self.tenant, self.model, self.row = tenant, model, row
        self.prompt_tokens, self.tokens = prompt_tokens, tokens
        self._handed_over = False

    @property
    def weight(self) -> int:
        return self.tokens

    def give(self) -> None:
        """The head of an answer is here, most often with all of it, or none will come."""
        if self._handed_over:
            super().give()
        elif (
            self.complete
            and self.status == ANSWERED
            and self.problem is None
            and self.size <= SMALL_BYTES
            and not self.headers.get("content-type", "").startswith("text/event-stream")
        ):
            self._finish()
        else:
            self.given = True
            self._hand_over()

    def left(self) -> None:
        """The client is gone."""
        self.end_early("client_closed")

    def end_early(self, outcome: str, problem: RequestError | None = None) -> None:
        """As `Exchange.end_early`."""
        self._hand_over().end_early(outcome, problem)

    def leave(self, silent: Collection[str]) -> None:
        """As `Exchange.leave`."""
        if self.row.instance in silent:
            self._hand_over().leave(silent)

    def _finish(self) -> None:
        gateway, began = self._gateway, self.began
        gateway.exchanges.discard(self)
        self._handed_over = True
        client = self.client
        try:
            now = gateway.clock()
            gateway.dispatcher.answered(self.row)
            try:
                settle(
                    gateway,
                    self,
                    self.entry,
                    Ending("ok", ANSWERED, True, answers.usage_of(self), 0, now - began),
                )
            finally:
                gateway.dispatcher.release(self.row)
            timing = server_timing(0.0, None, now - began)
            client.whole(
                ANSWERED,
                b"x-request-id: %b\r\n%b%b"
                % (self.request_id.encode(), self.limit_fields, answers.whole_fields(self, timing)),
                self.body(),
            )
        except Exception:
            log.exception("request %s failed in the gateway", self.request_id)
            Reply(client, self.request_id).fail(error("internal_error"))

    def _hand_over(self) -> Exchange:
        """An exchange goes on from here."""
        self._handed_over = True
        gateway, client, route = self._gateway, self.client, self.route
        gateway.exchanges.discard(self)
        reply = Reply(client, self.request_id)
        reply.add(self.limit_fields)
        call = Call(
            request_id=self.request_id,
            outgoing=Outgoing(route.method, client.path, self.body_sent, JSON_FIELDS),
            tenant=self.tenant,
            model=self.model,
            stream=False,
            prompt_tokens=self.prompt_tokens,
            tokens=self.tokens,
            limits=self.limits,
            began=self.began,
        )
        exchange = Exchange(gateway, call, reply, client, sent=Sent(self.row, self, self.entry))
        client.carry_on(exchange.run())
        return exchange


def _nothing() -> None:
    """A client that is slow with one small answer slows nobody."""
