import errno
import io

import pytest
from tests.builders.load_records import planned, scenario_of

from cotenant_loadtests.live import COLUMNS, View, watching
from cotenant_loadtests.run_output import Progress


class Screen(io.StringIO):
    """A terminal that keeps what it is shown."""

    def isatty(self) -> bool:
        return True


def progress(at_s: float, **fields: object) -> Progress:
    nothing = {name: {} for name in ("sent", "succeeded", "failed", "in_flight", "tokens", "ttft_p50_ms")}
    return Progress(**{"at_s": at_s, "lateness_p99_ms": 0.0, **nothing, **fields})  # type: ignore[arg-type]


def named(row: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(COLUMNS, row, strict=True))


def test_rates_are_those_of_the_last_second_and_counts_those_of_the_run() -> None:
    view = View(60, ["ads"])
    view.take(progress(1, sent={"ads": 10}, tokens={"ads": 100}))
    view.take(
        progress(
            3,
            sent={"ads": 50},
            tokens={"ads": 500},
            succeeded={"ads": 1040},
            failed={"ads": 3},
            in_flight={"ads": 7},
            ttft_p50_ms={"ads": 12.34},
        )
    )

    (row,) = view.rows()

    assert named(row) == {
        "TENANT": "ads",
        "SENT/S": "20.0",
        "SUCCEEDED": "1,040",
        "FAILED": "3",
        "IN FLIGHT": "7",
        "TOKENS/S": "200",
        "TTFT P50": "12.3 ms",
    }


def test_several_tenants_have_a_last_row_with_their_sums() -> None:
    view = View(60, ["ads", "search"])
    view.take(progress(1, sent={"ads": 10, "search": 5}, ttft_p50_ms={"ads": 1.0}))

    rows = [named(row) for row in view.rows()]

    assert [row["TENANT"] for row in rows] == ["ads", "search", "all"]
    assert [row["SENT/S"] for row in rows] == ["10.0", "5.0", "15.0"]
    assert [row["TTFT P50"] for row in rows] == ["1.0 ms", "", ""]


@pytest.mark.parametrize(
    ("at_s", "in_flight", "expected"),
    [
        (12.0, 4, "12 s, 48 s left; lateness p99 0.0 ms"),
        (61.0, 4, "61 s, waiting for 4 answers; lateness p99 0.0 ms"),
        (61.0, 0, "61 s, 0 s left; lateness p99 0.0 ms"),
    ],
)
def test_the_headline_says_how_long_it_goes_on(at_s: float, in_flight: int, expected: str) -> None:
    view = View(60, ["ads"])
    view.take(progress(at_s, in_flight={"ads": in_flight}))

    assert view.headline() == expected


def test_errors_are_named_most_frequent_first() -> None:
    view = View(60, ["ads"])
    view.take(progress(1, errors={"timeout": 2, "reset": 1200}, lateness_p99_ms=1.26))

    assert view.headline() == "1 s, 59 s left; lateness p99 1.3 ms; reset 1,200, timeout 2"


def test_a_view_stays_with_its_last_state() -> None:
    screen = Screen()

    with watching(scenario_of(), [planned(tenant="blue")], quiet=False, stream=screen) as on_progress:
        assert on_progress is not None
        on_progress(progress(1, sent={"blue": 3}))
        on_progress(progress(9, sent={"blue": 11}))

    assert "1 s, 9 s left" in screen.getvalue()
    assert screen.getvalue().rstrip().rpartition("9 s, 1 s left")[2].count("blue") == 1


@pytest.mark.parametrize(("quiet", "stream"), [(True, Screen()), (False, io.StringIO())], ids=["quiet", "a file"])
def test_nobody_who_does_not_look_is_shown_anything(quiet: bool, stream: io.StringIO) -> None:
    with watching(scenario_of(), [], quiet=quiet, stream=stream) as on_progress:
        assert on_progress is None
    assert stream.getvalue() == ""


class Gone(Screen):
    """A terminal whose window is closed while it is written to."""

    gone = False

    def write(self, text: str) -> int:
        if self.gone:
            raise OSError(errno.EIO, "Input/output error")
        return super().write(text)


def test_a_terminal_that_goes_away_does_not_disturb_the_run() -> None:
    screen = Gone()
    with watching(scenario_of(), [planned(tenant="ads")], quiet=False, stream=screen) as show:
        assert show is not None
        show(progress(1, sent={"ads": 10}))
        screen.gone = True
        show(progress(2, sent={"ads": 20}))
        show(progress(3, sent={"ads": 30}))

    assert "ads" in screen.getvalue()
