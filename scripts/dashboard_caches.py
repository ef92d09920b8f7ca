"""Dashboard of weight caches, by the labels that their ServiceMonitor adds."""

from dashboard_panels import RATE, Dashboard, Panel

_POOL = '{pool=~"$pool"}'


def _of_node(field: str) -> str:
    """Of each volume: its instances all say the same."""
    return f"max by (node) (cotenant_cache_{field}{_POOL})"


CACHE = Dashboard(
    "cotenant / Weight caches",
    (
        (
            "Room",
            (
                Panel(
                    "Used",
                    "Of each node's volume; instances of one volume say the same.",
                    (
                        (_of_node("used_bytes"), "{{node}} used"),
                        (_of_node("budget_bytes"), "{{node}} budget"),
                        (_of_node("reserved_bytes"), "{{node}} promised"),
                    ),
                    "bytes",
                ),
                Panel(
                    "Free on the disk",
                    "Whoever uses it: near nothing, fetches stop with DiskFull.",
                    ((_of_node("disk_free_bytes"), "{{node}}"),),
                    "bytes",
                ),
                Panel(
                    "Unfinished and quarantined",
                    "Unfinished files go on when they are wanted again; quarantined ones broke their digest.",
                    (
                        (_of_node("partial_bytes"), "{{node}} unfinished"),
                        (_of_node("quarantined_bytes"), "{{node}} quarantined"),
                    ),
                    "bytes",
                ),
            ),
        ),
        (
            "Models",
            (
                Panel(
                    "Models and files",
                    "Whole or not.",
                    ((_of_node("models"), "{{node}} models"), (_of_node("blobs"), "{{node}} files")),
                ),
                Panel(
                    "In use",
                    "Leases: what they hold is not evicted.",
                    ((_of_node("leases"), "{{node}} leases"), (_of_node("instances"), "{{node}} instances")),
                ),
                Panel(
                    "How fetches ended",
                    "By reason; `done` is a model that is here.",
                    ((f"sum by (outcome) (increase(cotenant_cache_ensures_total{_POOL}{RATE}))", "{{outcome}}"),),
                ),
            ),
        ),
        (
            "Traffic and checks",
            (
                Panel(
                    "Fetched",
                    "Whole files, from the hub and from other nodes.",
                    ((f"sum by (from) (rate(cotenant_cache_fetched_bytes_total{_POOL}{RATE}))", "{{from}}"),),
                    "Bps",
                ),
                Panel(
                    "Checked again",
                    "In the background, at most at `spec.cache.verifyRate` for each instance.",
                    ((f"sum by (node) (rate(cotenant_cache_verified_bytes_total{_POOL}{RATE}))", "{{node}}"),),
                    "Bps",
                ),
                Panel(
                    "Flipped bits",
                    "Files that no longer had their digest. A disk with more than one is to be replaced.",
                    ((f"sum by (node) (cotenant_cache_bad_blobs_total{_POOL})", "{{node}}"),),
                ),
            ),
        ),
    ),
    (("pool", "cotenant_cache_models"),),
)
