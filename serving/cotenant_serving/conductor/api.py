"""The conductor's HTTP API, raw ASGI, on the cluster's inside.

PUT  /v1/desired     Desired         control token   409 when the generation is older than the one in force
GET  /v1/desired     → Desired       control token
GET  /v1/status      → PoolStatus    control token
POST /v1/heartbeat   Heartbeat → HeartbeatReply       pool token
POST /v1/demand      Demand                           pool token
GET  /v1/table?epoch=E&sequence=N&wait_s=S → Table, or 204 when nothing changed   pool token
GET  /healthz, /readyz                                no token
"""

from collections.abc import Callable

import msgspec

from cotenant_serving.conductor.conductor import Conductor, StaleGenerationError
from cotenant_serving.contract import Desired, Heartbeat
from cotenant_serving.contract_gateway import Demand
from cotenant_serving.inner_api import Answer, InnerApi, Scope, asked, refusal, wait_of


class Api(InnerApi):
    def __init__(
        self, conductor: Conductor, *, pool_token: Callable[[], str], control_token: Callable[[], str]
    ) -> None:
        """Each gives the text of a token file (see `tokens`)."""
        self._conductor = conductor
        routes = {
            ("PUT", "/v1/desired"): ("control", self._put_desired),
            ("GET", "/v1/desired"): ("control", self._get_desired),
            ("GET", "/v1/status"): ("control", self._status),
            ("POST", "/v1/heartbeat"): ("pool", self._heartbeat),
            ("POST", "/v1/demand"): ("pool", self._demand),
            ("GET", "/v1/table"): ("pool", self._table),
            ("GET", "/healthz"): ("", self._health),
            ("GET", "/readyz"): ("", self._ready),
        }
        super().__init__(routes, {"pool": pool_token, "control": control_token})

    async def _put_desired(self, scope: Scope, body: bytes) -> Answer:
        try:
            self._conductor.set_desired(msgspec.json.decode(body, type=Desired))
        except StaleGenerationError as error:
            return refusal(409, str(error))
        return Answer(200, b"{}")

    async def _get_desired(self, scope: Scope, body: bytes) -> Answer:
        desired = self._conductor.desired
        return Answer(200, msgspec.json.encode(desired)) if desired else refusal(404, "no desired state was sent yet")

    async def _status(self, scope: Scope, body: bytes) -> Answer:
        return Answer(200, msgspec.json.encode(self._conductor.status()))

    async def _heartbeat(self, scope: Scope, body: bytes) -> Answer:
        return Answer(200, msgspec.json.encode(self._conductor.heard(msgspec.json.decode(body, type=Heartbeat))))

    async def _demand(self, scope: Scope, body: bytes) -> Answer:
        self._conductor.demanded(msgspec.json.decode(body, type=Demand))
        return Answer(200, b"{}")

    async def _table(self, scope: Scope, body: bytes) -> Answer:
        query = asked(scope)
        try:
            sequence, wait_s = int(query.get("sequence", "0")), wait_of(query)
        except ValueError as error:
            return refusal(400, f"sequence and wait_s are numbers: {error}")
        table = await self._conductor.table_after(query.get("epoch", ""), sequence, wait_s)
        return Answer(200, msgspec.json.encode(table)) if table else Answer(204, b"")

    async def _health(self, scope: Scope, body: bytes) -> Answer:
        return Answer(200, b'{"status":"ok"}')

    async def _ready(self, scope: Scope, body: bytes) -> Answer:
        if self._conductor.table.sequence == 0:
            return refusal(503, "not reconciled with Serve yet")
        return Answer(200, b'{"status":"ready"}')
