"""A Kubernetes cluster as a test sees it: any that KUBECONFIG names, through `kubectl proxy` and `kubectl`.

Objects are plain dicts. The proxy does what a kubeconfig may ask for (certificates, tokens, plugins), and costs a
request a millisecond where a `kubectl` of its own costs a tenth of a second of CPU.
"""

import contextlib
import http.client
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from tests.builders.up import until

Object = dict[str, Any]
MANAGER = "cotenant-tests"
API_S = 60.0
COMMAND_S = 120.0
JSON = "application/json"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"


class KubeError(Exception):
    """The API server refused, or did not answer: `status` is 0 then."""

    def __init__(self, status: int, message: str, reason: str = "") -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.message, self.reason = status, message, reason


class Kube:
    """`close` it. Kinds are Kubernetes' own (`Pod`, `RayCluster`); a namespace is "" for what has none."""

    def __init__(self, kubeconfig: str) -> None:
        self.environment = {**os.environ, "KUBECONFIG": kubeconfig}
        self._kinds: dict[str, tuple[str, str, bool]] = {}
        self._proxy = subprocess.Popen(
            ["kubectl", "proxy", "--port=0"], env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._proxy.stdout is not None
        said = self._proxy.stdout.readline().decode()
        found = re.search(r":(\d+)\s*$", said)
        assert found, f"kubectl proxy said {said!r}"
        self.port = int(found[1])

    def close(self) -> None:
        self._proxy.terminate()
        self._proxy.wait(10)
        if self._proxy.stdout:
            self._proxy.stdout.close()

    def call(
        self, method: str, path: str, body: object = None, *, content_type: str = JSON, accept: str = JSON
    ) -> Object:
        """One request to the API server. Raises KubeError."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=API_S)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"content-type": content_type, "accept": accept})
            response = connection.getresponse()
            status, text = response.status, response.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise KubeError(0, f"{method} {path}: {error!r}") from None
        finally:
            connection.close()
        if status >= 300:
            raise _refused(status, text)
        return json.loads(text) if text.startswith("{") else {"text": text}

    def path(self, kind: str, name: str = "", namespace: str = "", *, part: str = "") -> str:
        prefix, plural, namespaced = self._resource(kind)
        where = f"/namespaces/{namespace}" if namespaced and namespace else ""
        return prefix + where + f"/{plural}" + (f"/{quote(name)}" if name else "") + (f"/{part}" if part else "")

    def get(self, kind: str, name: str, namespace: str = "") -> Object:
        return self.call("GET", self.path(kind, name, namespace))

    def find(self, kind: str, name: str, namespace: str = "") -> Object | None:
        """None when there is no such object, or no such kind."""
        try:
            return self.get(kind, name, namespace)
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    def objects(self, kind: str, namespace: str = "", labels: str = "") -> list[Object]:
        query = f"?labelSelector={quote(labels)}" if labels else ""
        try:
            return list(self.call("GET", self.path(kind, namespace=namespace) + query)["items"])
        except KubeError as error:
            if error.status == 404:
                return []
            raise

    def apply(self, *objects: Mapping[str, Any], dry_run: bool = False) -> list[Object]:
        """Server-side; what others own of it is taken."""
        query = f"?fieldManager={MANAGER}&force=true" + ("&dryRun=All" if dry_run else "")
        return [self.call("PATCH", self._path_of(one) + query, one, content_type=APPLY) for one in objects]

    def create(self, one: Mapping[str, Any]) -> Object:
        metadata = one["metadata"]
        return self.call("POST", self.path(one["kind"], namespace=metadata.get("namespace", "")), one)

    def patch(self, kind: str, name: str, namespace: str, body: object, *, part: str = "") -> Object:
        return self.call("PATCH", self.path(kind, name, namespace, part=part), body, content_type=MERGE)

    def delete(self, kind: str, name: str, namespace: str = "", *, grace_s: int | None = None) -> None:
        """Nothing happens to what is not there. Returns before it is gone (see `gone`)."""
        options: Object = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        with _missing_is_fine():
            self.call("DELETE", self.path(kind, name, namespace), options)

    def gone(self, kind: str, name: str, namespace: str = "", *, limit_s: float = 120.0) -> None:
        self.until(lambda: self.find(kind, name, namespace) is None, f"{kind} {name} is gone", limit_s=limit_s)

    def kubectl(self, *arguments: str, check: bool = True, stdin: str | None = None) -> str:
        """What it printed, errors too where it may fail. Raises KubeError."""
        command = ["kubectl", *arguments]
        try:
            done = subprocess.run(
                command,
                env=self.environment,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=COMMAND_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            if check:
                raise KubeError(0, str(error)) from None
            return str(error)
        if done.returncode and check:
            raise KubeError(done.returncode, f"{' '.join(command)}: {done.stderr or done.stdout}")
        return done.stdout + ("" if check else done.stderr)

    def until(
        self,
        condition: Callable[[], Any],
        what: str,
        *,
        limit_s: float = 120.0,
        pause_s: float = 0.3,
        explain: Callable[[], str] | None = None,
    ) -> Any:
        """Poll; a failure prints the cluster's state. An API server that does not answer is asked again."""

        def tried() -> Any:
            try:
                return condition()
            except KubeError as error:
                if error.status in (0, 404, 409, 429) or error.status >= 500:
                    return None
                raise

        return until(tried, what, explain=explain or self.story, limit_s=limit_s, pause_s=pause_s)

    def story(self) -> str:
        """What a person would look at first."""
        from tests.builders.kube_story import story

        return story(self)

    def _path_of(self, one: Mapping[str, Any]) -> str:
        metadata = one["metadata"]
        return self.path(one["kind"], metadata["name"], metadata.get("namespace", ""))

    def _resource(self, kind: str) -> tuple[str, str, bool]:
        if kind not in self._kinds:
            self._discover()
        if kind not in self._kinds:
            raise KubeError(404, f"the cluster has no kind {kind}", "NoKind")
        return self._kinds[kind]

    def _discover(self) -> None:
        groups = [group["preferredVersion"]["groupVersion"] for group in self.call("GET", "/apis")["groups"]]
        for prefix in ["/api/v1", *(f"/apis/{group}" for group in groups)]:
            with contextlib.suppress(KubeError):  # an aggregated API that is away
                for one in self.call("GET", prefix)["resources"]:
                    if "/" not in one["name"]:
                        self._kinds.setdefault(one["kind"], (prefix, one["name"], one["namespaced"]))


@contextlib.contextmanager
def _missing_is_fine() -> Iterator[None]:
    try:
        yield
    except KubeError as error:
        if error.status != 404:
            raise


def _refused(status: int, text: str) -> KubeError:
    try:
        said = json.loads(text)
        return KubeError(status, said.get("message", text), said.get("reason", ""))
    except ValueError:
        return KubeError(status, text)


def condition(one: Mapping[str, Any], type_: str) -> Object:
    """That condition of an object's status; `{}` when it has none yet."""
    found = [item for item in one.get("status", {}).get("conditions", []) if item["type"] == type_]
    return found[0] if found else {}


def namespace(name: str, **labels: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def advertise(kube: Kube, node: str, resources: Mapping[str, int]) -> None:
    """Let a node say that it has devices: scheduling is real then, the devices are not. 0 takes them away again."""
    patch = [
        {"op": "add" if count else "remove", "path": f"/status/{part}/{name.replace('/', '~1')}", "value": str(count)}
        for name, count in resources.items()
        for part in ("capacity", "allocatable")
        if count or name in kube.get("Node", node)["status"][part]
    ]
    kube.call("PATCH", kube.path("Node", node, part="status"), patch, content_type="application/json-patch+json")
