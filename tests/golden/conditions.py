"""Situations that an object may be in → what its status says and what `kubectl get` shows: docs/conditions.md.

`python -m tests.golden.update` rewrites the page's part; a test of the cluster ring shows the same statuses to a real
API server and compares what kubectl prints.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
from tests.builders import observed as see
from tests.builders.operator import KEY, SOURCE, facts, model, pool, secret, tenant, world
from tests.builders.printer import printed

from cotenant_cache.errors import HubUnreachableError, ModelNotFoundError
from cotenant_operator.crd import CRDS, Crd
from cotenant_operator.hub_secret import missing_hub_secrets
from cotenant_operator.object_status import MODEL_CONDITIONS, model_status
from cotenant_operator.objects import World
from cotenant_operator.plan import plan
from cotenant_operator.planned import ModelPlan
from cotenant_operator.pool_seen import AgentsSeen, PoolSeen
from cotenant_operator.pool_status import pool_status
from cotenant_operator.spec import GPUPool, ModelDeployment, Tenant
from cotenant_operator.tenant_status import invalid_status, tenant_status
from cotenant_serving.contract import NodeWeights, Reason

PAGE = Path(__file__).parents[2] / "docs" / "conditions.md"
GIB = 2**30
NOW = "2026-11-26T10:11:12Z"
URL = "http://cotenant-gateway.cotenant-system.svc"
_PART = re.compile(r"(<!-- situations -->\n).*(<!-- end of situations -->)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Situation:
    title: str
    crd: Crd
    item: dict[str, Any]
    """The object with its status."""


def _object(item: ModelDeployment | Tenant | GPUPool, status: Mapping[str, Any]) -> dict[str, Any]:
    document = item.model_dump(by_alias=True, exclude_unset=True, mode="json")
    metadata = {**document["metadata"], "generation": 1}
    return {
        "apiVersion": item.api_version,
        "kind": item.kind,
        "metadata": metadata,
        "spec": document["spec"],
        "status": dict(status),
    }


def situations() -> list[Situation]:
    return [*_models(), *_tenants(), *_pools()]


CHAT = model("chat", namespace="search", model=SOURCE, gpu={"memory": "4Gi"})
TWO_CHATS = model("chat", namespace="search", model=SOURCE, gpu={"memory": "4Gi"}, replicas={"max": 2})
MIG_CHAT = model("chat", namespace="search", model=SOURCE, gpu={"mig": "1g.10gb"})
_POOL = pool(see.SHARED, see.MIG)


def _planned(*objects: Any, known: Any = None, **manifests: Any) -> ModelPlan:
    given = world(*(objects or (CHAT,)), *(() if _has_pool(objects) else (_POOL,)), known=known)
    given = replace(given, manifests=replace(given.manifests, namespace="cotenant-system", **manifests))
    made = next(item for item in plan(given, {}).models if item.name == see.MODEL)
    if made.engine is None:
        return made
    return replace(made, engine=msgspec.structs.replace(made.engine, revision=see.REVISION))


def _has_pool(objects: Sequence[Any]) -> bool:
    return any(isinstance(item, GPUPool) for item in objects)


def _model(
    title: str,
    seen: PoolSeen | None,
    planned: ModelPlan | None = None,
    *,
    item: ModelDeployment = CHAT,
    previous: Mapping[str, Any] | None = None,
) -> Situation:
    status = model_status(planned or _planned(item), seen, generation=1, previous=previous, now=NOW, url=URL)
    return Situation(title, CRDS[0], _object(item, status))


def _models() -> list[Situation]:
    return [*_models_that_run(), *_models_refused(), *_models_without_a_device(), *_models_without_a_conductor()]


def _source() -> str:
    planned = _planned()
    assert planned.engine is not None
    return planned.engine.source


def _kept(**weights: Any) -> PoolSeen:
    """A cold model, and what the first of two nodes' weight caches says of it."""
    nodes = (NodeWeights(node="node1", **weights), NodeWeights(node="node2"))
    return see.pool_seen(statuses=(msgspec.structs.replace(see.said(see.seen()), weights=nodes),))


_DENIED = (
    "VolumeUnusable",
    "/models/.cotenant: Permission denied; let this user write below /models, or use another folder",
)


def _models_that_run() -> list[Situation]:
    loading = see.engine(state="loading", stage="reading weights", progress=0.43)
    two = (see.engine(), see.engine(app=f"search.chat-{see.REVISION}-1", state="starting", device_id=""))
    older = (see.engine(revision="00aa11bb", app="search.chat-00aa11bb-0"),)
    on_nodes = pool(see.SHARED, see.MIG, cache={"path": "/models"})
    return [
        _model("Nobody asks for it: the first request wakes it", see.pool_seen(see.seen())),
        _model(
            "A request has come, and its engine loads",
            see.pool_seen(
                see.seen(
                    state="waking",
                    reason=Reason.LOADING,
                    message=f"search.chat-{see.REVISION}-0 on {see.NODE}/shared/0: loading reading weights 43 %",
                    engines=(loading,),
                )
            ),
        ),
        _model("It answers", see.pool_seen(see.ready())),
        _model("It answers, and a second engine starts", see.pool_seen(see.ready(engines=two)), item=TWO_CHATS),
        _model(
            "The spec was changed to one that loads nothing: the earlier revision serves on",
            see.pool_seen(
                see.ready(
                    engines=older,
                    revision="00aa11bb",
                    message="the earlier revision serves; 5e0f1a2b failed: CorruptWeights: "
                    "model.safetensors is cut off at 1048576 bytes; fetch it again",
                )
            ),
        ),
        _model(
            "It was ready and has gone cold; models are in a folder of each node",
            see.pool_seen(see.seen(), pool=on_nodes, workers={}),
            previous=model_status(
                _planned(), see.pool_seen(see.ready()), generation=1, previous=None, now=NOW, url=URL
            ),
        ),
        _model(
            "It was ready and has gone cold, and its pod with it",
            see.pool_seen(see.seen(), workers={}),
            previous=model_status(
                _planned(), see.pool_seen(see.ready()), generation=1, previous=None, now=NOW, url=URL
            ),
        ),
        _model("The caches of nodes have it", _kept(here={_source(): 8 * GIB})),
        _model("A node's cache fetches it before anybody asks", _kept(fetching={_source(): 40})),
        _model(
            "A node's cache has no room for it",
            _kept(failed={_source(): ("CacheFull", "8.0 GiB more do not fit: of the budget of 20.0 GiB, …")}),
        ),
        _model("Caches answer, and none has it yet", _kept()),
        _model("A node's cache cannot use its volume", _kept(problem=_DENIED)),
        _model(
            "Another model of the same name was there first",
            see.pool_seen(see.seen()),
            _planned(
                CHAT,
                model("chat", namespace="ads", task="echo"),
                tenant("both", namespaces=("search", "ads")),
                created={
                    ("ModelDeployment", "search", "chat"): "2026-11-26T10:00:01Z",
                    ("ModelDeployment", "ads", "chat"): "2026-11-26T10:00:00Z",
                },
            ),
        ),
        _model(
            "Its last engine failed: it is tried again by itself",
            see.pool_seen(
                see.seen(
                    state="failed",
                    reason=Reason.MEMORY_EXCEEDED,
                    message="used 4.4 GiB of a share of 4 GiB; set gpu.memory: 5Gi or lower engine.concurrency",
                )
            ),
        ),
    ]


def _models_refused() -> list[Situation]:
    small = model("chat", namespace="search", model=SOURCE, gpu={"memory": "1Gi"})
    lost = model("chat", namespace="search", model=SOURCE, pool="defualt")
    relative = model("chat", namespace="search", model="file://./chat")
    invalid = invalid_status(
        MODEL_CONDITIONS,
        ['spec.gpu.memory: "0.0Gi" must be greater than 0'],
        generation=1,
        previous=None,
        now=NOW,
    )
    closed = pool(see.SHARED, namespaces=("ads",))
    return [
        _model("Its files are not read yet", see.pool_seen(), _planned(known={})),
        _model("The share is too small", see.pool_seen(), item=small),
        _model("There is no such pool", None, item=lost),
        _model("The pool is not for its namespace", see.pool_seen(), _planned(CHAT, closed)),
        _model(
            "The hub has no such model",
            see.pool_seen(),
            _planned(
                known={
                    SOURCE: ModelNotFoundError(
                        f"{SOURCE}: the hub has no such repository or revision, or its token may not read it"
                    )
                }
            ),
        ),
        _model(
            "The hub does not answer",
            see.pool_seen(),
            _planned(known={SOURCE: HubUnreachableError(f"{SOURCE}: https://huggingface.co does not answer")}),
        ),
        _model("Its folder is named from a file, which a cluster does not have", see.pool_seen(), item=relative),
        Situation("The API server took a value that nobody can read", CRDS[0], _object(CHAT, invalid)),
        _model(
            "The gateways' configuration has no room for it",
            see.pool_seen(see.ready()),
            replace(_planned(), left_out=True),
        ),
    ]


def _missing_secret(*secrets: Any) -> str:
    tokenless = GPUPool.model_validate(
        {
            "metadata": {"name": "default"},
            "spec": {"workers": [see.SHARED], "cache": {"hub": {"secretRef": {"name": "hub-key", "key": "hf"}}}},
        }
    )
    manifests = replace(world(tokenless, *secrets).manifests, namespace="cotenant-system")
    return missing_hub_secrets(manifests)["default"]


def _models_without_a_device() -> list[Situation]:
    waking = see.seen(
        state="waking",
        reason=Reason.POD_PENDING,
        message="waits for a pod of group shared, asked for 47 s ago",
    )
    held = (
        f"{see.NODE}/shared/0: needs 4.00 GiB, 1.50 GiB of 80.00 GiB free; "
        "held by search.embed-0a1b2c3d-0 38.50 GiB (ready), ads.writer-1b2c3d4e-0 40.00 GiB (ready)"
    )
    no_room = see.seen(state="waiting", reason=Reason.NO_ROOM, message=held, explanation=(held,))
    unschedulable = see.pod("Unschedulable", "0/2 nodes are available: 2 Insufficient nvidia.com/gpu.")
    pull = see.pod("ImagePullBackOff", 'Back-off pulling image "ghcr.io/cotenant/cotenant-serving:0.1.0"')
    quota = see.pod(
        "FailedCreate",
        'pods "default-1a2b3c4d-shared-worker-x7k2p" is forbidden: exceeded quota: gpus, '
        "requested: requests.nvidia.com/gpu=1, used: requests.nvidia.com/gpu=4, limited: requests.nvidia.com/gpu=4",
    )
    crash = see.pod("CrashLoopBackOff", "back-off 40s restarting failed container=ray-worker")
    return [
        _model("No device has so much free, and nothing idle can make way", see.pool_seen(no_room)),
        _model("No node of the cluster has the MIG profile", see.pool_seen(see.seen()), item=MIG_CHAT),
        _model(
            "No node of the cluster has a GPU",
            see.pool_seen(see.seen(), groups=(see.SHARED,), workers={}, node_resources={}),
        ),
        _model(
            "The Secret with the hub's token of its pool is missing",
            see.pool_seen(see.seen(), workers={}, missing_secret=_missing_secret()),
        ),
        _model("Its pod waits for a node with room", see.pool_seen(waking, pods=(unschedulable,))),
        _model("The image of its pod cannot be pulled", see.pool_seen(waking, pods=(pull,))),
        _model("A quota refuses its pod", see.pool_seen(waking, pods=(quota,))),
        _model("Its pod crashes", see.pool_seen(waking, pods=(crash,))),
        _model("Its pod is on its way", see.pool_seen(waking)),
    ]


def _models_without_a_conductor() -> list[Situation]:
    before = model_status(_planned(), see.pool_seen(see.ready()), generation=1, previous=None, now=NOW, url=URL)
    redis = GPUPool.model_validate(
        {
            "metadata": {"name": "default"},
            "spec": {"workers": [see.SHARED, see.MIG], "head": {"redis": {"address": "redis.databases.svc:6379"}}},
        }
    )
    return [
        _model(
            "The cluster has no KubeRay",
            see.silent(kuberay="missing", active="", target="", head="absent", workers={}),
        ),
        _model("KubeRay is installed and does nothing", see.silent(kuberay="silent", head="pending")),
        _model(
            "The pool was just made: its head starts",
            see.silent(head="pending", problem="container ray-head is being created"),
        ),
        _model("The head's pod is gone, without Redis", see.silent(head="lost"), previous=before),
        _model("The head's pod is gone, with Redis", see.silent(head="lost", pool=redis), previous=before),
        _model(
            "The conductor does not answer",
            see.silent(problem="connection refused"),
            previous=before,
        ),
        _model("The conductor has not said anything of it yet", see.pool_seen()),
    ]


def _tenant(title: str, *objects: Any, **given: Any) -> Situation:
    made = world(*objects)
    made = replace(made, manifests=replace(made.manifests, namespace="cotenant-system"))
    (planned,) = (item for item in plan(made, {}).tenants if item.name == "search")
    item = next(item for item in objects if isinstance(item, Tenant) and item.metadata.name == "search")
    return Situation(title, CRDS[1], _object(item, tenant_status(planned, generation=1, previous=None, now=NOW)))


def _tenants() -> list[Situation]:
    search = tenant("search", namespaces=("search",))
    key = secret("search", KEY, namespace="cotenant-system")
    rival = tenant("ads", namespaces=("ads",))
    return [
        _tenant("A tenant with a key and a model", search, key, CHAT),
        _tenant("A tenant whose Secret is missing", search, CHAT),
        _tenant("A tenant without a key", tenant("search", namespaces=("search",), keys=[]), CHAT),
        _tenant(
            "Two tenants with the same key",
            search,
            rival,
            key,
            secret("ads", KEY, namespace="cotenant-system"),
            CHAT,
        ),
        _tenant("A tenant that sees no model", search, key),
    ]


def _pool(title: str, seen: PoolSeen) -> Situation:
    planned = plan(World(world(CHAT, seen.pool).manifests, {SOURCE: facts()}), {}).pool("default")
    status = pool_status(planned, seen, generation=1, previous=None, now=NOW)
    return Situation(title, CRDS[2], _object(seen.pool, status))


def _pools() -> list[Situation]:
    rolls = {"target": "default-9f8e7d6c", "statuses": (see.said(see.ready()), see.said(see.seen()))}
    return [
        _pool("A pool that serves", see.pool_seen(see.ready())),
        _pool("A pool with a node whose volume its cache cannot use", _kept(problem=_DENIED)),
        _pool(
            "A pool whose node agents do not come up",
            see.pool_seen(
                see.ready(),
                pool=pool(see.SHARED, see.MIG, cache={"path": "/models"}),
                agents=AgentsSeen(namespace="cotenant-system", wanted=3, created=3, ready=2),
            ),
        ),
        _pool(
            "A pool without KubeRay", see.silent(kuberay="missing", active="", target="", head="absent", workers={})
        ),
        _pool(
            "A pool whose head cannot pull its image",
            see.silent(head="pending", workers={}, pods=(see.pod("ErrImagePull", "not found", group=""),)),
        ),
        _pool("A pool whose head is gone", see.silent(head="lost")),
        _pool(
            "A pool whose Secret lacks the hub's token",
            see.pool_seen(
                workers={}, missing_secret=_missing_secret(secret("hub", KEY, namespace="cotenant-system"))
            ),
        ),
        _pool(
            "A pool that rolls to other pods",
            see.pool_seen(
                **rolls,
                phase="Warming",
                rolling="the image has changed: default-9f8e7d6c loads 1 model that default-1a2b3c4d has warm",
            ),
        ),
        _pool(
            "A pool that cannot roll",
            see.pool_seen(
                **rolls,
                phase="Stuck",
                rolling="the head of default-9f8e7d6c is not ready: ErrImagePull; default-1a2b3c4d serves on; "
                "correct the image, or take it back",
            ),
        ),
    ]


def render() -> str:
    """The page's part: one section for each situation."""
    return "\n".join(_section(number, item) for number, item in enumerate(situations(), start=1))


def _section(number: int, situation: Situation) -> str:
    metadata = situation.item["metadata"]
    namespace = f" -n {metadata['namespace']}" if "namespace" in metadata else ""
    shown = printed(situation.crd, situation.item)
    rows = "".join(_row(item) for item in situation.item["status"]["conditions"])
    return (
        f"### {number}. {situation.title}\n\n"
        f"```text\n$ kubectl get {situation.crd.short}{namespace} {metadata['name']}\n{shown}```\n\n"
        f"| Condition | Status | Reason | Message |\n| --- | --- | --- | --- |\n{rows}"
    )


def _row(item: Mapping[str, str]) -> str:
    message = item["message"].replace("|", "\\|")
    return f"| {item['type']} | {item['status']} | `{item['reason']}` | {message} |\n"


def page() -> tuple[Path, str]:
    """docs/conditions.md and what should stand in it."""

    def made(match: re.Match[str]) -> str:
        return f"{match[1]}\n{render()}\n{match[2]}"

    return PAGE, _PART.sub(made, PAGE.read_text())
