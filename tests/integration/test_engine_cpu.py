"""How engines on `device: cpu` share the cores of their machine."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.integration

PREPARE = """
from tests.builders.engine import echo_args
from cotenant_serving.engine.loader import prepare_torch
prepare_torch(echo_args())
"""


def test_threads_that_wait_for_each_other_leave_the_core_to_others() -> None:
    """OpenMP prints its settings when it is loaded: too late for whoever sets them after torch was imported."""
    environment = {
        **os.environ,
        "OMP_DISPLAY_ENV": "TRUE",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    environment.pop("OMP_WAIT_POLICY", None)
    ran = subprocess.run([sys.executable, "-c", PREPARE], env=environment, capture_output=True, text=True, check=True)
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in ran.stderr
