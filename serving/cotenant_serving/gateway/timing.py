"""`server-timing`: where the time went until an engine began to answer; https://www.w3.org/TR/server-timing. Pure."""

COMMENT = b": server-timing %b\n\n"
"""The comment that says it in a stream whose head was sent before it was known."""


def server_timing(held_s: float, load_s: float | None, engine_s: float) -> bytes:
    """Milliseconds of phases that follow each other.

    `held_s`: from admission to a slot of an engine. `load_s`: how long that engine took to load, where the model had
    none when the request came; then the wait is shown as what came before its process, and its loading.
    """
    if load_s is None:
        return b"queue;dur=%.1f, engine;dur=%.1f" % (1000 * held_s, 1000 * engine_s)
    load_s = min(load_s, held_s)
    return b"start;dur=%.1f, load;dur=%.1f, engine;dur=%.1f" % (
        1000 * (held_s - load_s),
        1000 * load_s,
        1000 * engine_s,
    )
