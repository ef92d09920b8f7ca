"""A gateway process with a fake engine for every task, and models in every state: for tests of all its routes."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from cotenant_serving.contract import Reason, Task
from tests.builders.gateway import FakeConductor, FakeEngine, GatewayProcess, config, eventually, model_row, tenant
from tests.builders.gateway_answers import answer_any_task
from tests.builders.gateway_calls import with_conductor

SERVED: tuple[Task, ...] = ("echo", "embed", "rerank", "classify", "tensor")
STATES = {"cold": Reason.IDLE, "waking": Reason.LOADING, "waiting": Reason.NO_ROOM, "failed": Reason.LOAD_FAILED}


@contextlib.asynccontextmanager
async def gateway_with_engines(
    directory: Path, *options: str
) -> AsyncIterator[tuple[GatewayProcess, dict[str, FakeEngine]]]:
    """The process, started with these options, and model -> its engine.

    Tenant `search` sees `search/TASK` for each task, `search/STATE` for each state without an engine, and
    `search/unheard`, of which no conductor speaks. Tenant `ads` sees two of them and has low limits.
    """
    tasks: dict[str, Task] = {f"search/{task}": task for task in SERVED}
    models = (*tasks, *(f"search/{state}" for state in STATES), "search/unheard")
    value = config(
        tenant("search", models=models),
        tenant("ads", models=("search/tensor", "search/embed"), requests_per_minute=2, tokens_per_minute=1000),
        tasks={**dict.fromkeys(models, "embed"), **tasks},
    )
    process = GatewayProcess(directory)
    async with contextlib.AsyncExitStack() as stack:
        conductor = await stack.enter_async_context(FakeConductor())
        engines = {model: FakeEngine(f"i{number}", model=model) for number, model in enumerate(tasks)}
        for engine in engines.values():
            engine.usual = answer_any_task
            await stack.enter_async_context(engine)
        states = [model_row(state, model=f"search/{state}", reason=reason) for state, reason in STATES.items()]
        served = [model_row(model=model) for model in tasks]
        conductor.publish(*(engine.row() for engine in engines.values()), models=(*states, *served))
        process.write_config(with_conductor(value, conductor))
        stack.push_async_callback(process.stop)
        await process.start(*options)
        await eventually((process.state / "table.json").exists)
        yield process, engines
