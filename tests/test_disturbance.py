"""A quiet core gives no sign; a shared, a slower and a stolen one each give theirs."""

import numpy as np
import pytest

from leancnn.disturbance import disturbances, read_steal, stolen_share

QUIET = [[1.0, 1.01, 1.02] * 40] * 4


def test_a_quiet_core_gives_no_sign():
    assert disturbances({"c": QUIET, "torch": QUIET}, QUIET, stolen=0.001) == ()
    assert disturbances({}) == ()


@pytest.mark.parametrize("share", [0.06, 0.2])
def test_calls_that_wait_for_another_program_are_seen_in_the_95th_percentile(share):
    random = np.random.default_rng(0)
    turns = [list(1 + 3.0 * (random.random(200) < share)) for _ in range(8)]
    assert disturbances({"c": turns}) == ("the 95th percentile of c is 4.00 times its median",)


def test_a_slower_core_is_seen_in_the_loop_though_every_call_of_a_turn_is_alike():
    loop = [[1.0, 1.01], [1.0, 1.02], [1.3, 1.31]]
    (sign,) = disturbances({"c": QUIET}, loop)
    assert sign == "the core's frequency fell: the same loop took 1.30 times its best round"
    assert disturbances({"c": QUIET}, [[1.0, 9.0], [1.0, 1.0]]) == (), "a call that waited is not"


def test_stolen_time_is_that_of_the_core_alone(tmp_path):
    stat = tmp_path / "stat"
    stat.write_text(
        "cpu  1 1 1 1 1 1 1 1 0 0\ncpu0 9 0 0 90 0 0 0 1 5 0\ncpu1 1 0 0 1 0 0 0 98 0 0\n"
    )
    before = read_steal(0, stat)
    assert before == (1, 100)
    stat.write_text("cpu0 50 0 0 144 0 0 0 6 7 0\n")
    assert stolen_share(before, read_steal(0, stat)) == 0.05
    assert disturbances({}, stolen=0.05) == ("the hypervisor gave 5.0% of the core to others",)
    assert read_steal(7, stat) is None
    assert read_steal(0, tmp_path / "none") is None
    assert stolen_share(None, before) == stolen_share(before, before) == 0
