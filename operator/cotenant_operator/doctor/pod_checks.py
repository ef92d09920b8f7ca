"""Why pods of cotenant do not run, or are not even made. Pure."""

import re
from collections.abc import Iterator

from cotenant_operator.doctor.checks import Finding
from cotenant_operator.doctor.cluster_snapshot import ClusterSnapshot
from cotenant_operator.doctor.install_checks import not_seen
from cotenant_operator.kinds import Object
from cotenant_operator.kube_objects import NO_IMAGE, at, condition, container_states, instant, name_of, time_of

RECENT_S = 1800.0
"""Events that are older may be settled: Kubernetes tries again at least every quarter of an hour."""
PENDING_S = 15.0
_CONFIG = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})


def pods(seen: ClusterSnapshot) -> Iterator[Finding]:
    """One finding for each pod that is held up, and one for all that run."""
    if seen.pods.missing_right:
        yield not_seen("pods", seen.pods)
        return
    found = [finding for pod in seen.pods.items if (finding := _pod(pod, seen))]
    yield from found
    if seen.pods.items and not found:
        yield Finding("ok", "pods", f"{len(seen.pods.items)} in {seen.namespace}, none is held up")


def _pod(pod: Object, seen: ClusterSnapshot) -> Finding | None:
    return _unscheduled(pod, seen) or _container_held_up(pod, seen.namespace) or _unmounted(pod, seen)


def _unscheduled(pod: Object, seen: ClusterSnapshot) -> Finding | None:
    scheduled = condition(pod, "PodScheduled")
    waits_s = seen.now_s - (instant(at(pod, "metadata", "creationTimestamp")) or seen.now_s)
    if at(pod, "status", "phase") != "Pending" or scheduled.get("status") != "False" or waits_s < PENDING_S:
        return None
    said = str(scheduled.get("message") or scheduled.get("reason") or "no node takes it")
    return Finding("problem", f"pod {name_of(pod)}", f"waits for a node for {waits_s:.0f} s: {said}", _room(said))


def _room(said: str) -> str:
    """What makes room, by the scheduler's own words."""
    if match := re.search(r"Insufficient ([\w./-]+)", said):
        resource = match[1]
        less = "lower spec.workers[].resources, or " if resource in ("cpu", "memory") else ""
        return f"{less}free or add nodes with {resource}; who has it now: kubectl describe nodes"
    if "untolerated taint" in said:
        return "add the toleration to spec.workers[] of the GPUPool"
    if "node affinity" in said or "selector" in said:
        return "correct spec.workers[].nodeSelector or affinity of the GPUPool, or label a node"
    if "PersistentVolumeClaim" in said or "persistentvolumeclaim" in said:
        return "make the claim, or a StorageClass that provisions it: kubectl get pvc,storageclass"
    return "kubectl describe nodes shows what is free"


def _unmounted(pod: Object, seen: ClusterSnapshot) -> Finding | None:
    """A volume that cannot be had stands in no field of the pod: its containers are only being created."""
    states = [at(status, "state", "waiting", "reason") for _, status in container_states(pod)]
    if not set(states) & {"ContainerCreating", "PodInitializing"}:
        return None
    for event in sorted(seen.events.items, key=time_of, reverse=True):
        about, age_s = at(event, "involvedObject") or {}, seen.now_s - time_of(event)
        if about.get("name") == name_of(pod) and event.get("reason") == "FailedMount" and age_s <= RECENT_S:
            said = str(event.get("message") or "")
            text = f"waits for a volume, {age_s:.0f} s ago: {said}"
            return Finding("problem", f"pod {name_of(pod)}", text, _volume(said, pod, seen.namespace))
    return None


def _volume(said: str, pod: Object, namespace: str) -> str:
    if match := re.search(r'(secret|configmap) "([^"]+)" not found', said):
        kind, name = match[1].replace("secret", "secret generic"), match[2]
        return f"make it: kubectl -n {namespace} create {kind} {name} --from-file=KEY=FILE; the pod then goes on"
    return f"kubectl -n {namespace} describe pod {name_of(pod)}"


def _container_held_up(pod: Object, namespace: str) -> Finding | None:
    check = f"pod {name_of(pod)}"
    for name, status in container_states(pod):
        waiting = at(status, "state", "waiting") or {}
        reason, said = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
        if reason in NO_IMAGE:
            text = f"image {status.get('image', '?')} cannot be pulled ({reason}): {said}".rstrip(": ")
            return Finding("problem", check, text, _pull(said, namespace))
        if reason in _CONFIG:
            text = f"container {name} cannot be made ({reason}): {said}".rstrip(": ")
            return Finding("problem", check, text, f"kubectl -n {namespace} describe pod {name_of(pod)}")
        if reason == "CrashLoopBackOff":
            return _crashing(pod, name, status, namespace)
    return None


def _pull(said: str, namespace: str) -> str:
    lowered = said.lower()
    if any(word in lowered for word in ("401", "403", "unauthorized", "denied", "forbidden")):
        return (
            f"kubectl -n {namespace} create secret docker-registry registry --docker-server=… --docker-username=… "
            "--docker-password=…, and name it: helm upgrade … --set 'imagePullSecrets[0].name=registry'"
        )
    return "check name and tag: helm get values cotenant; the nodes must reach the registry, or have the image"


def _crashing(pod: Object, name: str, status: Object, namespace: str) -> Finding:
    last = at(status, "lastState", "terminated") or {}
    why = f"{last.get('reason', 'Error')}, exit code {last.get('exitCode', '?')}"
    text = f"container {name} ends again and again ({status.get('restartCount', '?')} times; {why})"
    if last.get("reason") == "OOMKilled":
        fix = "it needs more memory than its limit: raise spec.workers[].resources of the GPUPool, or the chart's"
    else:
        fix = f"kubectl -n {namespace} logs {name_of(pod)} -c {name} --previous"
    return Finding("problem", f"pod {name_of(pod)}", text, fix)


def refusals(seen: ClusterSnapshot) -> Iterator[Finding]:
    """Pods that the API server has refused: quota, pod security, limit ranges. Each cause once."""
    if seen.events.missing_right:
        yield not_seen("refused pods", seen.events)
        return
    told: set[str] = set()
    for event in sorted(seen.events.items, key=time_of, reverse=True):
        said, about = str(event.get("message") or ""), at(event, "involvedObject") or {}
        judged = _judged(said, seen.namespace)
        if judged is None or seen.now_s - time_of(event) > RECENT_S or judged[0] in told:
            continue
        told.add(judged[0])
        check, fix = judged
        text = (
            f"{about.get('kind', 'object')} {about.get('name', '?')}, {seen.now_s - time_of(event):.0f} s ago: {said}"
        )
        yield Finding("problem", check, text, fix)


def _judged(said: str, namespace: str) -> tuple[str, str] | None:
    """(what kind of refusal, what to do), or None when it is none."""
    if "exceeded quota" in said or "failed quota" in said:
        match = re.search(r"(?:exceeded|failed) quota: ([\w.-]+)", said)
        quota = match[1] if match else ""
        return "quota", f"kubectl -n {namespace} edit resourcequota {quota}".rstrip()
    if "violates PodSecurity" in said:
        match = re.search(r'violates PodSecurity "([\w-]+):', said)
        level = match[1] if match else "restricted"
        lower = "privileged" if "hostPath" in said else "baseline"
        return "pod security", (
            f"remove what violates it from spec.workers[].podTemplate (or the chart's values), or allow more than "
            f"{level!r}: kubectl label namespace {namespace} pod-security.kubernetes.io/enforce={lower} --overwrite"
        )
    if "is forbidden" in said and ("per Container" in said or "per Pod" in said):
        return "limit range", f"kubectl -n {namespace} describe limitrange"
    return None
