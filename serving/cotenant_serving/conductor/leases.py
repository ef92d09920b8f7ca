"""The start lease: one engine at a time profiles, loads or wakes on a device.

A lease lives as long as its holder's heartbeats. After a restart of the conductor nothing is granted for
`grace_s`, so that an engine that is loading right now can re-assert the lease it was given before.
"""

from dataclasses import dataclass

from cotenant_serving.contract import Heartbeat


@dataclass(frozen=True, slots=True)
class Lease:
    app: str
    instance: str
    expires_s: float


class Leases:
    """Owns who may load on which device. Times are seconds of one monotonic clock."""

    def __init__(self, *, now_s: float, ttl_s: float = 3.0, grace_s: float = 1.5) -> None:
        self._leases: dict[str, Lease] = {}
        self._ttl_s = ttl_s
        self._open_at_s = now_s + grace_s

    def answer(self, beat: Heartbeat, now_s: float) -> bool:
        """May the engine that sent this heartbeat load now?"""
        held = self.holder(beat.device_id, now_s)
        mine = held is not None and held.instance == beat.instance
        if beat.state == "waiting" and held is None and now_s >= self._open_at_s:
            mine = True
        if beat.holds_lease and held is None:
            mine = True  # re-asserted after a restart, or after a pause longer than the time to live
        if beat.state not in ("waiting", "loading"):
            self._release(beat)
            return False
        if mine:
            self._leases[beat.device_id] = Lease(beat.app, beat.instance, now_s + self._ttl_s)
        return mine

    def holder(self, device_id: str, now_s: float) -> Lease | None:
        lease = self._leases.get(device_id)
        if lease is not None and lease.expires_s <= now_s:
            del self._leases[device_id]
            return None
        return lease

    def _release(self, beat: Heartbeat) -> None:
        lease = self._leases.get(beat.device_id)
        if lease is not None and lease.instance == beat.instance:
            del self._leases[beat.device_id]
