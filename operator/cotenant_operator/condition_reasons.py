"""Reasons of conditions beside those of the contract; together they are the closed list. Pure."""

from enum import StrEnum

from cotenant_serving.contract import Reason


class ClusterReason(StrEnum):
    """What only the status of an object in a cluster says."""

    FITS = "Fits"
    NAME_TAKEN = "NameTaken"
    GATEWAYS_FULL = "GatewaysFull"
    INVALID_SPEC = "InvalidSpec"
    LOADED = "Loaded"
    LOADED_BEFORE = "LoadedBefore"
    ON_DISK = "OnDisk"
    FETCHING = "Fetching"
    NOT_FETCHED_YET = "NotFetchedYet"
    LOCAL_FILES = "LocalFiles"
    NO_FILES = "NoFiles"
    NOT_LOADED_YET = "NotLoadedYet"
    PLACED = "Placed"
    SENT = "Sent"
    KUBERAY_MISSING = "KubeRayMissing"
    KUBERAY_SILENT = "KubeRaySilent"
    KUBERAY_WORKS = "KubeRayWorks"
    HEAD_PENDING = "HeadPending"
    HEAD_LOST = "HeadLost"
    NO_NODE_WITH_RESOURCE = "NoNodeWithResource"
    SECRET_MISSING = "SecretMissing"  # noqa: S105 - a word
    IMAGE_PULL_FAILED = "ImagePullFailed"
    POD_REFUSED = "PodRefused"
    POD_FAILING = "PodFailing"
    VALID = "Valid"
    ANSWERS = "Answers"
    SETTLED = "Settled"
    STARTING = "Starting"
    WARMING = "Warming"
    HANDING_OVER = "HandingOver"
    DRAINING = "Draining"
    TAKING_BACK = "TakingBack"
    STUCK = "Stuck"
    NO_KEYS = "NoKeys"
    KEY_MISSING = "KeyMissing"
    KEY_UNUSABLE = "KeyUnusable"
    KEY_SHARED = "KeyShared"
    NO_MODELS = "NoModels"


REASONS = frozenset({*map(str, Reason), *map(str, ClusterReason)})
