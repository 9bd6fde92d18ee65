"""The boards, as data: names that PlatformIO knows, sizes in bytes."""

import pytest

from leancnn.boards import boards
from leancnn.errors import UnknownNameError


@pytest.mark.parametrize("name", boards)
def test_a_board_is_kept_under_its_own_name_and_has_more_flash_than_memory(name):
    board = boards[name]
    assert board.name == name
    assert board.flash > board.ram > 16 * 1024
    assert 1 <= board.mhz <= 1000


def test_a_board_that_is_not_known_is_named_with_its_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'nano33ble'"):
        boards["nano33bl"]
