"""Plan → where each key of the files stands. Pure; a key comes in and only the first digits of its hash go out."""

import os

from cotenant_operator.created_keys import KeySource, hash_of, key_id
from cotenant_operator.objects import Manifests
from cotenant_operator.planned import Plan
from cotenant_operator.tenancy import api_key


def render_key_sources(plan: Plan, manifests: Manifests) -> tuple[KeySource, ...]:
    """One for each usable key, tenant by tenant. `manifests` are those the plan was made from."""
    return tuple(
        KeySource(
            id=key_id(hash_of(key)), tenant=tenant.name, secret=secret, key=name, place=_place(manifests, secret)
        )
        for tenant in sorted(plan.tenants, key=lambda item: item.name)
        for secret, name in tenant.secret_keys
        if (key := api_key(manifests, secret, name))
    )


def _place(manifests: Manifests, secret_name: str) -> str:
    secret = manifests.secret(secret_name)
    assert secret is not None  # its key was just read
    known = manifests.places.get(("Secret", secret.metadata.namespace, secret_name))
    return os.path.abspath(known) if known else ""
