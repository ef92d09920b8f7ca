"""locust's side of `bench-loadtest`; run by locust, in its own environment. What it did is written to $BENCH_OUT.

Users stream chat completions, or ask for whole ones, one after the other without a pause. A stream is read event by
event, as its tokens' times are wanted: locust's own `iter_lines` waits until it has 1,024 bytes.
"""

import json
import os
import time

from locust import FastHttpUser, constant, events, task

STREAMED = os.environ["BENCH_STREAMED"] == "1"
BODY = {
    "model": os.environ["BENCH_MODEL"],
    "max_tokens": int(os.environ["BENCH_TOKENS"]),
    "messages": [{"role": "user", "content": os.environ["BENCH_PROMPT"]}],
} | ({"stream": True, "stream_options": {"include_usage": True}} if STREAMED else {})
PATH = "/v1/chat/completions"
DATA = b"data: "

answers = []
"""(sent, first token, last token, tokens) of each, unix seconds."""


class Tenant(FastHttpUser):
    wait_time = constant(0)

    @task
    def ask(self):
        sent = time.time()
        if STREAMED:
            self.stream(sent)
        else:
            with self.client.post(PATH, json=BODY, catch_response=True) as response:
                tokens = response.json()["usage"]["completion_tokens"]
                now = time.time()
                answers.append((sent, now, now, tokens))

    def stream(self, sent):
        times, usage = [], None
        with self.client.post(PATH, json=BODY, stream=True, catch_response=True) as response:
            body = response._response  # geventhttpclient's, which can read up to the end of an event
            while event := body.readline(b"\n\n"):
                if not event.startswith(DATA) or event.startswith(b"data: [DONE]"):
                    continue
                content = json.loads(event[len(DATA) :])
                usage = content.get("usage") or usage
                if content["choices"] and content["choices"][0]["delta"].get("content"):
                    times.append(time.time())
            if not usage or usage["completion_tokens"] != len(times):
                response.failure("usage does not add up")
                return
            response.request_meta["response_time"] = 1000 * (times[0] - sent)
        answers.append((sent, times[0], times[-1], len(times)))


@events.quitting.add_listener
def write(environment, **_):
    failures = environment.stats.total.num_failures
    with open(os.environ["BENCH_OUT"], "w") as out:
        json.dump({"failures": failures, "answers": answers}, out)
