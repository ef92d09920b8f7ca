from tests.builders.load_records import Request, answered, failed, run_of

from cotenant_loadtests.error_examples import MOST_EXAMPLES, error_examples
from cotenant_loadtests.results import ErrorExample


def examples(*requests: Request) -> tuple[ErrorExample, ...]:
    output = run_of(requests)
    return error_examples(output.plan, output.records)


def test_equal_errors_are_one_example_with_their_number_and_first_time() -> None:
    found = examples(
        failed("rate_limited", status=429, detail="rate_limit", at_s=3),
        failed("rate_limited", status=429, detail="rate_limit", at_s=2),
        failed("rate_limited", status=429, detail="rate_limit", at_s=1, tenant="red"),
        failed("reset", at_s=5),
        answered(),
    )
    assert [(one.outcome, one.tenant, one.count, one.first_at_s) for one in found] == [
        ("rate_limited", "blue", 2, 2.0),
        ("rate_limited", "red", 1, 1.0),
        ("reset", "blue", 1, 5.0),
    ]


def test_the_most_frequent_are_kept_and_at_least_one_of_each_outcome() -> None:
    many = [failed("http_error", status=500, detail=f"code {number % 80}", at_s=1) for number in range(160)]
    found = examples(*many, failed("tls", at_s=2))
    assert len(found) == MOST_EXAMPLES
    assert {one.outcome for one in found} == {"http_error", "tls"}


def test_without_errors_there_is_no_example() -> None:
    assert examples(answered()) == ()
