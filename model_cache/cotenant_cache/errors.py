"""Why a model cannot be read. Every message says what, where, and the next step.

CacheError
├── ModelNotFoundError              no such folder, repository or revision (or no access to it)
├── FileMissingError                config.json, weights or one of their shards is not there, or may not be read
├── UnsafeFilesError                pickles instead of safetensors, code of its own, or files outside its folder
├── UnsupportedArchitectureError    config.json describes nothing that can be sized and served
├── CorruptWeightsError             a file is cut off or is not what it says
├── HubUnreachableError             the hub did not answer, and the files are not here yet
├── CacheFullError                  the budget has no room, or the disk is too small for the budget
├── DiskFullError                   the disk was full at a write, by somebody else's files
├── NotSupportedError               a source or a file of a kind that is not served yet
├── NewerFormatError                the volume was written by a newer cotenant; this one changes nothing on it
├── VolumeError                     the volume cannot be used: permissions, a failing disk, no space for locks
├── FetchStoppedError               the one who wanted the files wants them no more
├── StalledError                    who fetches it for all says nothing any more
└── TooLateError                    it took longer than the caller wanted to wait
"""

from typing import ClassVar


class CacheError(Exception):
    """Base of the tree; `reason` is the word that stands in a model's status."""

    reason: ClassVar[str] = "LoadFailed"
    retry_after_s: float | None = None
    """So long whoever has it asked to be left alone."""

    def __init__(self, message: str) -> None:
        self.message = _legible(message)
        super().__init__(self.message)


class ModelNotFoundError(CacheError):
    reason = "ModelNotFound"


class FileMissingError(CacheError):
    reason = "FileMissing"


class UnsafeFilesError(CacheError):
    reason = "UnsafeFiles"


class UnsupportedArchitectureError(CacheError):
    reason = "UnsupportedArchitecture"


class CorruptWeightsError(CacheError):
    reason = "CorruptWeights"


class HubUnreachableError(CacheError):
    """`transient`: it may answer when it is asked again, after `retry_after_s` if it named a time."""

    reason = "HubUnreachable"

    def __init__(self, message: str, *, transient: bool = False, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.transient, self.retry_after_s = transient, retry_after_s


class NotSupportedError(CacheError):
    reason = "NotSupported"


class FetchStoppedError(CacheError):
    reason = "Stopped"


class CacheFullError(CacheError):
    reason = "CacheFull"


class DiskFullError(CacheError):
    reason = "DiskFull"


class NewerFormatError(CacheError):
    reason = "NewerFormat"


class VolumeError(CacheError):
    reason = "VolumeUnusable"


class StalledError(CacheError):
    """The status word is the general one: it is another process that hangs, and nobody knows why."""


class TooLateError(CacheError):
    """The status word is the general one: what lacks is patience."""


def _legible(text: str) -> str:
    """Names out of a model's files stand in messages: what is no character to look at is escaped as Python does."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
