"""Makes, lists and revokes API keys in a cluster, as the caller may: all that the command line writes there."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cotenant_operator.cluster_errors import ClusterError, ConflictError, InvalidError, NotFoundError
from cotenant_operator.created_keys import new_key
from cotenant_operator.failure import Failure
from cotenant_operator.keys_report import KnownKey
from cotenant_operator.kinds import SECRETS, TENANTS, Object
from cotenant_operator.kube_objects import at, labels_of, name_of
from cotenant_operator.kube_reading import KubeApi
from cotenant_operator.kube_refusals import MissingRightError
from cotenant_operator.names import tenant_named
from cotenant_operator.near import hint
from cotenant_operator.tenant_keys import (
    ID_LABEL,
    adding,
    known_secret_keys,
    new_secret,
    references,
    removing,
    stands_in,
)

TRIES = 5
SEEN_S = 10.0
STEP_S = 0.2
_PATCH = "application/json-patch+json"


@dataclass(frozen=True, slots=True)
class Made:
    id: str
    secret: str
    seen: bool
    """Whether the operator has looked at the Tenant since."""


@dataclass(frozen=True, slots=True)
class ClusterKeys:
    """`namespace` is the operator's: the only one in which keys may stand."""

    api: KubeApi
    namespace: str

    def create(self, tenant: str) -> tuple[str, Made]:
        """A new key, which is kept in its Secret only. Raises Failure, and leaves no Secret then."""
        found = self._tenant(tenant)
        key = new_key()
        secret = new_secret(tenant, key, self.namespace)
        self.api.write("POST", SECRETS.path(self.namespace), secret)
        try:
            changed = self._change(found, lambda read: adding(read, name_of(secret)))
        except BaseException:  # Ctrl-C too: no Tenant names it, so it opens nothing
            self.api.write("DELETE", SECRETS.path(self.namespace, name_of(secret)), None)
            raise
        return key, Made(labels_of(secret)[ID_LABEL], name_of(secret), self._is_seen(changed))

    def known(self, tenant: str | None) -> tuple[list[KnownKey], str]:
        """All keys of all tenants, or of one; and the right that was lacking to read their ids, or nothing."""
        tenants = self.api.list(TENANTS.path())
        if tenant is not None:
            tenant_named(tenant, map(name_of, tenants))
        found = [item for item in references(tenants) if tenant in (None, item.tenant)]
        secrets, lacking = self._secrets(sorted({item.secret for item in found}))
        return known_secret_keys(found, secrets, self.namespace), lacking

    def revoke(self, id: str) -> tuple[KnownKey, bool]:
        """The key of this id, or all of the Secret of this name, open nothing any more; and whether that was seen.

        Its Secret goes too when `create` made it. Raises Failure.
        """
        known, lacking = self.known(None)
        gone = [key for key in known if id in (key.id, stands_in(key)[0])]
        if not gone:
            ids = [key.id for key in known if key.id != "-"]
            reason = f" (ids could not be read: you may not {lacking}; name its Secret)" if lacking else ""
            raise Failure(f"there is no key {id!r}{reason}; {hint(id, ids, label='known')}")
        fields, seen = {stands_in(key) for key in gone}, True
        for tenant in sorted({key.tenant for key in known if stands_in(key) in fields}):
            changed = self._change(self._tenant(tenant), lambda read: removing(read, fields))
            seen = self._is_seen(changed) and seen
        for secret in {stands_in(key)[0] for key in gone if key.source == "key create"}:
            self.api.write("DELETE", SECRETS.path(self.namespace, secret), None)
        return gone[0], seen

    def _tenant(self, name: str) -> Object:
        try:
            return self.api.get(TENANTS.path(name=name))
        except NotFoundError:
            tenant_named(name, map(name_of, self.api.list(TENANTS.path())))  # says which there are
            raise

    def _secrets(self, names: Sequence[str]) -> tuple[dict[str, Object], str]:
        """What is in one is read only where its label does not say which key it is."""
        found: dict[str, Object] = {}
        for name in names:
            path = SECRETS.path(self.namespace, name)
            try:
                found[name] = self.api.metadata(path)
                if ID_LABEL not in labels_of(found[name]):
                    found[name] = self.api.get(path)
            except NotFoundError:
                continue
            except MissingRightError as error:
                return found, error.right
        return found, ""

    def _change(self, tenant: Object, patch: Callable[[Object], list[Object]]) -> Object:
        """Somebody may change it at the same time: read it again then. Raises ClusterError."""
        path = TENANTS.path(name=name_of(tenant))
        for _ in range(TRIES):
            try:
                return self.api.write("PATCH", path, patch(tenant), _PATCH)
            except (ConflictError, InvalidError) as error:
                problem: ClusterError = error
                tenant = self.api.get(path)
        raise problem

    def _is_seen(self, tenant: Object) -> bool:
        """Wait until the operator has looked at this generation of it."""
        wanted, end_s = at(tenant, "metadata", "generation") or 0, time.monotonic() + SEEN_S
        while (at(tenant, "status", "observedGeneration") or 0) < wanted:
            if time.monotonic() > end_s:
                return False
            time.sleep(STEP_S)
            tenant = self.api.get(TENANTS.path(name=name_of(tenant)))
        return True
