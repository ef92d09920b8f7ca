"""What cotenant's operator is compared with: operators on kopf that write one condition per object, no more.

`PLAIN=1` is kopf's cheapest way, one handler of raw events; else the handlers that kopf's own tutorial begins with.
"""

import os
from datetime import UTC, datetime
from typing import Any

import kopf

KIND = ("cotenant.dev", "v1alpha1", "modeldeployments")


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    settings.posting.enabled = False  # no Events: only the condition
    settings.scanning.disabled = True


def condition(meta: Any) -> dict[str, Any]:
    return {
        "type": "Accepted",
        "status": "True",
        "reason": "Fits",
        "message": "",
        "observedGeneration": meta["generation"],
        "lastTransitionTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


if os.environ.get("PLAIN"):

    @kopf.on.event(*KIND)
    def seen(meta: Any, status: Any, patch: kopf.Patch, type: str, **_: Any) -> None:
        known = [one for one in status.get("conditions", []) if one["type"] == "Accepted"]
        if type != "DELETED" and (not known or known[0].get("observedGeneration") != meta["generation"]):
            patch.status["conditions"] = [condition(meta)]

else:

    @kopf.on.create(*KIND)
    @kopf.on.update(*KIND)
    @kopf.on.resume(*KIND)
    def wanted(meta: Any, patch: kopf.Patch, **_: Any) -> None:
        patch.status["conditions"] = [condition(meta)]
