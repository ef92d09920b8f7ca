"""`cotenant logs MODEL` in a cluster: the logs of the pods in which its engines are."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cotenant_operator.cluster_errors import ClusterError, ForbiddenError, InvalidError, NotFoundError
from cotenant_operator.cluster_names import WORKER_CONTAINER
from cotenant_operator.kinds import CORE_EVENTS, MODELS, PODS, Object
from cotenant_operator.kube_objects import at, container_states, full_name, name_of, namespace_of, number_at
from cotenant_operator.pod_logs import last_of_each, last_runs, last_words, lines_of, pods_of

if TYPE_CHECKING:
    from cotenant_operator.engine_logs import Line
    from cotenant_operator.kube_reading import KubeApi

LOOK_S = 2.0


@dataclass(slots=True, kw_only=True)
class PodLogs:
    """The logs of one model's engines. `namespace` is where the pods are."""

    api: "KubeApi"
    namespace: str
    model: Object
    since_s: int | None = None
    _seen: dict[str, str] = field(default_factory=dict)
    """Pod → the server's time of the last line that was read."""
    _lines: "queue.SimpleQueue[Line | ClusterError]" = field(default_factory=queue.SimpleQueue)
    _followed: set[str] = field(default_factory=set)

    def read(self, *, previous: bool, tail: int | None) -> "list[Line]":
        """Lines of all engines in the order of their times. Raises ClusterError."""
        found: list[Line] = []
        for pod, restarted in self._pods(everything=previous):
            if previous and restarted:
                found += self._read(pod, previous=True)
            found += self._read(pod)
        found.sort(key=lambda line: line.time)
        shown = found if previous else last_runs(found)
        return shown if tail is None else last_of_each(shown, tail)

    def follow(self, show: "Callable[[Line], None]") -> None:
        """What comes after what was read, also in pods that come later, until the caller is interrupted.

        Raises ClusterError for a right that lacks.
        """
        looked_s = -LOOK_S
        while True:
            if time.monotonic() - looked_s >= LOOK_S:
                self._follow_new_pods()
                looked_s = time.monotonic()
            with contextlib.suppress(queue.Empty):
                line = self._lines.get(timeout=LOOK_S / 4)
                if isinstance(line, ClusterError):
                    raise line
                show(line)

    def words(self) -> list[str]:
        """What the object itself says: its owner may see that without any right on our pods."""
        selector = f"involvedObject.kind={MODELS.kind},involvedObject.name={name_of(self.model)}"
        events: list[Object] = []
        with contextlib.suppress(ClusterError):
            events = self.api.list(CORE_EVENTS.path(namespace_of(self.model)), {"fieldSelector": selector})
        return last_words(self.model, events, now_s=time.time())

    def _pods(self, *, everything: bool) -> list[tuple[str, bool]]:
        """(pod, has its container run before): those that the status names, else all workers of the pool."""
        named = pods_of(self.model)
        selector = str(at(self.model, "status", "selector") or "")
        if (named and not everything) or not selector:
            return [(name, False) for name in named]
        pods = self.api.list(PODS.path(self.namespace), {"labelSelector": selector})
        found = {
            name_of(pod): any(number_at(status, "restartCount") for _, status in container_states(pod))
            for pod in pods
        }
        return sorted((dict.fromkeys(named, False) | found).items())

    def _read(self, pod: str, *, previous: bool = False) -> "list[Line]":
        query: dict[str, str | int | bool] = {"previous": True} if previous else {}
        if self.since_s is not None:
            query["sinceSeconds"] = self.since_s
        found = []
        for at_server, line in self._log(pod, query):
            found.append(line)
            self._seen[pod] = at_server
        return found

    def _follow_new_pods(self) -> None:
        """Starts a thread for each pod that has none."""
        self.model = self.api.get(MODELS.path(namespace_of(self.model), name_of(self.model)))
        for pod, _ in self._pods(everything=False):
            if pod not in self._followed:
                self._followed.add(pod)
                threading.Thread(target=self._follow, args=(pod,), daemon=True, name=f"logs-{pod}").start()

    def _follow(self, pod: str) -> None:
        """Until its log ends: then the next look may begin again, after the last line that was seen."""
        query: dict[str, str | int | bool] = {"follow": True}
        if seen := self._seen.get(pod, ""):
            query["sinceTime"] = f"{seen[:19]}Z"
        try:
            for at_server, line in self._log(pod, query):
                if at_server > seen:
                    self._seen[pod] = at_server
                    self._lines.put(line)
        except ClusterError as error:
            if isinstance(error, ForbiddenError):
                self._lines.put(error)
        finally:
            self._followed.discard(pod)

    def _log(self, pod: str, query: dict[str, str | int | bool]) -> "Iterator[tuple[str, Line]]":
        """Nothing when the pod has gone, or has no such container yet."""
        path = PODS.path(self.namespace, pod, "log")
        asked = {"container": WORKER_CONTAINER, "timestamps": True, **query}
        try:
            with self.api.lines(path, asked, follow="follow" in query) as lines:
                yield from lines_of(lines, full_name(self.model))
        except (NotFoundError, InvalidError):
            return
