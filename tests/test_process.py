"""Memory that is kept, signals that are heard."""

import signal

import pytest

from leancnn.process import Stop, keep_pages


def test_the_second_ctrl_c_ends_at_once() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Stop() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.asked
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == before


def test_pages_are_kept_on_glibc_and_nothing_happens_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert keep_pages() in (True, False)
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    assert keep_pages() is False
