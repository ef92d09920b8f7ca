"""`server-timing`: where the time went until an engine began to answer; https://www.w3.org/TR/server-timing. Pure."""

COMMENT = b": server-timing "
"""Begins the comment that says it in a stream whose head was sent before it was known."""


def server_timing(held_s: float, load_s: float | None, engine_s: float) -> str:
    """Milliseconds of phases that follow each other.

    `held_s`: from admission to a slot of an engine. `load_s`: how long that engine took to load, where the model had
    none when the request came; then the wait is shown as what came before its process, and its loading.
    """
    if load_s is None:
        phases = [("queue", held_s)]
    else:
        load_s = min(load_s, held_s)
        phases = [("start", held_s - load_s), ("load", load_s)]
    return ", ".join(f"{name};dur={1000 * seconds:.1f}" for name, seconds in [*phases, ("engine", engine_s)])
