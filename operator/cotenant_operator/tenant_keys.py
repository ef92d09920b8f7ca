"""API keys in a cluster: Secrets in the operator's namespace, which Tenants name in spec.keys. Pure; holds no key."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from cotenant_operator.cluster_names import MANAGER_LABEL
from cotenant_operator.created_keys import hash_of, key_id
from cotenant_operator.keys_report import KnownKey
from cotenant_operator.kinds import SECRETS, Object
from cotenant_operator.kube_objects import at, instant, items_at, labels_of, name_of
from cotenant_operator.spec import Secret

FIELD = "token"
"""Of the Secrets that `key create` makes."""
SecretField = tuple[str, str]
"""(name of a Secret, key inside it)"""
ID_LABEL, TENANT_LABEL = "cotenant.dev/key-id", "cotenant.dev/tenant"


@dataclass(frozen=True, slots=True)
class KeyReference:
    """One of `spec.keys` of a Tenant."""

    tenant: str
    index: int
    secret: str
    field: str


def references(tenants: Iterable[Object]) -> list[KeyReference]:
    return [
        KeyReference(
            name_of(tenant),
            index,
            str(at(item, "secretRef", "name") or ""),
            str(at(item, "secretRef", "key") or ""),
        )
        for tenant in tenants
        for index, item in enumerate(items_at(tenant, "spec", "keys"))
    ]


def new_secret(tenant: str, key: str, namespace: str) -> Object:
    """Holds one key, and says by its labels which."""
    id = key_id(hash_of(key))
    labels = {MANAGER_LABEL: "cotenant-cli", TENANT_LABEL: tenant, ID_LABEL: id}
    made = SECRETS.new(f"{tenant}-key-{id}", namespace, type="Opaque", stringData={FIELD: key})
    made["metadata"]["labels"] = labels
    return made


def id_of(secret: Object, field: str) -> str:
    """From its label, else from the key in it; empty when it has neither."""
    if label := labels_of(secret).get(ID_LABEL):
        return label
    value = Secret.model_validate({"metadata": {"name": "it"}, "data": at(secret, "data") or {}}).value(field)
    return key_id(hash_of(value.strip())) if value is not None else ""


def known_secret_keys(found: Sequence[KeyReference], secrets: Mapping[str, Object], namespace: str) -> list[KnownKey]:
    """`secrets`: by name, those that are there and may be read."""
    known = []
    for reference in found:
        secret = secrets.get(reference.secret, {})
        by_hand = f"Secret {reference.secret}, {reference.field}"
        known.append(
            KnownKey(
                id=(id_of(secret, reference.field) if secret else "") or "-",
                tenant=reference.tenant,
                source="key create" if ID_LABEL in labels_of(secret) else by_hand,
                place=f"{namespace}/{reference.secret}/{reference.field}",
                created=instant(at(secret, "metadata", "creationTimestamp")),
            )
        )
    return sorted(known, key=lambda key: (key.tenant, key.created or 0.0, key.id))


def stands_in(key: KnownKey) -> SecretField:
    _, secret, field = key.place.split("/")
    return secret, field


def adding(tenant: Object, secret: str) -> list[Object]:
    """A JSON patch that names one more key in spec.keys, if the Tenant is still the one that was read."""
    reference = {"secretRef": {"name": secret, "key": FIELD}}
    if at(tenant, "spec", "keys") is None:
        return [_unchanged(tenant), {"op": "add", "path": "/spec/keys", "value": [reference]}]
    return [_unchanged(tenant), {"op": "add", "path": "/spec/keys/-", "value": reference}]


def removing(tenant: Object, gone: Collection[SecretField]) -> list[Object]:
    """A JSON patch that takes these keys out of spec.keys."""
    indexes = [item.index for item in references([tenant]) if (item.secret, item.field) in gone]
    return [_unchanged(tenant), *({"op": "remove", "path": f"/spec/keys/{index}"} for index in reversed(indexes))]


def _unchanged(tenant: Object) -> Object:
    return {"op": "test", "path": "/metadata/resourceVersion", "value": at(tenant, "metadata", "resourceVersion")}
