"""Far more uploads at once than a slow analyser can look at: each gets its own answer in time, and every debt is paid afterwards."""

from tests.support.command import Home
from tests.support.fake_pictrs import running_pictrs
from tests.support.slow_gate import bodies, burst, prepare

from fediwarden.model import AnswerReason


def test_a_burst_at_a_slow_analyser_swaps_no_verdict_and_leaves_no_debt(home: Home) -> None:
    with running_pictrs() as fake:
        prepare(home, fake, deadline_seconds=3, queue=12, workers=2, in_flight_mb=4)
        came = burst(home, fake, bodies(80, 100), seconds=0.1, deadline=3.0, patience=30)

    assert came.wrong == ()
    assert came.debts > 0
    assert {why for passed, why in came.whys if not passed} == {AnswerReason.LOOKED}
    assert came.peak_kb - came.before_kb < 60_000
