"""The Serve wrapper's options are ones that this Ray accepts, and it goes without cutting requests or waiting."""

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.builders.engine import TOKEN, echo_args, fake_conductor

from cotenant_serving.contract import EchoOptions

# Ray's own modules use pydantic in a way that is deprecated there.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_serve_accepts_the_options_and_keeps_them() -> None:
    from cotenant_serving.engine.replica import EngineReplica, deployment_options

    options = deployment_options(echo_args(app="echo-1-0"), resources={"share_cpu": 0.25}, num_gpus=0.0)
    deployment = EngineReplica.options(**options)
    assert deployment.name == "echo-1-0"
    assert deployment.num_replicas == 1
    assert deployment.ray_actor_options["resources"] == {"share_cpu": 0.25}
    assert deployment.ray_actor_options["num_cpus"] == 0.01


def test_a_share_of_a_gpu_is_asked_for() -> None:
    from cotenant_serving.engine.replica import deployment_options

    options = deployment_options(echo_args(), resources={}, num_gpus=0.15)
    assert options["ray_actor_options"]["num_gpus"] == 0.15


def test_serve_gives_a_replica_longer_to_go_than_any_request_may_take() -> None:
    from cotenant_operator.operator_settings import STOPPING_S
    from cotenant_serving.engine.replica import STOP_RESERVE_S, deployment_options
    from cotenant_serving.gateway.state import Settings

    options = deployment_options(echo_args(), resources={}, num_gpus=0.0)
    assert options["graceful_shutdown_timeout_s"] == Settings().request_timeout_s + STOP_RESERVE_S
    longer = deployment_options(echo_args(request_timeout_s=1800.0), resources={}, num_gpus=0.0)
    assert longer["graceful_shutdown_timeout_s"] == 1800 + STOP_RESERVE_S
    assert STOP_RESERVE_S < STOPPING_S, "Ray waits for Serve"


# The collector calls __del__ as well, and awaits nothing; in Serve the process is gone by then.
@pytest.mark.filterwarnings("ignore:.*EngineReplica.__del__")
async def test_a_replica_that_goes_does_not_wait_for_a_load_that_never_ends(tmp_path: Path) -> None:
    from cotenant_serving.engine.replica import EngineReplica

    (tmp_path / "token").write_text(TOKEN)
    with fake_conductor() as conductor:
        args = echo_args(
            echo=EchoOptions(load_s=1e6),
            conductor_url=conductor.url,
            pool_token_file=str(tmp_path / "token"),
            host="127.0.0.1",
        )
        kind = EngineReplica.func_or_class
        replica = kind.__new__(kind)
        starting = asyncio.create_task(replica.__init__(msgspec.json.encode(args).decode()))
        beat = await asyncio.to_thread(conductor.wait_for, lambda beat: beat.state == "loading")
        await replica.__del__()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        with pytest.raises(OSError):
            await asyncio.open_connection(beat.host, beat.port)


@contextlib.contextmanager
def as_in_a_worker_of_ray() -> Iterator[None]:
    """sys.stderr writes to descriptor 2. What a replica does to descriptors 1 and 2 is undone."""
    kept = {number: os.dup(number) for number in (1, 2)}
    try:
        with open(2, "w", buffering=1, closefd=False) as stderr, contextlib.redirect_stderr(stderr):
            yield
    finally:
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)


@pytest.mark.filterwarnings("ignore:.*EngineReplica.__del__")
async def test_the_log_has_what_c_code_writes_and_why_an_engine_did_not_even_begin(tmp_path: Path) -> None:
    from cotenant_serving.engine.replica import EngineReplica

    args = echo_args(log_dir=str(tmp_path / "logs"), pool_token_file=str(tmp_path / "nowhere"), host="127.0.0.1")
    kind = EngineReplica.func_or_class
    replica = kind.__new__(kind)
    with as_in_a_worker_of_ray():
        with pytest.raises(FileNotFoundError):
            await replica.__init__(msgspec.json.encode(args).decode())
        os.write(2, b"CUDA error: device-side assert triggered\n")

    log = tmp_path / "logs" / f"{args.app}.log"
    assert "FileNotFoundError" in log.read_text()
    assert log.read_text().endswith("CUDA error: device-side assert triggered\n")
    assert log.stat().st_mode & 0o077 == 0
