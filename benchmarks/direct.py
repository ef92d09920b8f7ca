"""The yardstick of `bench-engines`: a model driven in its own process, with no HTTP and no cotenant in between.

    python -m benchmarks.direct generate|embed EngineArgs-as-JSON

Reads one JSON object a line from stdin, does that work and answers with one line: what it took. Ends with its stdin.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from cotenant_serving.contract import EngineArgs

Work = Callable[[Mapping[str, Any]], dict[str, Any]]
"""One round: what was asked → `units` of work done (tokens, sentences), and what came of it."""


def generate(args: EngineArgs) -> Work:
    """transformers' continuous batching, made by the engine's own code and settings; requests go in all at once."""
    from cotenant_serving.engine import generate as engine
    from cotenant_serving.engine.batching import sampling_options
    from cotenant_serving.engine.loader import load
    from cotenant_serving.engine.model_source import ModelSource
    from cotenant_serving.openai_api import Sampling

    loaded = load(args, ModelSource(args), lambda *_, **__: None)
    config = loaded.model.config.get_text_config()
    per_token = engine.kv_bytes_per_token(config, loaded.dtype_bytes)
    pages = engine.cache_pages(args.kv_cache_bytes, per_token, args.spec.context_tokens, args.spec.concurrency)
    manager: Any = engine._start_manager(loaded, pages)
    engine._warm_up(manager, loaded)
    options = sampling_options(Sampling(temperature=0.0), config.vocab_size)

    def work(order: Mapping[str, Any]) -> int:
        for number, ids in enumerate(order["prompts"]):
            name = f"{order['round']}-{number}"
            tokens = order["max_tokens"]
            manager.add_request(
                ids, request_id=name, max_new_tokens=tokens, streaming=True, eos_token_id=-1, **options
            )
        open_answers, tokens = len(order["prompts"]), 0
        while open_answers:
            output = manager.get_result(timeout=60)
            if output is not None and output.is_finished():
                open_answers -= 1
                tokens += len(output.generated_tokens)
        return {"units": tokens}

    return work


def embed(args: EngineArgs) -> Work:
    """transformers alone, one sentence at a time: mean over the tokens, to length 1."""
    from cotenant_serving.engine.loader import prepare_torch

    torch = prepare_torch(args)
    from transformers import AutoModel, AutoTokenizer

    folder = args.spec.source.removeprefix("file://")
    model, tokenizer = (
        AutoModel.from_pretrained(folder, add_pooling_layer=False).eval(),
        AutoTokenizer.from_pretrained(folder),
    )

    def vector(text: str) -> list[float]:
        hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        values: list[float] = torch.nn.functional.normalize(hidden.mean(0), dim=0).tolist()
        return values

    def work(order: Mapping[str, Any]) -> dict[str, Any]:
        with torch.inference_mode():
            vectors = [vector(text) for text in order["texts"]]
        return {"units": len(vectors), "vectors": vectors}

    return work


KINDS: Mapping[str, Callable[[EngineArgs], Work]] = {"generate": generate, "embed": embed}


def main() -> None:
    kind, path = sys.argv[1:]
    work = KINDS[kind](msgspec.json.decode(Path(path).read_bytes(), type=EngineArgs))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        done = work(json.loads(line))
        took = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
        print(json.dumps(done | took), flush=True)


if __name__ == "__main__":
    main()
