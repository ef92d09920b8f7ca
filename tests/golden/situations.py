"""The golden situations: models.yaml, what the machine has and what the model files say → every rendered message.

<situation>/models.yaml    what a user writes (read these first)
<situation>/facts.json     {"facts": {spec.model: fields}, "devices": {pool: {group: fields}}}
<situation>/plan.json      what `cotenant plan -o json` prints
<situation>/desired.json   what the conductor gets (the first pool)
<situation>/gateway.json   what the gateway gets
<situation>/raycluster.yaml   what KubeRay gets for each GPUPool, and the Service of its conductor
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from cotenant_cache import errors
from cotenant_cache.facts import ModelFacts
from cotenant_operator.cluster_names import raycluster_name
from cotenant_operator.manifests import load
from cotenant_operator.objects import World
from cotenant_operator.operator_settings import OperatorSettings
from cotenant_operator.plan import DeviceFacts, plan
from cotenant_operator.plan_report import plan_document
from cotenant_operator.render.desired import render_desired
from cotenant_operator.render.gateway import render_gateway
from cotenant_operator.render.raycluster import render_conductor_service, render_raycluster, template_hash
from cotenant_operator.spec import GPUPool

FOLDER = Path(__file__).parent
CREATED = 1_700_000_000


def situations() -> list[str]:
    return sorted(path.parent.name for path in FOLDER.glob("*/models.yaml"))


def render(situation: str) -> dict[str, str]:
    """File name → text of everything that follows from one situation's inputs."""
    folder = FOLDER / situation
    known = json.loads((folder / "facts.json").read_text())
    world = World(load([folder / "models.yaml"]), {name: _facts(given) for name, given in known["facts"].items()})
    planned = plan(world, _devices(known["devices"]))
    desired = render_desired(planned.pools[0], generation=1)
    gateway = render_gateway(
        planned,
        world.manifests,
        generation=1,
        conductors=["http://127.0.0.1:8700"],
        pool_token_file="/run/cotenant/pool-token",
        created=CREATED,
    )
    rendered = {
        "plan.json": plan_document(planned),
        "desired.json": msgspec.to_builtins(desired),
        "gateway.json": msgspec.to_builtins(gateway),
    }
    texts = {name: _text(value, folder) for name, value in rendered.items()}
    if world.manifests.pools:
        texts["raycluster.yaml"] = _rayclusters(world.manifests.pools)
    return texts


def _rayclusters(pools: Iterable[GPUPool]) -> str:
    settings = OperatorSettings()
    documents = []
    for pool in pools:
        name = raycluster_name(pool.metadata.name, template_hash(pool, settings))
        documents += [
            render_raycluster(pool, settings, name, uid="the-uid-of-the-gpupool"),
            render_conductor_service(pool, settings, name, uid="the-uid-of-the-raycluster"),
        ]
    return yaml.dump_all(documents, Dumper=_NoAliases, sort_keys=False, width=120)


class _NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _facts(given: Mapping[str, Any]) -> ModelFacts | errors.CacheError:
    if "error" in given:
        kind: type[errors.CacheError] = getattr(errors, given["error"])
        return kind(given["message"])
    return ModelFacts(**given)


def _devices(given: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, DeviceFacts]]:
    return {pool: {name: DeviceFacts(**fields) for name, fields in groups.items()} for pool, groups in given.items()}


def _text(value: Any, folder: Path) -> str:
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return text.replace(f"{folder}/", "")
