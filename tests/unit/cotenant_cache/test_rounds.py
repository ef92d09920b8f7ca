"""What a round of verification says of itself."""

from cotenant_cache.contract import FileProgress, Progress
from cotenant_cache.rounds import RoundTeller
from cotenant_cache.store import Clock


class Round:
    """Of 1000 bytes, with a clock that the test moves."""

    def __init__(self) -> None:
        self.now, self.said = 100.0, list[Progress]()
        clock = Clock(monotonic=lambda: self.now)
        self.teller = RoundTeller("3 files", 1000, self.said.append, clock)


def file(name: str, done: int, total: int) -> tuple[FileProgress, ...]:
    return (FileProgress(name=name, done_bytes=done, total_bytes=total),)


def test_a_round_says_bytes_of_all_its_rate_and_when_it_ends() -> None:
    one = Round()
    one.teller.begin("a", 400)
    one.now += 2
    one.teller.read(100)
    [said] = one.said
    assert (said.source, said.phase, said.done_bytes, said.total_bytes) == ("3 files", "verifying", 100, 1000)
    assert (said.rate_bytes_per_s, said.eta_s, said.files) == (50.0, 18.0, file("a", 100, 400))


def test_files_that_were_not_read_count_as_done_and_for_no_rate() -> None:
    one = Round()
    one.teller.begin("gone", 400)
    one.teller.begin("b", 600)
    one.now += 1
    one.teller.read(300)
    assert (one.said[-1].done_bytes, one.said[-1].rate_bytes_per_s, one.said[-1].eta_s) == (700, 300.0, 1.0)
    one.teller.read(300)
    assert (one.said[-1].done_bytes, one.said[-1].eta_s) == (1000, 0.0)


def test_it_is_said_a_few_times_a_second_and_when_a_file_is_over() -> None:
    one = Round()
    one.teller.begin("a", 400)
    for _ in range(100):
        one.teller.read(1)
    assert one.said == []
    one.teller.begin("b", 600)
    assert [said.files for said in one.said] == [file("a", 400, 400)]
    one.teller.at("b", 600, 600)
    assert one.said[-1].files == file("b", 600, 600)


def test_a_file_that_turned_out_larger_than_known_is_not_more_than_whole() -> None:
    one = Round()
    one.teller.at("a", 400, 500)
    assert (one.said[-1].done_bytes, one.said[-1].files) == (400, file("a", 400, 400))
