"""The engine's one mutable record of itself, shared by its loop and its threads; everyone else sees snapshots."""

import logging
import os
import threading
import time
from collections.abc import Callable

import msgspec

from cotenant_serving.contract import EngineArgs, EngineState, Heartbeat, Reason
from cotenant_serving.engine.weights_meter import WeightsMeter, WeightsRead

log = logging.getLogger("cotenant.engine")


class EngineStatus:
    """Thread-safe. `snapshot` is what goes to the conductor and out of GET /state."""

    def __init__(
        self,
        args: EngineArgs,
        *,
        instance: str,
        host: str,
        port: int,
        node: str = "",
        pod: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self.task = args.spec.task
        self._started = clock()
        self._weights = WeightsMeter(clock)
        self._heartbeat = Heartbeat(
            app=args.app,
            model=args.spec.model,
            revision=args.spec.revision,
            instance=instance,
            host=host,
            port=port,
            pid=os.getpid(),
            device_id=args.device_id,
            state="starting",
            slots=args.spec.concurrency,
            share_bytes=args.share_bytes,
            node=node,
            pod=pod,
        )
        self.changed = threading.Event()
        """Set on every change of state: the heartbeat thread then reports at once."""

    def snapshot(self) -> Heartbeat:
        with self._lock:
            fetch, load = self._weights.fetch(), self._weights.load()
            return (
                msgspec.structs.replace(self._heartbeat, fetch=fetch, load=load) if fetch or load else self._heartbeat
            )

    @property
    def state(self) -> EngineState:
        with self._lock:
            return self._heartbeat.state

    def waiting(self) -> None:
        self._change(state="waiting", stage="waiting for the start lease of the device")
        log.info("waiting for the start lease of the device")

    def loading(self) -> None:
        """Call only with the start lease: from here on the engine says that it holds it."""
        self._change(state="loading", stage="starting to load", holds_lease=True)

    def progress(
        self,
        stage: str,
        fraction: float,
        *,
        fetched: tuple[int, int] | None = None,
        read: WeightsRead | None = None,
    ) -> None:
        """See `base.Progress`."""
        with self._lock:
            if fetched is not None:
                self._weights.fetched(*fetched)
                if self._heartbeat.state == "starting":  # without the start lease: it fills no device yet
                    self._heartbeat = msgspec.structs.replace(self._heartbeat, state="loading")
                    self.changed.set()
            else:
                self._weights.fetch_ended()
            if read is not None:
                self._weights.was_read(read)
            before = self._heartbeat.stage
            self._heartbeat = msgspec.structs.replace(self._heartbeat, stage=stage, progress=round(fraction, 3))
        if stage != before:
            log.info("loading: %s", stage)

    def ready(self) -> None:
        """Loaded; this gives the start lease back."""
        load_s = round(self._clock() - self._started, 3)
        self._change(state="ready", stage="", progress=1.0, holds_lease=False, load_s=load_s)
        log.info("ready after %.1f s", load_s)

    def draining(self) -> None:
        self._change(state="draining", stage="finishing its requests", holds_lease=False)
        log.info("draining: %d requests may finish", self.snapshot().running)

    def failed(self, reason: Reason, message: str) -> None:
        """The first failure stands; this gives the start lease back."""
        if self.state != "failed":
            self._change(state="failed", stage="", reason=reason, message=message, holds_lease=False)

    def used(self, used_bytes: int) -> None:
        with self._lock:
            self._heartbeat = msgspec.structs.replace(self._heartbeat, used_bytes=used_bytes)

    def request_started(self) -> None:
        with self._lock:
            beat = self._heartbeat
            self._heartbeat = msgspec.structs.replace(
                beat, running=beat.running + 1, requests_total=beat.requests_total + 1
            )

    def request_ended(self) -> None:
        with self._lock:
            self._heartbeat = msgspec.structs.replace(self._heartbeat, running=self._heartbeat.running - 1)

    def _change(self, **fields: object) -> None:
        with self._lock:
            self._heartbeat = msgspec.structs.replace(self._heartbeat, **fields)
        self.changed.set()
