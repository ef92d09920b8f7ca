"""What another user has put on a volume: root on the node, say, with a hub tool of its own. It is read, and it is
served, but its folders are not ours to change."""

import os
from pathlib import Path

from cotenant_cache.disk import Volume


def may_go(volume: Volume, repo: str, commit: str = "") -> bool:
    """Whether this process may take a model's names and blobs away; without a commit, blobs that no model names."""
    folder = volume.repo_folder(repo)
    changed = [folder, folder / "blobs"]
    if commit:
        snapshot, refs = volume.snapshot(repo, commit), folder / "refs"
        changed += [snapshot.parent, snapshot, refs, *(Path(below) for below, *_ in os.walk(refs))]
    return all(_is_ours(path) for path in changed)


def _is_ours(folder: Path) -> bool:
    """A folder that is moved away must be ours, too, not only the one it is in. What is not there hinders nobody."""
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=True) or not os.path.lexists(folder)
