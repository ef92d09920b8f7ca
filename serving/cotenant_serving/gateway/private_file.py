"""Files that only their owner reads, and readers see whole: the new content or the old one."""

import os
from pathlib import Path


def replace_private(path: Path, content: bytes, *, temporary: str = ".tmp") -> None:
    """By rename, 0600 from the first byte on. `temporary`: what the name of the file to be renamed ends with; no two
    writers may use the same one at a time. Raises OSError.
    """
    new = path.with_name(path.name + temporary)
    with open(new, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(content)
    new.replace(path)
