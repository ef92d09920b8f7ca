"""`make bench-wake`: from no engine to the first token, and what an idle `up` costs.

The same `up` runs throughout; a model is cold when its engine has been deleted for idleness. Where the time goes is
read from the product's own logs: the conductor's line `starting APP`, and the engine's lines, one for each stage.
"""

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path

import psutil
from tests.builders.up import Up, echo, keys, model, pool, tenant, until

import cotenant_serving
from benchmarks.measuring import cpu_s, finish, machine, markdown, median

PHASES: Mapping[str, str] = {
    "decide": "gateway → demand → conductor's decision",
    "Ray": "Serve, scheduling, until a process is there",
    "process": "start of Python, Ray's and the engine's own imports",
    "lease": "heartbeat, start lease of the device, check of the files",
    "imports": "torch and transformers",
    "load": "tokenizer, weights",
    "first step": "warm-up of the model",
    "answer": "heartbeat, routing table, the request itself",
}
LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) (?:INFO|WARNING) (.*)")
IDLE_S = 10.0
MIB = 2**20


@dataclass(frozen=True)
class Line:
    """A line of a log; `at_s` is unix time."""

    at_s: float
    text: str


def read_log(path: Path) -> list[Line]:
    """Lines of the conductor's log (JSON) or of an engine's (text); what others write there is left out."""
    found = [read_line(line) for line in path.read_text(errors="replace").splitlines()]
    return [line for line in found if line is not None]


def read_line(line: str) -> Line | None:
    if line.startswith('{"time":'):
        said = json.loads(line)
        return Line(datetime.fromisoformat(said["time"]).timestamp(), said["message"])
    match = LINE.match(line)
    if match is None:
        return None
    return Line(datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp(), match[2])


def when(lines: Sequence[Line], start: str, after_s: float) -> float:
    """The time of the first line after `after_s` that starts so. Raises RuntimeError."""
    for line in lines:
        if line.at_s >= after_s and line.text.startswith(start):
            return line.at_s
    raise RuntimeError(f"no line {start!r} in the log")


def phases(
    asked_s: float, answered_s: float, created_s: float, conductor: Sequence[Line], engine: Sequence[Line], app: str
) -> dict[str, float]:
    """Seconds of each of PHASES. Pure. All times are unix seconds, `created_s` that of the engine's process.

    Ray keeps a spare process: when the engine got one, there was no waiting for Python.
    """
    asked = asked_s - 0.001  # log lines have whole milliseconds
    placed = when(conductor, f"starting {app} ", asked)
    begun = when(engine, f"starting {app}:", asked)
    spare = created_s < placed
    process = begun if spare else min(begun, created_s)
    ready = when(engine, "ready after", begun)
    marks = {"decide": placed, "Ray": process, "process": begun}
    if any(line.text.startswith("loading: importing") and line.at_s >= begun for line in engine):
        marks["lease"] = when(engine, "loading: importing", begun)
        marks["imports"] = when(engine, "loading: reading tokenizer", begun)
        marks["load"] = when(engine, "loading: warming up", begun)
        marks["first step"] = ready
    else:
        marks["lease"] = ready
    marks["answer"] = answered_s
    ends = list(marks.values())
    return {name: end - start for name, end, start in zip(marks, ends, [asked_s, *ends], strict=False)}


def wake(up: Up, name: str) -> dict[str, float]:
    """One wake of a cold model: seconds of each phase, and of all as `total`."""
    until(lambda: not up.model(f"search/{name}").engines, f"{name} is cold")
    asked_s = time.time()
    with up.request("search", name, "What is cotenant?", stream=True, max_tokens=16) as response:
        while not response.readline().startswith(b"data: "):
            pass
        answered_s = time.time()
        response.read()
    engine = up.engine(f"search/{name}")
    logs = up.state / "logs"
    created_s = psutil.Process(engine.pid).create_time()
    conductor, own = read_log(logs / "conductor.log"), read_log(logs / "engines" / f"{engine.app}.log")
    return phases(asked_s, answered_s, created_s, conductor, own, engine.app) | {"total": answered_s - asked_s}


def start(folder: Path) -> tuple[Up, float]:
    """A running `up` with two cold models, and the seconds until it could wake one."""
    chat = resources.files(cotenant_serving) / "demo_models" / "chat"
    idle = {"idleAfter": "3s"}
    up = Up(
        folder,
        model("chat", model=f"file://{chat}", gpu={"memory": "1536Mi"}, engine={"contextTokens": 512}, replicas=idle),
        echo("echo", gpu={"memory": "256Mi"}, replicas=idle),
        tenant("search"),
        keys("search"),
        pool(),
    )
    began = time.monotonic()
    up.start()
    until(lambda: "connected to Ray" in (up.state / "logs" / "conductor.log").read_text(), "the conductor is ready")
    return up, time.monotonic() - began


def idle(up: Up) -> tuple[float, float, list[list[str]]]:
    """(MiB, CPU milliseconds a second, rows by program) without an engine. Shared pages are divided by users."""
    assert up.process is not None
    processes = [*up.processes(), psutil.Process(up.process.pid)]
    used = cpu_s(process.pid for process in processes)
    time.sleep(IDLE_S)
    cpu_ms = 1000 * (cpu_s(process.pid for process in processes) - used) / IDLE_S
    sizes: dict[str, tuple[int, float]] = {}
    for process in processes:
        count, mib = sizes.get(program(process), (0, 0.0))
        sizes[program(process)] = count + 1, mib + process.memory_full_info().pss / MIB
    rows = [
        [name, str(count), f"{mib:.0f}"] for name, (count, mib) in sorted(sizes.items(), key=lambda item: -item[1][1])
    ]
    return sum(mib for _, mib in sizes.values()), cpu_ms, rows


def program(process: psutil.Process) -> str:
    line = " ".join(process.cmdline())
    for part, name in (
        ("cotenant_operator up", "cotenant up"),
        ("cotenant_serving.gateway", "gateway"),
        ("cotenant_serving.conductor", "conductor"),
        ("ServeController", "Ray: Serve's controller"),
        ("ray::IDLE", "Ray: spare workers"),
        ("raylet/raylet", "Ray: raylet"),
        ("gcs_server", "Ray: head (GCS)"),
    ):
        if part in line:
            return name
    return "Ray: others"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--times", type=int, default=5, help="how often each model wakes")
    arguments = parser.parse_args()
    print(f"Machine: {machine()}")
    taken: dict[str, list[dict[str, float]]] = {"echo": [], "chat": []}
    with tempfile.TemporaryDirectory(prefix="cotenant-bench-") as folder:
        up, start_s = start(Path(folder))
        try:
            idle_mib, idle_cpu_ms, programs = idle(up)
            for number in range(arguments.times):
                for name, wakes in taken.items():
                    wakes.append(wake(up, name))
                    print(f"wake {number + 1}: {name}: {wakes[-1]['total']:.1f} s", file=sys.stderr, flush=True)
        finally:
            up.stop()
    medians = {name: middle(wakes) for name, wakes in taken.items()}
    rows = [
        [
            f"**{phase}**" if phase == "total" else phase,
            PHASES.get(phase, "from request to first token"),
            *cells(medians, phase),
        ]
        for phase in (*PHASES, "total")
    ]
    print(f"\n**wake**: seconds, medians of {arguments.times} wakes\n")
    print(markdown(["", "", *medians], rows))
    print(
        f"\n**idle**: `cotenant up` starts in {start_s:.1f} s; without an engine it takes {idle_mib:.0f} MiB and "
        f"{idle_cpu_ms:.0f} ms of CPU a second\n"
    )
    print(markdown(["", "processes", "MiB"], programs))
    print()
    split = {f"chat_{phase.lower().replace(' ', '_')}_s": medians["chat"][phase] for phase in PHASES}
    finish(
        {"echo_s": medians["echo"]["total"], "chat_s": medians["chat"]["total"], **split}
        | {"up_start_s": start_s, "idle_mib": idle_mib, "idle_cpu_ms_per_s": idle_cpu_ms}
    )


def middle(wakes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {phase: median(one[phase] for one in wakes) for phase in wakes[0]}


def cells(medians: Mapping[str, Mapping[str, float]], phase: str) -> list[str]:
    return [f"{taken[phase]:.2f}" if phase in taken else "" for taken in medians.values()]


if __name__ == "__main__":
    main()
