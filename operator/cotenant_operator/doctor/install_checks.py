"""Is cotenant installed in the cluster, and what it stands on? Pure."""

import re
from collections.abc import Iterator

from cotenant_operator.doctor.checks import Finding
from cotenant_operator.doctor.cluster_snapshot import ClusterSnapshot, Seen
from cotenant_operator.kinds import Object
from cotenant_operator.kube_objects import at, condition, full_name, instant, labels_of, name_of, number_at
from cotenant_operator.operator_settings import GATEWAY_SECRET, TOKENS_SECRET

KUBERNETES = (1, 29)
"""CEL rules of CRDs are stable from here on."""
KUBERAY = (1, 6)
"""Token authentication of Ray together with the in-tree autoscaler."""
KUBERAY_CRD = "rayclusters.ray.io"
CRDS = ("modeldeployments.cotenant.dev", "tenants.cotenant.dev", "gpupools.cotenant.dev")
OPERATOR, GATEWAY = "cotenant-operator", "cotenant-gateway"
LEASE = "cotenant-operator"
NEEDED_SECRETS = (TOKENS_SECRET, GATEWAY_SECRET)
"""The operator makes them; gateway and pools mount them."""
_KUBERAY_CHART = (
    "kuberay-operator kuberay-operator --repo https://ray-project.github.io/kuberay-helm/ --version 1.6.1"
)


def kubernetes(seen: ClusterSnapshot) -> Iterator[Finding]:
    where = f"{seen.version or 'unknown version'} at {seen.server} (context {seen.context})"
    if seen.version and _numbers(seen.version)[:2] < KUBERNETES:
        wanted = ".".join(map(str, KUBERNETES))
        yield Finding("problem", "kubernetes", f"{where} is older than {wanted}", "upgrade the cluster")
    else:
        yield Finding("ok", "kubernetes", where)


def crds(seen: ClusterSnapshot) -> Iterator[Finding]:
    if seen.crds.missing_right:
        yield not_seen("crds", seen.crds)
        return
    missing = [name for name in CRDS if seen.crds.named(name) is None]
    if missing:
        fix = f"helm install cotenant charts/cotenant --namespace {seen.namespace} --create-namespace"
        yield Finding("problem", "crds", f"not installed: {', '.join(missing)}", fix)
        return
    older = [lack for crd in seen.wanted_crds for lack in _lacks(crd, seen.crds.named(name_of(crd)) or {})]
    if older:
        more = f" and {len(older) - 3} more" if len(older) > 3 else ""
        text = f"older than this version of cotenant: they lack {', '.join(older[:3])}{more}"
        fix = f"helm upgrade cotenant charts/cotenant --namespace {seen.namespace}"
        yield Finding("problem", "crds", text, fix)
    else:
        yield Finding("ok", "crds", ", ".join(name.partition(".")[0] for name in CRDS))


def _lacks(wanted: Object, have: Object) -> list[str]:
    """Fields of a CRD that the cluster's does not have: `GPUPool.spec.head`."""
    kind = str(at(wanted, "spec", "names", "kind"))
    return [f"{kind}.{field}" for field in sorted(_fields(wanted) - _fields(have)) if field.startswith("spec.")]


def _fields(crd: Object) -> set[str]:
    """Dotted paths of all properties in the newest version's schema."""
    versions = at(crd, "spec", "versions") or [{}]
    found: set[str] = set()

    def walk(schema: object, path: str) -> None:
        for name, inner in (at(schema, "properties") or {}).items() if isinstance(schema, dict) else ():
            field = f"{path}.{name}" if path else name
            found.add(field)
            walk(inner, field)
            walk(at(inner, "items"), field)

    walk(at(versions[-1], "schema", "openAPIV3Schema"), "")
    return found


def kuberay(seen: ClusterSnapshot) -> Iterator[Finding]:
    install = f"helm install {_KUBERAY_CHART} --namespace kuberay-system --create-namespace"
    if not seen.crds.missing_right and seen.crds.named(KUBERAY_CRD) is None:
        yield Finding("problem", "kuberay", "not installed: there is no kind RayCluster", install)
        return
    if seen.kuberay.missing_right:
        yield not_seen("kuberay", seen.kuberay)
        return
    if not seen.kuberay.items:
        text = (
            "its CRDs are there, but no Deployment has the label app.kubernetes.io/name=kuberay-operator, or =kuberay"
        )
        # Somebody may run it otherwise: whether it acts is a condition of each pool.
        yield Finding("warning", "kuberay", text, install)
        return
    for deployment in seen.kuberay.items:
        yield _kuberay_operator(deployment, seen.crds.named(KUBERAY_CRD))


def _kuberay_operator(deployment: Object, crd: Object | None) -> Finding:
    version, name = kuberay_version(deployment), full_name(deployment)
    namespace = name.partition("/")[0]
    upgrade = f"helm upgrade {_KUBERAY_CHART} --namespace {namespace}; its CRDs too: {_KUBERAY_CRDS}"
    if version and _numbers(version)[:2] < KUBERAY:
        wanted = ".".join(map(str, KUBERAY))
        text = f"{name} is {version}; cotenant needs {wanted} or newer (token authentication of Ray)"
        return Finding("problem", "kuberay", text, upgrade)
    if crd is not None and "spec.authOptions" not in _fields(crd):
        text = f"{name} is {version or 'of unknown version'}, but its CRD {KUBERAY_CRD} is older: no spec.authOptions"
        return Finding("problem", "kuberay", text, _KUBERAY_CRDS)
    if not number_at(deployment, "status", "readyReplicas"):
        fix = f"kubectl -n {namespace} describe pods -l app.kubernetes.io/component=kuberay-operator"
        return Finding("problem", "kuberay", f"{name} {version} is not ready", fix)
    return Finding("ok", "kuberay", f"{name} {version or 'of unknown version'}")


_KUBERAY_CRDS = (
    "kubectl apply --server-side --force-conflicts -k "
    "'github.com/ray-project/kuberay/ray-operator/config/crd?ref=v1.6.1'"
)


def kuberay_version(deployment: Object) -> str:
    """From its image, else from its labels; empty when neither says."""
    containers = at(deployment, "spec", "template", "spec", "containers") or [{}]
    tag = str(containers[0].get("image", "")).partition("@")[0].rpartition("/")[2].partition(":")[2]
    labels = labels_of(deployment)
    for text in (tag, labels.get("app.kubernetes.io/version", ""), labels.get("helm.sh/chart", "")):
        if match := re.search(r"v?(\d+\.\d+(\.\d+)?)", text):
            return match[1]
    return ""


def operator(seen: ClusterSnapshot) -> Iterator[Finding]:
    yield from _deployment(seen, OPERATOR, "operator", "nothing that you apply has an effect")
    if seen.leases.missing_right or seen.deployments.named(OPERATOR) is None:
        return
    lease = seen.leases.named(LEASE)
    holder = at(lease or {}, "spec", "holderIdentity")
    renewed = instant(at(lease or {}, "spec", "renewTime"))
    lasts_s = number_at(lease or {}, "spec", "leaseDurationSeconds") or 15
    fix = f"kubectl -n {seen.namespace} logs deployment/{OPERATOR} --all-pods --tail 50"
    if not holder or renewed is None:
        yield Finding("problem", "operator leader", f"nobody holds the Lease {seen.namespace}/{LEASE}", fix)
    elif seen.now_s - renewed > 2 * lasts_s:
        text = f"{holder} holds the Lease {LEASE}, but renewed it {seen.now_s - renewed:.0f} s ago"
        yield Finding("problem", "operator leader", text, fix)
    else:
        yield Finding("ok", "operator leader", str(holder))


def gateway(seen: ClusterSnapshot) -> Iterator[Finding]:
    yield from _deployment(seen, GATEWAY, "gateway", "no request is answered")


def secrets(seen: ClusterSnapshot) -> Iterator[Finding]:
    if seen.secrets.missing_right:
        yield not_seen("secrets", seen.secrets)
        return
    if seen.deployments.named(OPERATOR) is None:
        return
    missing = [name for name in NEEDED_SECRETS if seen.secrets.named(name) is None]
    if missing:
        fix = f"the operator makes them; why it does not: kubectl -n {seen.namespace} logs deployment/{OPERATOR}"
        text = f"missing in {seen.namespace}: {', '.join(missing)}; gateway and pools wait for them"
        yield Finding("problem", "secrets", text, fix)
    else:
        yield Finding("ok", "secrets", ", ".join(NEEDED_SECRETS))


def pools(seen: ClusterSnapshot) -> Iterator[Finding]:
    """What the operator itself says of each GPUPool."""
    if seen.pools.missing_right:
        yield not_seen("pools", seen.pools)
    elif not seen.pools.items and not seen.pools.absent:
        fix = "kubectl apply a GPUPool (docs/yaml.md), or let the chart make one: --set defaultPool.enabled=true"
        yield Finding("problem", "pools", "there is no GPUPool, so no model has a place", fix)
    for pool in seen.pools.items:
        ready, check = condition(pool, "Ready"), f"pool {name_of(pool)}"
        if ready.get("status") == "True":
            yield Finding("ok", check, str(ready.get("message") or "ready"))
            continue
        worst = next(iter(_not_true(pool)), ready)
        reason = worst.get("reason") or "NotSeenYet"
        text = (
            f"{worst.get('type', 'Ready')} is {worst.get('status', 'Unknown')} ({reason}): {worst.get('message', '')}"
        )
        fix = f"kubectl describe gpupool {name_of(pool)}"
        yield Finding("problem", check, text.rstrip(": "), fix)


def _not_true(pool: Object) -> list[Object]:
    order = ("Accepted", "KubeRayReady", "ConductorReady")
    found = (condition(pool, type) for type in order)
    return [item for item in found if item and item.get("status") != "True"]


def _deployment(seen: ClusterSnapshot, name: str, check: str, effect: str) -> Iterator[Finding]:
    if seen.deployments.missing_right:
        yield not_seen(check, seen.deployments)
        return
    deployment = seen.deployments.named(name)
    if deployment is None:
        text = f"there is no Deployment {name} in namespace {seen.namespace}: {effect}"
        fix = f"helm upgrade --install cotenant charts/cotenant --namespace {seen.namespace} --create-namespace"
        yield Finding("problem", check, text, f"{fix} (or name its namespace with --operator-namespace)")
        return
    ready, wanted = number_at(deployment, "status", "readyReplicas"), number_at(deployment, "spec", "replicas")
    if ready >= max(1, wanted):
        yield Finding("ok", check, f"{ready} of {wanted} ready")
        return
    level, fix = (
        "warning" if ready else "problem",
        f"kubectl -n {seen.namespace} describe pods -l {_labels(deployment)}",
    )
    text = f"{ready} of {wanted} ready" + ("" if ready else f": {effect}")
    yield Finding(level, check, text, fix)  # type: ignore[arg-type]


def _labels(deployment: Object) -> str:
    found = at(deployment, "spec", "selector", "matchLabels") or {}
    return ",".join(f"{name}={value}" for name, value in sorted(found.items()))


def not_seen(check: str, seen: Seen) -> Finding:
    fix = "ask somebody with the right to, such as an administrator of the cluster, or bind a role with it to you"
    return Finding("warning", check, f"not looked at: you may not {seen.missing_right}", fix)


def _numbers(version: str) -> tuple[int, ...]:
    found = re.search(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in found[0].split(".")) if found else ()
