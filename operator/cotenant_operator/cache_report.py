"""What `cotenant cache` shows of a volume: rows for people, documents for programs. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import msgspec

from cotenant_cache.adopting import Adopted
from cotenant_cache.contract import CachedModel, RoomPlan, Usage
from cotenant_cache.errors import CacheError
from cotenant_cache.shelving import Leased
from cotenant_cache.verifying import Verified
from cotenant_operator.quantity import show_bytes

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def model_rows(models: Iterable[CachedModel], *, now: float, wide: bool) -> Table:
    columns: tuple[str, ...] = ("MODEL", "REVISION", "SIZE", "STATE", "USED", "KEPT")
    if wide:
        columns += ("COMMIT", "FILES", "VERIFIED", "REFETCH")
    return columns, [_row(model, now, wide) for model in sorted(models, key=lambda one: (one.repo, one.commit))]


def _row(model: CachedModel, now: float, wide: bool) -> tuple[str, ...]:
    row: tuple[str, ...] = (
        model.repo,
        ",".join(model.revisions) or model.commit[:12],
        show_bytes(model.size_bytes),
        state_of(model),
        ago(model.used_at, now),
        kept_by(model),
    )
    if wide:
        row += (model.commit, str(model.files), ago(model.verified_at, now), f"{model.refetch_s:.0f} s")
    return row


def state_of(model: CachedModel) -> str:
    """`ready`: whole and verified, and so served."""
    if not model.whole:
        return f"{100 * model.present_bytes // max(1, model.size_bytes)} %"
    return "ready" if model.verified else "unverified"


def kept_by(model: CachedModel) -> str:
    """Why it is not evicted, or not soon."""
    said = [f"{model.leases} lease{'s' if model.leases > 1 else ''}"] if model.leases else []
    said += ["pinned"] if model.pinned else []
    said += ["preload"] if model.preload else []
    return ", ".join(said) or "-"


def ago(at: float, now: float) -> str:
    """`3 h ago`; `-` for what never was."""
    if not at:
        return "-"
    seconds = max(0, round(now - at))
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def usage_lines(usage: Usage) -> list[str]:
    disk = f"{show_bytes(usage.disk_free_bytes)} of {show_bytes(usage.disk_total_bytes)} free"
    budget = f"of {show_bytes(usage.budget_bytes)} used" if usage.budget_bytes else "used, no budget is set"
    partial, quarantined = show_bytes(usage.partial_bytes), show_bytes(usage.quarantined_bytes)
    return [
        f"{usage.path}: {show_bytes(usage.used_bytes)} {budget}, {disk} on its disk",
        f"  {usage.models} models, {usage.blobs} files",
        f"  {partial} of unfinished downloads, {quarantined} quarantined",
        f"  {show_bytes(usage.reserved_bytes)} reserved by fetches that run, {usage.instances} instances at work",
    ]


def plan_lines(plan: RoomPlan) -> list[str]:
    """What would go, what that costs, and why the rest stays."""
    free = max(0, plan.budget_bytes - plan.used_bytes - plan.reserved_bytes)
    room = f"{show_bytes(free)} of {show_bytes(plan.budget_bytes)} are free"
    if not plan.budget_bytes:
        room = f"no budget is set, {show_bytes(plan.disk_free_bytes)} of the disk are free"
    lines = [
        f"{show_bytes(plan.needed_bytes)} needed; {room}"
        + (f", {show_bytes(plan.reserved_bytes)} are reserved" if plan.reserved_bytes else "")
    ]
    if plan.quarantine_bytes:
        lines.append(f"  goes: quarantine, {show_bytes(plan.quarantine_bytes)}")
    if plan.loose:
        lines.append(
            f"  goes: {len(plan.loose)} files of no model, {show_bytes(sum(b.size_bytes for b in plan.loose))}"
        )
    lines += [
        f"  goes: hf://{gone.repo}@{gone.commit[:12]}, frees {show_bytes(gone.frees_bytes)}, "
        f"about {gone.refetch_s:.0f} s to bring back"
        for gone in plan.evict
    ]
    if plan.fits and len(lines) == 1:
        lines.append("  nothing has to go")
    lines += [f"  stays: {kept}" for kept in plan.kept]
    return lines


def ensured_document(done: Mapping[str, Leased], problems: Mapping[str, CacheError]) -> dict[str, Any]:
    """By source, in the order of asking. Of a folder of its own there is neither a commit nor a size."""
    return {
        "models": [
            {
                "source": source,
                "commit": leased.commit,
                "folder": str(leased.folder),
                "size_bytes": leased.size_bytes,
            }
            for source, leased in done.items()
        ],
        "problems": [
            {"source": source, "reason": error.reason, "message": error.message} for source, error in problems.items()
        ],
    }


def verified_document(found: Verified, adopted: Iterable[Adopted]) -> dict[str, Any]:
    return {**asdict(found), "adopted": [asdict(one) for one in adopted]}


def document(value: Any) -> Any:
    return msgspec.to_builtins(value)
