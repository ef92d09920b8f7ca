"""Run a plan: worker processes send it, this one starts, watches and ends them, and gathers what they recorded."""

from cotenant_loadtests.run_output import Progress, RunError, RunOutput

__all__ = ["Progress", "RunError", "RunOutput"]
