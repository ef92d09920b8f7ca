"""`make bench-cache`: what the weight cache costs: downloads, bookkeeping, loading.

Downloads go from one loopback hub in a process of its own to a fresh folder, in turn through the cache (verified, on
the disk when it returns) and through huggingface_hub's snapshot_download (then synced). Each is a process of its own.
Bookkeeping is CPU time at 2,000 models, with what is read of the disk. Loading is `benchmarks.cache_loading`.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.builders.cached_models import model_files
from tests.builders.fake_hub import HubProcess

from benchmarks import cache_loading
from benchmarks.measuring import finish, machine, markdown, median
from cotenant_cache.contract import ModelFile

ASKERS = 50
MODELS, BLOBS_EACH = 2_000, 10
BLOB_BYTES = 2**20
_TAIL = (
    "import json,os,resource,sys,time; began=time.monotonic(); {work}; "
    "took=time.monotonic()-began; used=resource.getrusage(resource.RUSAGE_SELF); "
    "print(json.dumps([took, used.ru_utime+used.ru_stime]))"
)
WORK = {
    "cache": "from pathlib import Path; from cotenant_cache.cache import Cache; "
    "c=Cache(Path(sys.argv[1])); c.ensure('hf://org/a'); c.close()",
    "snapshot_download": "from huggingface_hub import snapshot_download; "
    "snapshot_download('org/a', cache_dir=sys.argv[1]); os.sync()",
}


@dataclass(frozen=True)
class Run:
    wall_s: float
    cpu_s: float


def environment(url: str) -> dict[str, str]:
    """Of a process that asks the hub at `url`, whatever the shell says about hubs: HF_HUB_OFFLINE would fail it."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    quiet = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_XET")
    return {**mine, "HF_ENDPOINT": url, **dict.fromkeys(quiet, "1")}


def download(side: str, url: str, folder: Path) -> Run:
    target = Path(tempfile.mkdtemp(dir=folder))
    ran = subprocess.run(
        [sys.executable, "-c", _TAIL.format(work=WORK[side]), str(target)],
        env=environment(url),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    shutil.rmtree(target)
    os.sync()
    return Run(*json.loads(ran.stdout.splitlines()[-1]))


def downloads(url: str, folder: Path, rounds: int) -> Mapping[str, Sequence[Run]]:
    found: dict[str, list[Run]] = {side: [] for side in WORK}
    for at in range(rounds):
        for side in list(WORK) if at % 2 == 0 else list(reversed(WORK)):
            found[side].append(download(side, url, folder))
    return found


def askers(hub: HubProcess, folder: Path) -> float:
    """Bytes of the weights that 50 processes caused, of those that one needs."""
    hub.forget()
    target = Path(tempfile.mkdtemp(dir=folder))
    command = [sys.executable, "-c", _TAIL.format(work=WORK["cache"]), str(target)]
    running = [subprocess.Popen(command, env=environment(hub.url), stdout=subprocess.DEVNULL) for _ in range(ASKERS)]
    if any(process.wait() for process in running):
        raise RuntimeError("an asker failed")
    sent = sum(hub.bytes_sent("org/a", name) for name in WEIGHTS)
    needed = sum(path.stat().st_size for path in target.glob("models--*/blobs/*") if path.stat().st_size > BLOB_BYTES)
    shutil.rmtree(target)
    return sent / needed


WEIGHTS = tuple(f"model-{shard + 1:05}-of-00003.safetensors" for shard in range(3))


def bookkeeping(folder: Path) -> dict[str, float]:
    """CPU milliseconds of each call, medians of seven, on a volume of 2,000 models and 20,000 blobs."""
    from cotenant_cache.cache import Cache
    from cotenant_cache.plan import plan_room
    from cotenant_cache.repair import Repaired
    from cotenant_cache.store import Store

    root = folder / "volume"
    root.mkdir()
    full = MODELS * BLOBS_EACH * BLOB_BYTES
    store = Store(root, full)
    with store.transaction() as tx:
        for model in range(MODELS):
            repo, commit = f"org/m{model}", f"{model:040x}"
            files = put_on_disk(root / f"models--org--m{model}", commit, model)
            tx.put_model(repo, commit, files)
            for file in files:
                tx.blob_published(repo, file.digest, file.size_bytes, verified=True, fetch_s=0.1)
    cache = Cache(root, full)

    def ls() -> None:
        assert len(cache.models()) == MODELS

    def plan() -> None:
        with store.transaction() as tx:
            inventory = store.inventory(tx)
        assert plan_room(30 * BLOB_BYTES, inventory, for_=("org/new", "0" * 40), now=time.time()).evict

    def lease() -> None:
        with store.transaction() as tx:
            held = tx.lease("org/m7", f"{7:040x}", "it")
        with store.transaction() as tx:
            tx.unlease(held)

    def opening() -> None:
        with Cache(root, full) as opened:
            assert opened.repaired == Repaired()

    calls = {"ls": ls, "plan": plan, "lease": lease, "open": opening}
    found = {name: cpu_ms(call) for name, call in calls.items()}
    cache.close()
    store.close()
    return found


def put_on_disk(folder: Path, commit: str, model: int) -> list[ModelFile]:
    """A model in the Hugging Face layout. Its blobs are holes, of which only the lengths matter."""
    for name in ("blobs", "refs", f"snapshots/{commit}"):
        (folder / name).mkdir(parents=True)
    (folder / "refs/main").write_text(commit)
    files = []
    for number in range(BLOBS_EACH):
        digest = f"{model * 100 + number:064x}"
        with (folder / "blobs" / digest).open("wb") as blob:
            blob.truncate(BLOB_BYTES)
        (folder / "snapshots" / commit / f"f{number}.json").symlink_to(f"../../blobs/{digest}")
        files.append(ModelFile(name=f"f{number}.json", size_bytes=BLOB_BYTES, digest=digest))
    return files


def cpu_ms(call: Callable[[], None]) -> float:
    taken = []
    for _ in range(7):
        began = time.process_time()
        call()
        taken.append((time.process_time() - began) * 1000)
    return median(taken)


def ratios(found: Mapping[str, Sequence[Run]]) -> dict[str, float]:
    """Pure. Medians of ours against the peer's; `rate` above 1 is faster, `cpu` below 1 cheaper."""
    wall = {side: median(run.wall_s for run in runs) for side, runs in found.items()}
    cpu = {side: median(run.cpu_s for run in runs) for side, runs in found.items()}
    return {
        "download_rate_of_snapshot_download": wall["snapshot_download"] / wall["cache"],
        "download_cpu_of_snapshot_download": cpu["cache"] / cpu["snapshot_download"],
    }


def table(found: Mapping[str, Sequence[Run]], gb: float) -> str:
    rows = [
        (
            side,
            f"{median(run.cpu_s / gb for run in runs):.2f}",
            f"{median(gb / run.wall_s for run in runs):.2f}",
        )
        for side, runs in found.items()
    ]
    return markdown(("download", "CPU s/GB", "GB/s"), rows)


def put_model(hub: HubProcess, folder: Path, size_bytes: int) -> None:
    """On the disk, so that the hub costs little."""
    small = {name: content for name, content in model_files(3000, shards=3).items() if name not in WEIGHTS}
    files = cache_loading.make_shards(folder, size_bytes)
    hub.put("org/a", {**small, **dict(zip(WEIGHTS, files, strict=True))})


def main() -> None:
    args = cache_loading.options(__doc__).parse_args()
    print(f"{machine()}\n", flush=True)
    result: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=args.folder) as name, HubProcess() as hub:
        folder = Path(name)
        put_model(hub, folder, int(args.gb * 1e9))
        found = downloads(hub.url, folder, args.rounds)
        print(table(found, args.gb) + "\n", flush=True)
        result |= ratios(found)
        result["bytes_of_50_askers"] = askers(hub, folder)
        spent = bookkeeping(folder)
        print(markdown(("at 2,000 models", "CPU ms"), [(call, f"{ms:.1f}") for call, ms in spent.items()]) + "\n")
        result |= {f"{call}_cpu_ms": ms for call, ms in spent.items()}
        files = [folder / file for file in sorted(path.name for path in folder.glob("model-*.safetensors"))]
        loads = cache_loading.measure(files, args.rounds)
        print(cache_loading.table(loads, sum(file.stat().st_size for file in files)) + "\n", flush=True)
        result |= cache_loading.ratios(loads)
    finish(result)


if __name__ == "__main__":
    main()
