import re

from cotenant_serving.gateway.request_ids import RequestIds


def test_ids_are_random_and_no_two_are_the_same():
    first, second = RequestIds(), RequestIds()
    made = [ids.new() for _ in range(1000) for ids in (first, second)]

    assert len(set(made)) == 2000
    assert all(re.fullmatch(r"req-[0-9a-f]{24}", one) for one in made)
    assert len({one[:8] for one in made}) > 1900, "each begins anew: none is counted up from another"
