"""Who sits on which share of which device: rows for a table. Pure."""

from cotenant_operator.quantity import show_bytes
from cotenant_serving.contract import DeviceStatus, EngineStatus, PoolStatus

COLUMNS = ("DEVICE", "MODEL", "STATE", "SHARE", "IN USE", "RUNNING", "PROCESS")


def share_rows(status: PoolStatus) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """One row for each engine, and one for what is left, device by device."""
    rows: list[tuple[str, ...]] = []
    engines = [engine for model in status.models for engine in model.engines]
    for device in status.devices:
        here = [engine for engine in engines if engine.device_id == device.device_id]
        rows.extend(_engine_row(engine) for engine in sorted(here, key=lambda engine: engine.app))
        rows.append(_free_row(device))
    return COLUMNS, rows


def _engine_row(engine: EngineStatus) -> tuple[str, ...]:
    return (
        engine.device_id,
        engine.model,
        engine.state,
        show_bytes(engine.share_bytes),
        show_bytes(engine.used_bytes),
        f"{engine.running}/{engine.slots}",
        str(engine.pid or ""),
    )


def _free_row(device: DeviceStatus) -> tuple[str, ...]:
    free = show_bytes(device.memory_bytes - device.reserved_bytes)
    return (device.device_id, "(free)", "", f"{free} of {show_bytes(device.memory_bytes)}", "", "", "")
