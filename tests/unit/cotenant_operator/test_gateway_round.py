"""The leader's round over gateways: one write for each change, none without one, and it says what has no room."""

import base64
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from tests.builders.gateway_plan import KEY, planned, pool, secret, tenant, whole_bytes
from tests.builders.watched_api import deployment

from cotenant_operator.gateway_room import ROOM, Room
from cotenant_operator.gateway_secret import GatewaySecret
from cotenant_operator.kinds import SECRETS, Kind, Object
from cotenant_operator.operator_metrics import OperatorMetrics
from cotenant_operator.operator_settings import OperatorSettings
from cotenant_operator.published_config import PublishedConfig
from cotenant_operator.reconciler import Reconciler
from cotenant_operator.secrets_by_name import SecretsByName
from cotenant_serving.contract_gateway import GatewayConfig
from cotenant_serving.packed_config import unpacked


class ApiServer:
    """Takes Secrets, and keeps what was written."""

    def __init__(self) -> None:
        self.written: list[Object] = []
        self.meanwhile: Callable[[], None] = lambda: None

    async def apply(self, kind: Kind, item: Object) -> bytes:
        self.meanwhile()
        self.written.append(item)
        metadata = {**item["metadata"], "resourceVersion": str(len(self.written))}
        return msgspec.json.encode({**item, "metadata": metadata})

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Object:
        raise AssertionError("nothing is read here")

    @property
    def config(self) -> GatewayConfig:
        (text,) = self.written[-1]["data"].values()
        return msgspec.json.decode(unpacked(base64.b64decode(text)), type=GatewayConfig)


class Stage:
    """A leader with one tenant and one model, whose rounds are run by hand."""

    def __init__(self, room: Room = ROOM, standing: dict[str, str] | None = None) -> None:
        self.api = ApiServer()
        secrets = SecretsByName(self.api, "cotenant-system", lambda name: None)
        if standing is not None:
            secrets.put(SECRETS.new("cotenant-gateway", "cotenant-system", data=standing))
        in_secret = GatewaySecret(secrets)
        self.published = PublishedConfig()
        self.published.offer(in_secret.json())
        self.metrics = OperatorMetrics(leads=lambda: True, watched=(), calls=dict)
        self.tenants = {("", "search"): tenant()}
        self.statuses: list[Any] = []
        self.plan = planned([tenant()], [secret(token=KEY)])
        self.reconciler = self._reconciler(secrets, in_secret, room)

    def _reconciler(self, secrets: SecretsByName, in_secret: GatewaySecret, room: Room) -> Reconciler:
        caches: Any = SimpleNamespace(
            pools=SimpleNamespace(objects={("", "default"): pool()}),
            models=SimpleNamespace(objects={("default", "echo"): deployment("echo", 1)}),
            tenants=SimpleNamespace(objects=self.tenants),
            endpoint_slices=SimpleNamespace(objects={}),
        )
        planner: Any = SimpleNamespace(planned=self._planned, troubled=False)
        carry_out: Any = SimpleNamespace(statuses=self._statuses)
        writes: Any = self.api
        conductors: Any = None
        usage: Any = None
        return Reconciler(
            settings=OperatorSettings(),
            caches=caches,
            planner=planner,
            secrets=secrets,
            conductors=conductors,
            writes=writes,
            carry_out=carry_out,
            gateway_secret=in_secret,
            published=self.published,
            usage=usage,
            metrics=self.metrics,
            room=room,
            wall=lambda: 1_795_730_000.0,
        )

    async def _planned(self) -> Any:
        return self.plan

    async def _statuses(self, statuses: Any) -> bool:
        self.statuses += statuses
        return True

    async def round(self) -> None:
        await self.reconciler._gateways(self.plan)
        await self.reconciler._rounds.close()


async def test_a_change_is_one_write_and_no_change_is_none() -> None:
    stage = Stage()
    await stage.round()
    await stage.round()
    assert len(stage.api.written) == 1
    assert set(stage.api.written[0]["data"]) == {"gateway.json.gz"}
    stage.plan = planned([tenant()], [secret(token=KEY[::-1])])
    await stage.round()
    assert len(stage.api.written) == 2
    assert stage.published.config == stage.api.config, "handed out as JSON, as it was written"
    assert stage.published.raw == msgspec.json.encode(stage.api.config)


async def test_a_revoked_key_is_not_in_what_is_written_next() -> None:
    stage = Stage()
    await stage.round()
    (before,) = stage.api.config.tenants
    stage.plan = planned([tenant(key="gone")], [secret(token=KEY)])
    await stage.round()
    (after,) = stage.api.config.tenants
    assert (len(before.key_sha256), after.key_sha256) == (1, ())


async def test_a_tenant_that_is_edited_meanwhile_gets_the_status_of_the_generation_that_was_planned() -> None:
    stage = Stage()
    edited = tenant()
    edited["metadata"]["generation"] = 2
    stage.api.meanwhile = lambda: stage.tenants.update({("", "search"): edited})
    await stage.round()
    (said,) = stage.statuses
    assert said.status["observedGeneration"] == 1


async def test_what_an_older_operator_wrote_is_written_anew_once_above_it() -> None:
    before = GatewayConfig(generation=2_000_000_000_000, conductors=("http://one",))
    stage = Stage(standing={"gateway.json": base64.b64encode(msgspec.json.encode(before)).decode()})
    assert stage.published.generation == before.generation
    await stage.round()
    await stage.round()
    assert len(stage.api.written) == 1
    assert set(stage.api.written[0]["data"]) == {"gateway.json.gz"}
    assert stage.api.config.generation == before.generation + 1
    assert stage.api.config.conductors == ("http://one",), "no pool has been looked at yet"


async def test_models_without_room_are_counted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    whole = Stage()
    await whole.round()
    stage = Stage(Room(plain_bytes=whole_bytes(whole.api.config) - 1))
    await stage.round()
    assert stage.api.config.models == ()
    assert [len(item.key_sha256) for item in stage.api.config.tenants] == [1]
    assert b'cotenant_operator_gateway_config_left_out{kind="models"} 1.0' in stage.metrics.text()
    assert caplog.text.count("left out, the youngest first: models 1, tenants 0") == 1
    assert stage.reconciler._left_out == {"default/echo"}, "for the pools' passes"
