"""The history keeps what a client knew apart from what it learned later."""

from chaos.history import History, Status


def history() -> History:
    ticks = iter(range(100))
    return History(lambda: float(next(ticks)))


def test_a_call_is_unknown_until_its_client_has_an_answer() -> None:
    calls = history()
    number = calls.begin("pay", "t-1", 1, 2, 5)
    assert (calls[number].status, calls[number].end_s) == (Status.INFO, None)


def test_what_was_learned_later_does_not_overwrite_what_the_client_knew() -> None:
    calls = history()
    number = calls.begin("pay", "t-1", 1, 2, 5)
    calls.name(number, "g-1")
    calls.end(number, Status.INFO, "the answer was lost")
    resolved = calls.resolve(number, Status.OK, "COMMIT")
    assert (resolved.status, resolved.resolved, resolved.known) == (Status.INFO, Status.OK, Status.OK)


def test_only_calls_with_a_transaction_can_be_asked_for() -> None:
    calls = history()
    named, unnamed, known = (calls.begin("pay", f"t-{number}", 1, 2, 5) for number in range(3))
    calls.name(named, "g-1")
    calls.name(known, "g-2")
    for number, status in ((named, Status.INFO), (unnamed, Status.INFO), (known, Status.OK)):
        calls.end(number, status)
    assert [call.transfer for call in calls.unresolved()] == ["t-0"]


def test_times_are_those_of_the_runs_clock_in_order() -> None:
    calls = history()
    number = calls.begin("pay", "t-1", 1, 2, 5)
    calls.commit_asked(number)
    call = calls.end(number, Status.OK)
    assert (call.start_s, call.commit_s, call.end_s) == (0.0, 1.0, 2.0)
