"""An engine's log in its container's output: all of it, with the last words of one that is killed."""

import os
import signal
import subprocess
import sys

ENGINE = """
import os, signal, sys
from pathlib import Path
from cotenant_serving.engine.log_follower import follow_in_child
log = Path(sys.argv[1])
log.write_text("of an earlier start\\n")
file = os.open(log, os.O_WRONLY | os.O_APPEND)
os.dup2(file, 1)
follow_in_child(log, "search.chat-r1-0", sys.argv[2])
print("loading", flush=True)
input()
os.write(1, b"CUDA error: device-side assert\\nnot a whole line")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_every_line_arrives_with_the_app_before_it_and_the_last_ones_of_a_killed_engine_too(tmp_path):
    source, output = os.pipe()
    engine = subprocess.Popen(
        [sys.executable, "-c", ENGINE, str(tmp_path / "app.log"), f"/proc/{os.getpid()}/fd/{output}"],
        stdin=subprocess.PIPE,
    )
    with os.fdopen(source, "rb") as lines:
        assert lines.readline() == b"[search.chat-r1-0] loading\n"
        assert engine.stdin is not None
        engine.communicate(b"\n")
        assert engine.returncode == -signal.SIGKILL
        os.close(output)
        assert lines.read() == (  # until the follower has ended too
            b"[search.chat-r1-0] CUDA error: device-side assert\n[search.chat-r1-0] not a whole line\n"
        )


def test_a_container_whose_output_cannot_be_written_costs_only_a_line_in_the_log(tmp_path):
    log = tmp_path / "app.log"
    ended = subprocess.run(
        [sys.executable, "-c", ENGINE, str(log), str(tmp_path / "nowhere")],
        input=b"\n",
        stderr=subprocess.PIPE,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    assert b"does not go to the container's output" in ended.stderr
    assert "CUDA error" in log.read_text()
