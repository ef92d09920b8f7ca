"""`cotenant demo`, as a newcomer runs it."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.builders.up import until

pytestmark = pytest.mark.integration

DEMO = [sys.executable, "-m", "cotenant_operator", "demo", "--port", "0", "--state"]


def test_the_demo_chats_and_ranks_on_one_device_shows_the_shares_and_ends_with_0(tmp_path: Path):
    ran = subprocess.run([*DEMO, str(tmp_path), "--once"], capture_output=True, text=True, timeout=110, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "many tenants" in ran.stdout.lower()
    assert "First token of chat" in ran.stdout
    assert nearest(ran.stdout) == "Hotel rooms from 40 euros a night"
    assert "ads/sentences" in ran.stdout
    assert "search/chat" in ran.stdout
    assert "curl -N http://127.0.0.1:" in ran.stdout
    assert "OpenAI(base_url=" in ran.stdout


def nearest(said: str) -> str:
    """The sentence that model sentences ranked first, for the query that stands above it."""
    [first] = re.findall(r"^  ads> .*\n  sentences> +[\d.-]+  (.*)$", said, re.MULTILINE)
    return str(first)


def test_ctrl_c_while_a_model_wakes_ends_the_demo_without_its_answer(tmp_path: Path):
    log = tmp_path / "log"
    with log.open("wb") as output:
        demo = subprocess.Popen([*DEMO, str(tmp_path / "state")], stdout=output, stderr=output)
    until(lambda: "search/chat: waking" in log.read_text() or demo.poll() is not None, "chat wakes")
    demo.send_signal(signal.SIGINT)
    assert demo.wait(60) == 0
    said = log.read_text()
    assert "First token" not in said
    assert "Traceback" not in said
    assert said.rstrip().endswith("stopped")
