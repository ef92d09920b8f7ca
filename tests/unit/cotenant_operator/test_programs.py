from cotenant_operator.programs import DRAIN_S
from cotenant_serving.gateway.settings import Settings


def test_a_gateway_that_drains_for_as_long_as_it_may_is_not_killed_while_it_counts_what_ran():
    settings = Settings()
    assert settings.drain_timeout_s < settings.ended_within_s < DRAIN_S
