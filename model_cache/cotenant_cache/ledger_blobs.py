"""Rows of the ledger for blobs: what is on disk, since when it is known to be right, and what it cost."""

from dataclasses import dataclass
from typing import Any

from cotenant_cache.ledger_claims import Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    repo: str
    digest: str
    size_bytes: int
    """On disk when present, else as announced."""
    present: bool
    verified_at: float
    """0: never."""
    fetch_s: float
    """0: not fetched by us."""
    named: bool
    """By a model of the ledger."""

    @property
    def verified(self) -> bool:
        return self.present and self.verified_at > 0


class BlobRows(Rows):
    def blob_published(
        self, repo: str, digest: str, size_bytes: int, *, verified: bool, fetch_s: float = 0.0
    ) -> None:
        """It is on disk. `verified`: against its digest, just now."""
        self._run(
            "INSERT INTO blobs(repo, digest, size_bytes, present, verified_at, fetch_s) VALUES (?, ?, ?, 1, ?, ?) "
            "ON CONFLICT DO UPDATE SET size_bytes = excluded.size_bytes, present = 1, "
            "verified_at = excluded.verified_at, fetch_s = iif(excluded.fetch_s > 0, excluded.fetch_s, fetch_s)",
            (repo, digest, size_bytes, self._clock() if verified else 0.0, fetch_s),
        )

    def blob_verified(self, repo: str, digest: str) -> None:
        self._run("UPDATE blobs SET verified_at = ? WHERE repo = ? AND digest = ?", (self._clock(), repo, digest))

    def blob_doubted(self, repo: str, digest: str) -> None:
        """It is on disk, and counts as never verified."""
        self._run("UPDATE blobs SET verified_at = 0 WHERE repo = ? AND digest = ?", (repo, digest))

    def blob_gone(self, repo: str, digest: str) -> None:
        self._run("UPDATE blobs SET present = 0, verified_at = 0 WHERE repo = ? AND digest = ?", (repo, digest))
        self._run("DELETE FROM blobs WHERE repo = ? AND digest = ? AND namers = 0", (repo, digest))

    def _forget_nameless(self, repo: str) -> None:
        self._run("DELETE FROM blobs WHERE repo = ? AND namers = 0 AND NOT present", (repo,))

    def blobs(self, repo: str | None = None) -> tuple[Blob, ...]:
        where, values = ("", ()) if repo is None else ("WHERE repo = ?", (repo,))
        return self._blobs(f"{where} ORDER BY repo, digest", values)

    def blob(self, repo: str, digest: str) -> Blob | None:
        return next(iter(self._blobs("WHERE repo = ? AND digest = ?", (repo, digest))), None)

    def present(self) -> dict[tuple[str, str], int]:
        """(repo, digest) → bytes, of all on disk. As `verified`, for thousands."""
        rows = self._run("SELECT repo, digest, size_bytes FROM blobs WHERE present = 1")
        return {(repo, digest): size for repo, digest, size in rows}

    def verified(self) -> frozenset[tuple[str, str]]:
        """(repo, digest) of all on disk that were checked."""
        return frozenset(self._run("SELECT repo, digest FROM blobs WHERE present = 1 AND verified_at > 0"))

    def blobs_to_verify(self) -> tuple[Blob, ...]:
        """On disk, the longest unverified first."""
        return self._blobs("WHERE present = 1 ORDER BY verified_at", ())

    def _blobs(self, where: str, values: tuple[Any, ...]) -> tuple[Blob, ...]:
        rows = self._run(
            f"SELECT repo, digest, size_bytes, present, verified_at, fetch_s, namers FROM blobs {where}",  # noqa: S608
            values,
        )
        return tuple(
            Blob(
                repo=repo,
                digest=digest,
                size_bytes=size,
                present=bool(present),
                verified_at=verified_at,
                fetch_s=fetch_s,
                named=namers > 0,
            )
            for repo, digest, size, present, verified_at, fetch_s, namers in rows
        )
