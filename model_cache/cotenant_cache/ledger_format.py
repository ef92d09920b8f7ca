"""Tables of the ledger, by format. A format is never changed once released: a later one is a step after it.

A step has CREATE and ADD COLUMN only: their text is compared at each opening, and every SQLite keeps it alike.
"""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID",
        "INSERT INTO meta VALUES ('epoch', lower(hex(randomblob(8)))), ('reconciled', 0)",
        """CREATE TABLE models(
            id INTEGER PRIMARY KEY, repo TEXT NOT NULL, commit_id TEXT NOT NULL,
            files BLOB NOT NULL, file_count INTEGER NOT NULL, found INTEGER NOT NULL,
            used_at REAL NOT NULL DEFAULT 0, uses REAL NOT NULL DEFAULT 0,
            stale INTEGER NOT NULL DEFAULT 1, size_bytes INTEGER, present_bytes INTEGER, own_bytes INTEGER,
            complete INTEGER, verified_at REAL, fetched_bytes INTEGER, fetch_s REAL, UNIQUE(repo, commit_id))""",
        "CREATE INDEX models_stale ON models(id) WHERE stale = 1",
        """CREATE TABLE blobs(
            id INTEGER PRIMARY KEY, repo TEXT NOT NULL, digest TEXT NOT NULL, size_bytes INTEGER NOT NULL,
            present INTEGER NOT NULL DEFAULT 0, verified_at REAL NOT NULL DEFAULT 0,
            fetch_s REAL NOT NULL DEFAULT 0, namers INTEGER NOT NULL DEFAULT 0, UNIQUE(repo, digest))""",
        "CREATE INDEX blobs_unusual ON blobs(namers) WHERE present = 1 AND namers <> 1",
        "CREATE INDEX blobs_by_check ON blobs(verified_at, size_bytes) WHERE present = 1",
        """CREATE TABLE parts(model INTEGER NOT NULL, blob INTEGER NOT NULL, PRIMARY KEY(model, blob))
            WITHOUT ROWID""",
        "CREATE INDEX parts_by_blob ON parts(blob)",
        """CREATE TRIGGER named AFTER INSERT ON parts BEGIN
            UPDATE blobs SET namers = namers + 1 WHERE id = new.blob; END""",
        """CREATE TRIGGER unnamed AFTER DELETE ON parts BEGIN
            UPDATE blobs SET namers = namers - 1 WHERE id = old.blob;
            UPDATE models SET stale = 1 WHERE id = old.model; END""",
        """CREATE TRIGGER blob_changed AFTER UPDATE ON blobs BEGIN
            UPDATE models SET stale = 1
                WHERE stale = 0 AND id IN (SELECT model FROM parts WHERE blob = new.id); END""",
        """CREATE TABLE reservations(
            flight TEXT PRIMARY KEY, holder TEXT NOT NULL, repo TEXT NOT NULL, commit_id TEXT NOT NULL,
            bytes INTEGER NOT NULL) WITHOUT ROWID""",
        """CREATE TABLE leases(
            id TEXT PRIMARY KEY, holder TEXT NOT NULL, repo TEXT NOT NULL, commit_id TEXT NOT NULL,
            name TEXT NOT NULL, since REAL NOT NULL) WITHOUT ROWID""",
        "CREATE TABLE pins(repo TEXT, commit_id TEXT, PRIMARY KEY(repo, commit_id)) WITHOUT ROWID",
        """CREATE TABLE preload(holder TEXT, repo TEXT, commit_id TEXT, priority INTEGER NOT NULL,
            PRIMARY KEY(holder, repo, commit_id)) WITHOUT ROWID""",
    ),
)
"""`MIGRATIONS[n]` makes format n + 1 out of format n; 0 is an empty file.

`blobs.namers` counts the models that name a blob; triggers keep it. The sums in `models` are over its blobs; triggers
mark them `stale`, and REFRESH brings them up to date: reading thousands of models costs no look at their blobs.
"""

REFRESH = """UPDATE models SET stale = 0,
    (size_bytes, present_bytes, own_bytes, complete, verified_at, fetched_bytes, fetch_s) = (
        SELECT coalesce(sum(size_bytes), 0), coalesce(sum(size_bytes * present), 0),
            coalesce(sum(size_bytes * present * (namers = 1)), 0), coalesce(min(present), 0),
            coalesce(min(iif(present, verified_at, NULL)), 0),
            coalesce(sum(iif(fetch_s > 0, size_bytes, 0)), 0), coalesce(sum(fetch_s), 0)
        FROM parts JOIN blobs ON blobs.id = parts.blob WHERE parts.model = models.id)
    WHERE stale = 1"""
"""`verified_at`: of the blob that was checked longest ago; 0: one never was."""
