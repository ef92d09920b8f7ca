"""What holds for every test: properties judge answers, never how fast examples are made; sizes come from `--full`."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

FULL_TIMEOUT_S = 600
"""Of one test at its full size, unless it has a mark of its own."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="full numbers of cases, instead of a tenth of them")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that ask for `full_size` get the mark `full`, by which `make test-chaos` finds them."""
    for item in items:
        if "full_size" not in getattr(item, "fixturenames", ()):
            continue
        item.add_marker(pytest.mark.full)
        if config.getoption("--full") and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(FULL_TIMEOUT_S))


@pytest.fixture(scope="session")
def full_size(pytestconfig: pytest.Config) -> Callable[[int], int]:
    """`full_size(20_000)` is 20,000 with `--full`, else a tenth."""
    full = bool(pytestconfig.getoption("--full"))
    return lambda cases: cases if full else max(1, cases // 10)
