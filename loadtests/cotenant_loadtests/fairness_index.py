"""Jain's fairness index over tenants that were backlogged together, in tokens served. Pure.

A tenant is backlogged while it has a request that is scheduled and has not ended. Only time in which two or more
are counts: a tenant that asks for nothing is not treated unfairly. With S_i the tokens that tenant i got in that
time, and E_i those it would have got had each backlogged tenant at each moment had an equal part of all that came,

    J = (Σ E_i x_i)² / (Σ E_i · Σ E_i x_i²)   where x_i = S_i / E_i

That is the index of R. Jain, D. Chiu, W. Hawe, "A Quantitative Measure of Fairness and Discrimination for Resource
Allocation in Shared Computer Systems" (DEC-TR-301, 1984), of x = allocation / fair allocation, each tenant weighted
with its fair part; where the same n tenants are backlogged all the time it is (Σ S_i)² / (n · Σ S_i²). 1: equal
parts; 1/n: one of n got everything.

Service is every completion token when it came, also of answers that failed later. Requests that generate none
(embeddings, OIP) are left out, as they can neither get nor miss any; where no request generates, each successful
answer counts as one.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cotenant_loadtests.columns import Bools, Columns, tokens_in_parts
from cotenant_loadtests.histogram import Ints
from cotenant_loadtests.record import NEVER
from cotenant_loadtests.results import Fairness, Service
from cotenant_loadtests.window import Window

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Busy:
    """When one tenant was backlogged: periods that do not touch."""

    starts: Ints
    ends: Ints


def fairness_of(columns: Columns, window: Window, run_end_us: int) -> Fairness:
    """`columns`: all rows; the window cuts the time, not the requests. What never ended, ended with the run."""
    generating = columns.rows(columns.generates)
    if len(generating):
        return _fairness(generating, "tokens", window, run_end_us)
    return _fairness(columns, "answers", window, run_end_us)


def _fairness(columns: Columns, service: Service, window: Window, run_end_us: int) -> Fairness:
    busy = [_busy(columns.rows(columns.tenant == tenant), window, run_end_us) for tenant, _ in _tenants(columns)]
    edges = np.unique(
        np.concatenate([np.zeros(0, np.int64), *(part for one in busy for part in (one.starts, one.ends))])
    )
    if len(edges) < 2:
        return Fairness(jain=None, backlogged_s=0.0, service=service, tokens={})
    backlogged = _backlogged(busy, edges)
    together = backlogged >= 2
    served, got = _served(columns, service, edges, together)
    equal = np.concatenate([[0.0], np.cumsum(served / np.maximum(backlogged, 1))])
    fair = np.array([_along(equal, one, edges) for one in busy])
    shared = np.array([_along(np.concatenate([[0], np.cumsum(together)]), one, edges) > 0 for one in busy])
    return Fairness(
        jain=_jain(got[fair > 0], fair[fair > 0]),
        backlogged_s=float(np.diff(edges)[together].sum()) / 1e6,
        service=service,
        tokens={name: round(float(got[tenant]), 3) for tenant, name in _tenants(columns) if shared[tenant]},
    )


def _jain(got: Floats, fair: Floats) -> float | None:
    if not len(got) or not got.sum():
        return None
    return min(float(got.sum() ** 2 / (fair.sum() * (got**2 / fair).sum())), 1.0)


def _tenants(columns: Columns) -> list[tuple[int, str]]:
    return list(enumerate(columns.names.tenants))


def _busy(columns: Columns, window: Window, run_end_us: int) -> _Busy:
    """Requests of one tenant → their union within the window."""
    least, most = round(window.from_s * 1e6), round(window.to_s * 1e6)
    ends = np.clip(np.where(columns.end_us == NEVER, run_end_us, columns.end_us), least, most)
    starts = np.clip(columns.scheduled_us, least, most)
    order = np.argsort(starts, kind="stable")
    order = order[(ends > starts)[order]]
    if not len(order):
        return _Busy(order, order)
    starts, reached = starts[order], np.maximum.accumulate(ends[order])
    begins = np.concatenate([[True], starts[1:] > reached[:-1]])
    return _Busy(starts[begins], reached[np.concatenate([begins[1:], [True]])])


def _backlogged(busy: list[_Busy], edges: Ints) -> Ints:
    """How many tenants are, in each interval between two edges."""
    change = np.zeros(len(edges), np.int64)
    for one in busy:
        change[np.searchsorted(edges, one.starts)] += 1
        change[np.searchsorted(edges, one.ends)] -= 1
    return np.cumsum(change)[:-1]


def _served(columns: Columns, service: Service, edges: Ints, together: Bools) -> tuple[Floats, Floats]:
    """Service that came while two or more were backlogged: in each interval, and to each tenant.

    An interval has its end and not its start: the last token of a request comes at its end.
    """
    per_interval, per_tenant = np.zeros(len(together)), np.zeros(len(columns.names.tenants))
    for tenant, at_us, tokens in _service(columns, service):
        interval = np.searchsorted(edges, at_us) - 1
        counts = (interval >= 0) & (interval < len(together))
        counts[counts] = together[interval[counts]]
        per_interval += np.bincount(interval[counts], tokens[counts], len(per_interval))
        per_tenant += np.bincount(tenant[counts], tokens[counts], len(per_tenant))
    return per_interval, per_tenant


def _service(columns: Columns, service: Service) -> Iterator[tuple[Ints, Ints, Floats]]:
    """(tenant, when, how much)."""
    if service == "tokens":
        for part in tokens_in_parts(columns):
            yield columns.tenant[part.row], part.at_us, part.tokens
    else:
        answered = columns.rows(columns.success)
        yield answered.tenant, answered.end_us, np.ones(len(answered))


def _along(cumulative: Floats, busy: _Busy, edges: Ints) -> float:
    """What `cumulative` (at each edge) grew by while a tenant was backlogged."""
    grown = cumulative[np.searchsorted(edges, busy.ends)] - cumulative[np.searchsorted(edges, busy.starts)]
    return float(grown.sum())
