"""The state directory of `cotenant up`: where everything of one run lives, and who may use it.

    <state>/lock             held by the `up` that runs; its text is that process' id
    <state>/control.json     how `cotenant get` reaches the conductor (contains paths, no secret)
    <state>/secrets/         pool-token, control-token, ray-token: random, 0600, kept between runs
    <state>/gateway.json     contract_gateway.GatewayConfig, 0600
    <state>/gateway/         the gateway's last table and usage.jsonl
    <state>/conductor/       desired state and placements
    <state>/cache/           models from the hub
    <state>/logs/            ray.log, conductor.log, gateway.log, engines/

All folders are 0700.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from pathlib import Path

TOKENS = ("pool-token", "control-token", "ray-token")


class StateInUseError(Exception):
    """Another `up` holds the state directory."""


class StateDir:
    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().resolve()
        self._lock: int | None = None

    @property
    def control(self) -> Path:
        return self.path / "control.json"

    @property
    def gateway_config(self) -> Path:
        return self.path / "gateway.json"

    @property
    def cache(self) -> Path:
        return self.path / "cache"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def ray_temp(self) -> Path:
        """Outside the state directory: Ray's Unix sockets below it must fit in 107 bytes, however deep we are.

        Ray opens the folder that it is given to everybody (0777), so it gets one inside a folder of ours.
        """
        digest = hashlib.sha256(str(self.path).encode()).hexdigest()[:10]
        return Path(tempfile.gettempdir()) / f"cotenant-{os.getuid()}-{digest}" / "ray"

    def secret(self, name: str) -> Path:
        return self.path / "secrets" / name

    def acquire(self) -> None:
        """Make the folders and tokens and take the lock. Raises StateInUseError, naming the holder."""
        for folder in (self.path, self.path / "secrets", self.path / "gateway", self.cache, self.logs):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)  # also if somebody else has made it
        self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = (self.path / "lock").read_text().strip() or "unknown"
            os.close(self._lock)
            self._lock = None
            raise StateInUseError(
                f"another `cotenant up` (process {holder}) uses the state directory {self.path}. "
                "Stop it, or give this one a directory of its own with --state DIR."
            ) from None
        os.truncate(self._lock, 0)
        os.write(self._lock, str(os.getpid()).encode())
        for name in TOKENS:
            if not self.secret(name).exists():
                write_private(self.secret(name), secrets.token_hex(32).encode())
        self._make_ray_temp()

    def remove_ray_temp(self) -> None:
        """After a good end nobody needs Ray's logs."""
        shutil.rmtree(self.ray_temp.parent, ignore_errors=True)

    def release(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.control.unlink()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def announce(self, *, conductor_url: str, gateway_url: str, gateway_workers: int = 1) -> None:
        """Write control.json for the other commands."""
        content = {
            "conductor_url": conductor_url,
            "control_token_file": str(self.secret("control-token")),
            "gateway_url": gateway_url,
            "gateway_workers": gateway_workers,
            "pid": os.getpid(),
        }
        write_private(self.control, json.dumps(content).encode())

    def clear(self) -> None:
        """Remove what only an earlier run could use: its desired state and placements, and Ray's sessions.

        Ray keeps them all, some megabytes each. No Ray may run here.
        """
        for name in ("desired.json", "placements.json"):
            (self.path / "conductor" / name).unlink(missing_ok=True)
        for entry in self.ray_temp.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)

    def _make_ray_temp(self) -> None:
        ours = self.ray_temp.parent
        ours.mkdir(mode=0o700, exist_ok=True)
        if ours.lstat().st_uid != os.getuid() or ours.is_symlink():
            raise StateInUseError(f"{ours} belongs to somebody else; set TMPDIR to a folder of your own")
        ours.chmod(0o700)  # also if it is older than this rule
        self.ray_temp.mkdir(mode=0o700, exist_ok=True)


def write_private(path: Path, data: bytes) -> None:
    """Replace a file by rename, 0600 from its first byte on."""
    new = path.with_name(path.name + ".new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
