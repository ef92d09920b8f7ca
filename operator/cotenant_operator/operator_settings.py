"""What the operator is told at its start: one YAML or JSON file, strict, names in camelCase. The chart writes it.

What a pool's users decide stands in GPUPool; here stands what whoever installs cotenant decides for all pools.
"""

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from cotenant_operator.failure import FlagError
from cotenant_operator.positions import Document, YamlProblem, documents
from cotenant_operator.problems import problems_of
from cotenant_operator.schema import ByteCount, Count, DurationS, Flag, Name, Namespace, Spec
from cotenant_serving.contract import REQUEST_TIMEOUT_S

TOKENS_SECRET = "cotenant-tokens"  # noqa: S105 - the name of a Secret
POOL_TOKEN, CONTROL_TOKEN = "pool-token", "control-token"
GATEWAY_SECRET = "cotenant-gateway"  # noqa: S105 - the name of a Secret
GATEWAY_KEY = "gateway.json.gz"
OLD_GATEWAY_KEY = "gateway.json"
"""Where operators wrote it before it was packed; read once, and never written."""
TOKENS_FOLDER = "/etc/cotenant/tokens"
CONDUCTOR_PORT = 8700
CACHE_PORT = 8790
STOPPING_S = 30
"""What an engine that ends may take beyond its longest request."""


class Image(Spec):
    name: str = Field(default="ghcr.io/cotenant/cotenant-serving:0.1.0", min_length=1, description="Name and tag.")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        default="IfNotPresent", description="When nodes pull it."
    )
    pull_secrets: tuple[Name, ...] = Field(default=(), description="Secrets for its registry, in our namespace.")


class Resources(Spec):
    """A container's resources, as Kubernetes has them."""

    requests: dict[str, str | int | float] = Field(default={}, description="Asked of the scheduler.")
    limits: dict[str, str | int | float] = Field(default={}, description="At most.")


class Ray(Spec):
    version: str = Field(default="2.60.0", description="Version of Ray in the serving image.")
    idle_timeout: DurationS = Field(
        default=60.0, description="A worker pod without engines for this long is given back."
    )


class PodSizes(Spec):
    head: Resources = Field(
        default=Resources(requests={"cpu": "200m", "memory": "1Gi"}, limits={"memory": "4Gi"}),
        description="Container ray-head.",
    )
    autoscaler: Resources = Field(
        default=Resources(requests={"cpu": "50m", "memory": "256Mi"}, limits={"memory": "1Gi"}),
        description="Container of Ray's autoscaler.",
    )
    conductor: Resources = Field(
        default=Resources(requests={"cpu": "100m", "memory": "512Mi"}, limits={"memory": "2Gi"}),
        description="Container conductor.",
    )
    worker: Resources = Field(
        default=Resources(requests={"cpu": "500m", "memory": "1Gi"}),
        description="Container ray-worker, beside the device; a group's own resources win.",
    )
    cache: Resources = Field(
        default=Resources(requests={"cpu": "50m", "memory": "128Mi"}, limits={"memory": "1Gi"}),
        description="Container cache, of worker pods and of nodes' agents.",
    )


class DefaultPool(Spec):
    enabled: Flag = Field(default=True, description="Make a GPUPool `default` once, if there is no GPUPool at all.")
    memory: Annotated[ByteCount, Field(gt=0)] = Field(
        default=8 * 2**30, description="Of one worker pod of its group `cpu`, a quantity."
    )
    max: Annotated[Count, Field(ge=1)] = Field(default=2, description="Worker pods at most.")


class Timeouts(Spec):
    """How patient the operator is."""

    conductor: DurationS = Field(default=5.0, description="One call to a conductor.")
    conductor_poll: DurationS = Field(default=2.0, description="Between two looks at a conductor.")
    resync: DurationS = Field(default=300.0, description="All is compared again this often, without any event.")
    debounce: DurationS = Field(default=0.1, description="Events of this span are answered by one pass.")
    watch_silence: DurationS = Field(default=75.0, description="A watch that is silent for so long is opened anew.")
    roll_drain: DurationS = Field(
        default=900.0,
        description="The longest that an old RayCluster may finish its requests while a pool rolls; never less than "
        "the longest request takes.",
    )


class OperatorSettings(Spec):
    """Everything; every field has a default that works."""

    namespace: Namespace = Field(default="cotenant-system", description="Where pods, Services and Secrets stand.")
    gateway_service: str = Field(default="cotenant-gateway", description="Service whose ready endpoints are counted.")
    gateway_url: str = Field(default="", description="What users call; empty: the Service's name inside the cluster.")
    request_timeout: Annotated[DurationS, Field(ge=1)] = Field(
        default=REQUEST_TIMEOUT_S,
        description="The longest request, as gateways have it: engines and worker pods that end get longer.",
    )
    image: Image = Field(default=Image(), description="Image of head, conductor and workers.")
    ray: Ray = Field(default=Ray(), description="Ray and its autoscaler.")
    resources: PodSizes = Field(default=PodSizes(), description="Sizes of the containers of pools.")
    extra_env: tuple[dict[str, Any], ...] = Field(
        default=(), description="Environment of every container of pools, as Kubernetes' EnvVar."
    )
    extra_volumes: tuple[dict[str, Any], ...] = Field(default=(), description="Volumes of every pod of pools.")
    extra_volume_mounts: tuple[dict[str, Any], ...] = Field(
        default=(), description="Mounts of these volumes in every container of pools."
    )
    network_policies: Flag = Field(
        default=True, description="Make a NetworkPolicy for each RayCluster: its pods reach each other."
    )
    default_pool: DefaultPool = Field(default=DefaultPool(), description="The pool of a cluster that has none.")
    usage_retention_days: Count = Field(
        default=400, description="Usage of days that are longer ago is deleted; 0: all is kept."
    )
    timeouts: Timeouts = Field(default=Timeouts(), description="How patient the operator is.")
    cache_dir: str = Field(
        default="/tmp/cotenant-facts",  # noqa: S108
        description="Models that are whole in this folder, as a weight cache keeps them, need no hub to be planned.",
    )

    @property
    def url(self) -> str:
        """Base URL of the gateway, without a slash at its end."""
        return (self.gateway_url or f"http://{self.gateway_service}.{self.namespace}.svc").rstrip("/")

    @property
    def drain_s(self) -> int:
        """What the engines of a pod that ends may take: the longest request, and their stopping."""
        return math.ceil(self.request_timeout) + STOPPING_S

    @property
    def roll_drain_s(self) -> float:
        """What an old RayCluster may take to finish its requests: no roll cuts one that a gateway lets run."""
        return max(self.timeouts.roll_drain, float(self.drain_s))


def read_settings(path: Path | None, *, namespace: str = "") -> OperatorSettings:
    """The file, or the defaults without one; `namespace` wins when given. Raises FlagError with every mistake."""
    document = _document(path) if path is not None else _EMPTY
    value = {**document.value, "namespace": namespace} if namespace else document.value
    try:
        return OperatorSettings.model_validate(value, by_alias=True, by_name=False)
    except ValidationError as error:
        found = problems_of(error, OperatorSettings, replace(document, value=value), str(path or "--namespace"))
        raise FlagError("\n".join(str(problem) for problem in found)) from None


_EMPTY = Document({}, 0, {}, {})


def _document(path: Path) -> Document:
    try:
        found = list(documents(path.read_text()))
    except OSError as error:
        raise FlagError(f"--settings {path}: cannot be read: {error.strerror}; check the path") from None
    except UnicodeDecodeError:
        raise FlagError(f"--settings {path}: is not UTF-8 text") from None
    except YamlProblem as error:
        raise FlagError(f"--settings {path}:{error.line}: {error.message}") from None
    if not found:
        return _EMPTY
    if len(found) > 1 or not isinstance(found[0].value, dict):
        raise FlagError(f"--settings {path}: must be one mapping of fields")
    return found[0]
