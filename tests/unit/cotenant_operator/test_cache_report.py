"""What `cotenant cache` shows: why a model stays, what a plan costs, how far a download is."""

from cotenant_cache.contract import CachedModel, Eviction, LooseBlob, Progress, RoomPlan, Usage
from cotenant_operator.cache_progress import progress_line
from cotenant_operator.cache_report import ago, kept_by, model_rows, plan_lines, state_of, usage_lines

GIB = 2**30
COMMIT = "c0ffee" * 6 + "beef"


def cached(**changes: object) -> CachedModel:
    fields = {
        "repo": "org/a",
        "commit": COMMIT,
        "size_bytes": GIB,
        "present_bytes": GIB,
        "files": 3,
        "verified": True,
    }
    return CachedModel(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_model_is_ready_when_it_is_whole_and_verified_and_else_says_how_far_it_is() -> None:
    assert state_of(cached()) == "ready"
    assert state_of(cached(verified=False)) == "unverified"
    assert state_of(cached(present_bytes=GIB // 4)) == "25 %"
    assert state_of(cached(size_bytes=0, present_bytes=0)) == "ready"


def test_what_keeps_a_model_is_said() -> None:
    assert kept_by(cached()) == "-"
    assert kept_by(cached(leases=1)) == "1 lease"
    assert kept_by(cached(leases=2, pinned=True, preload=True)) == "2 leases, pinned, preload"


def test_rows_name_the_branch_or_else_the_commit() -> None:
    columns, rows = model_rows([cached(repo="org/b"), cached(revisions=("main", "v1"))], now=100.0, wide=False)
    assert len(columns) == len(rows[0])
    assert [row[:2] for row in rows] == [("org/a", "main,v1"), ("org/b", COMMIT[:12])]
    columns, rows = model_rows([cached()], now=100.0, wide=True)
    assert dict(zip(columns, rows[0], strict=True))["COMMIT"] == COMMIT


def test_times_are_said_in_the_largest_unit() -> None:
    assert [ago(at, 200_000.0) for at in (0.0, 200_000.0, 199_000.0, 190_000.0, 1.0)] == [
        "-",
        "0 s ago",
        "16 min ago",
        "2 h ago",
        "2 d ago",
    ]


def plan(**changes: object) -> RoomPlan:
    fields = {"needed_bytes": 2 * GIB, "budget_bytes": 10 * GIB, "used_bytes": 9 * GIB, "reserved_bytes": 0}
    return RoomPlan(**{**fields, "disk_free_bytes": 50 * GIB, **changes})  # type: ignore[arg-type]


def test_a_plan_says_what_goes_what_it_costs_and_what_stays() -> None:
    gone = Eviction(repo="org/old", commit=COMMIT, frees_bytes=3 * GIB, refetch_s=95.0, cost=1.0)
    loose = LooseBlob(repo="org/x", digest="0" * 64, size_bytes=GIB)
    said = plan_lines(plan(evict=(gone,), loose=(loose,), quarantine_bytes=GIB, kept=("hf://org/b: pinned",)))
    assert said == [
        "2 GiB needed; 1 GiB of 10 GiB are free",
        "  goes: quarantine, 1 GiB",
        "  goes: 1 files of no model, 1 GiB",
        f"  goes: hf://org/old@{COMMIT[:12]}, frees 3 GiB, about 95 s to bring back",
        "  stays: hf://org/b: pinned",
    ]
    assert plan_lines(plan(used_bytes=GIB))[-1] == "  nothing has to go"


def test_usage_adds_up_to_what_people_ask() -> None:
    usage = Usage(
        path="/models",
        budget_bytes=10 * GIB,
        used_bytes=GIB,
        reserved_bytes=0,
        partial_bytes=0,
        quarantined_bytes=0,
        disk_free_bytes=GIB,
        disk_total_bytes=2 * GIB,
        models=1,
        blobs=3,
        instances=1,
    )
    assert usage_lines(usage)[0] == "/models: 1 GiB of 10 GiB used, 1 GiB of 2 GiB free on its disk"


def test_a_volume_without_a_budget_says_so_instead_of_a_bound_of_nothing() -> None:
    assert plan_lines(plan(budget_bytes=0))[0] == "2 GiB needed; no budget is set, 50 GiB of the disk are free"


def test_a_line_of_progress_has_bytes_rate_and_time_left() -> None:
    said = Progress(
        source="hf://org/a", phase="fetching", done_bytes=GIB, total_bytes=2 * GIB, rate_bytes_per_s=2.0**28
    )
    assert progress_line(said) == "hf://org/a: fetching, 1 GiB of 2 GiB, 256 MiB/s"
    assert progress_line(Progress(source="hf://org/a", phase="waiting")) == "hf://org/a: waiting"
