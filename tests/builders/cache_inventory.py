"""Volumes as values, for the cache's planner: one repository's commits share blobs, as on a real volume."""

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import strategies as st

from cotenant_cache.plan import Held, Inventory

MIB = 2**20
NOW = 1_000_000.0


def held(name: str, own_mib: int = 0, **fields: object) -> Held:
    """`org/a` or `org/a@2`: the part behind the @ stands for the commit."""
    repo, _, commit = name.partition("@")
    own = own_mib * MIB
    return Held(**{"repo": repo, "commit": commit or "1", "size_bytes": own, "own_bytes": own, **fields})


def volume(*models: Held, budget_mib: int, disk_free_mib: int = 10**6, **fields: object) -> Inventory:
    """Only these models are on it."""
    return Inventory(
        **{
            "budget_bytes": budget_mib * MIB,
            "disk_free_bytes": disk_free_mib * MIB,
            "models": models,
            "blob_bytes": blob_bytes(models),
            "partial_bytes": sum(distinct(models, "partials").values()),
            **fields,
        }
    )


def blob_bytes(models: tuple[Held, ...]) -> int:
    return sum(held.own_bytes for held in models) + sum(distinct(models, "shared").values())


def distinct(models: tuple[Held, ...], which: str) -> dict[tuple[str, str], int]:
    return {(held.repo, digest): size for held in models for digest, size in getattr(held, which).items()}


@dataclass
class _Drawn:
    """A model before it is known which of its blobs others name."""

    repo: str
    commit: str
    blobs: frozenset[str]
    partials: frozenset[str]
    fields: dict[str, object] = field(default_factory=dict)


@st.composite
def inventories(draw: st.DrawFn) -> Inventory:
    """Up to eight models of three repositories, in bytes small enough to tell by eye; most are nearly full."""
    sizes = {f"b{n}": draw(st.integers(0, 40)) for n in range(12)}
    key = st.tuples(st.sampled_from("xyz"), st.sampled_from("1234"))
    keys = draw(st.lists(key, min_size=draw(st.integers(0, 6)), max_size=8, unique=True))
    drawn = [_drawn(draw, repo, commit) for repo, commit in keys]
    models = _with_sharing(drawn, sizes)
    loose = draw(st.dictionaries(st.tuples(st.sampled_from("xyz"), st.just("l1")), st.integers(0, 30), max_size=2))
    used = blob_bytes(models) + sum(loose.values())
    return Inventory(
        budget_bytes=draw(st.one_of(st.integers(max(0, used - 30), used + 100), st.integers(0, 400))),
        models=models,
        blob_bytes=used,
        reserved_bytes=draw(st.integers(0, 60)),
        partial_bytes=sum(distinct(models, "partials").values()) + draw(st.integers(0, 20)),
        quarantined_bytes=draw(st.integers(0, 30)),
        loose=loose,
        disk_free_bytes=draw(st.one_of(st.just(10_000), st.integers(0, 300))),
    )


def _drawn(draw: st.DrawFn, repo: str, commit: str) -> _Drawn:
    blobs = draw(st.frozensets(st.sampled_from([f"b{n}" for n in range(12)]), max_size=5))
    partials = draw(st.frozensets(st.sampled_from(["p1", "p2"]), max_size=1))
    fields = {
        "used_at": NOW - draw(st.sampled_from([-50.0, 0.0, 3600.0, 86_400.0, 1e7])),
        "uses": draw(st.sampled_from([0.0, 1.0, 5.0])),
        "refetch_s": draw(st.sampled_from([0.0, 1.0, 60.0])),
        "pinned": draw(st.sampled_from([False, False, False, True])),
        "preload": draw(st.sampled_from([None, None, 0, 1, 7])),
        "leases": draw(st.sampled_from([(), (), (), ("engine",)])),
        "fetching": draw(st.sampled_from([False, False, False, True])),
    }
    return _Drawn(repo, commit, blobs, partials, fields)


def _with_sharing(drawn: list[_Drawn], sizes: dict[str, int]) -> tuple[Held, ...]:
    namers = Counter((model.repo, digest) for model in drawn for digest in model.blobs)
    return tuple(
        Held(
            repo=model.repo,
            commit=model.commit,
            size_bytes=sum(sizes[digest] for digest in model.blobs),
            own_bytes=sum(sizes[digest] for digest in model.blobs if namers[model.repo, digest] == 1),
            shared={digest: sizes[digest] for digest in model.blobs if namers[model.repo, digest] > 1},
            partials=dict.fromkeys(model.partials, 7),
            **model.fields,
        )
        for model in drawn
    )
