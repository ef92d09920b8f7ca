"""Rows of the ledger for models: which files they have, and when they were used."""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from cotenant_cache.contract import ModelFile
from cotenant_cache.ledger_blobs import BlobRows
from cotenant_cache.plan import DAY_S

_FILES = msgspec.json.Decoder(tuple[ModelFile, ...])


class DamagedError(sqlite3.DatabaseError):
    """Sound for SQLite, and yet no ledger."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerModel:
    repo: str
    commit: str
    files: tuple[ModelFile, ...]
    present: frozenset[str]
    """Digests of its blobs that are on disk, also of files beside those that are listed."""
    found: bool
    """No hub has listed it: its files are those that another tool put there, or another node has; some may lack."""
    pinned: bool
    used_at: float
    uses: float

    @property
    def missing(self) -> tuple[ModelFile, ...]:
        return tuple(file for file in self.files if file.digest not in self.present)

    @property
    def whole(self) -> bool:
        """Every blob is on disk; whether the snapshot has its links only the disk knows."""
        return not self.missing


class ModelRows(BlobRows):
    def put_model(self, repo: str, commit: str, files: Sequence[ModelFile], *, found: bool = False) -> None:
        """Its listing. Blobs that the ledger does not know count as not on disk. `found`: as in LedgerModel.

        What is beside the files of a listing, or was found and is listed no more, stays the model's own.
        """
        listing = msgspec.json.encode(sorted(files, key=lambda file: file.name))
        known = self._run(
            "SELECT id, files, found FROM models WHERE repo = ? AND commit_id = ?", (repo, commit)
        ).fetchone()
        if known and (bytes(known[1]), bool(known[2])) == (listing, found):
            return
        beside = self._beside(*known) if known else {}
        if known:
            self._run("DELETE FROM parts WHERE model = ?", known[:1])
        self._run(
            "INSERT INTO models(repo, commit_id, files, file_count, found) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO "
            "UPDATE SET files = excluded.files, file_count = excluded.file_count, found = excluded.found",
            (repo, commit, listing, len(files), found),
        )
        self.name_blobs(repo, commit, {**beside, **{file.digest: file.size_bytes for file in files}})
        self._forget_nameless(repo)

    def _beside(self, model: int, listing: bytes, found: int) -> Mapping[str, int]:
        """Digests of the model's blobs on disk that it does not list; of one that was only found, all."""
        listed = set() if found else {file.digest for file in _decoded(listing)}
        return dict.fromkeys(self._present(model) - listed, 0)  # their sizes are known

    def name_blobs(self, repo: str, commit: str, sizes: Mapping[str, int]) -> None:
        """Digest → bytes, of what counts as the model's and goes with it, listed or not."""
        self._run_many(
            "INSERT INTO blobs(repo, digest, size_bytes) VALUES (?, ?, ?) ON CONFLICT DO UPDATE "
            "SET size_bytes = iif(present, size_bytes, excluded.size_bytes)",
            [(repo, digest, size) for digest, size in sizes.items()],
        )
        self._run_many(
            "INSERT OR IGNORE INTO parts(model, blob) SELECT m.id, b.id FROM models m, blobs b "
            "WHERE m.repo = ?1 AND m.commit_id = ?2 AND b.repo = ?1 AND b.digest = ?3",
            [(repo, commit, digest) for digest in sizes],
        )

    def model(self, repo: str, commit: str) -> LedgerModel | None:
        return next(iter(self._listings("WHERE m.repo = ? AND m.commit_id = ?", (repo, commit))), None)

    def listings(self, repo: str | None = None) -> tuple[LedgerModel, ...]:
        """Models with their files, of one repository or all; slower than `models`."""
        return self._listings(*(("", ()) if repo is None else ("WHERE m.repo = ?", (repo,))))

    def _listings(self, where: str, values: tuple[str, ...]) -> tuple[LedgerModel, ...]:
        rows = self._run(
            "SELECT m.id, m.repo, m.commit_id, m.files, m.found, m.used_at, m.uses, p.repo IS NOT NULL "  # noqa: S608
            "FROM models m LEFT JOIN pins p USING (repo, commit_id) "
            f"{where} ORDER BY m.repo, m.commit_id",
            values,
        ).fetchall()
        return tuple(
            LedgerModel(
                repo=repo,
                commit=commit,
                files=_decoded(files),
                present=self._present(id_),
                found=bool(found),
                used_at=used_at,
                uses=uses,
                pinned=bool(pinned),
            )
            for id_, repo, commit, files, found, used_at, uses, pinned in rows
        )

    def _present(self, model: int) -> frozenset[str]:
        rows = self._run(
            "SELECT b.digest FROM parts JOIN blobs b ON b.id = blob WHERE model = ? AND b.present", (model,)
        )
        return frozenset(digest for (digest,) in rows)

    def remove_model(self, repo: str, commit: str) -> tuple[str, ...]:
        """→ digests that no model names any more: of these, blobs and partials may go. Its pin stays known."""
        row = self._run("SELECT id FROM models WHERE repo = ? AND commit_id = ?", (repo, commit)).fetchone()
        if row is None:
            return ()
        blobs = [blob for (blob,) in self._run("SELECT blob FROM parts WHERE model = ?", row)]
        self._run("DELETE FROM parts WHERE model = ?", row)
        self._run("DELETE FROM models WHERE id = ?", row)
        free = [
            digest
            for blob in blobs
            for (digest,) in self._run("SELECT digest FROM blobs WHERE id = ? AND namers = 0", (blob,))
        ]
        self._forget_nameless(repo)
        return tuple(free)

    def touch(self, repo: str, commit: str) -> None:
        """One more use, now."""
        row = self._run(
            "SELECT uses, used_at FROM models WHERE repo = ? AND commit_id = ?", (repo, commit)
        ).fetchone()
        if row is None:
            return
        now = self._clock()
        uses = row[0] * 0.5 ** (max(0.0, now - row[1]) / DAY_S) + 1
        self._run(
            "UPDATE models SET uses = ?, used_at = ? WHERE repo = ? AND commit_id = ?", (uses, now, repo, commit)
        )

    def blob_gone(self, repo: str, digest: str) -> None:
        """A listed one is missing from then on; any other was no more than beside its model."""
        for part, _, listed in self._namers(repo, digest):
            if not listed:
                self._run("DELETE FROM parts WHERE model = ? AND blob = ?", part)
        super().blob_gone(repo, digest)

    def naming(self, repo: str, digest: str) -> tuple[str, ...]:
        """Commits of the models that list a blob."""
        return tuple(commit for _, commit, listed in self._namers(repo, digest) if listed)

    def _namers(self, repo: str, digest: str) -> list[tuple[tuple[int, int], str, bool]]:
        """The row's key in `parts`, the model's commit, and whether its listing has the blob."""
        rows = self._run(
            "SELECT m.id, b.id, m.commit_id, m.files FROM blobs b JOIN parts p ON p.blob = b.id "
            "JOIN models m ON m.id = p.model WHERE b.repo = ? AND b.digest = ? ORDER BY m.commit_id",
            (repo, digest),
        ).fetchall()
        return [
            ((model, blob), commit, any(file.digest == digest for file in _decoded(files)))
            for model, blob, commit, files in rows
        ]


def _decoded(listing: bytes) -> tuple[ModelFile, ...]:
    try:
        return _FILES.decode(listing)
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError):
        raise DamagedError("a listing is no listing") from None
