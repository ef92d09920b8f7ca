"""Exit codes of the commands that load something."""

EXIT_PASSED = 0
EXIT_MISSED = 1
"""An SLO was missed."""
EXIT_NOT_VALID = 2
"""The run says nothing about the target."""
EXIT_BAD_SCENARIO = 3
"""So is every refusal before the start."""
EXIT_OWN_MISTAKE = 70
"""A traceback: it says nothing about the target (EX_SOFTWARE of sysexits.h)."""
EXIT_INTERRUPTED = 130
EXIT_CLOSED_PIPE = 141
"""Nobody reads stdout any more; files are whole (128 + SIGPIPE, as other programs end then)."""
EXIT_CODES = {"passed": EXIT_PASSED, "missed": EXIT_MISSED, "not_valid": EXIT_NOT_VALID}
"""By the verdict."""
