"""What threads of live mode hand to each other."""

import threading

import pytest
from waiting import SECONDS, wait_until

from mhnet_video.live.exchange import Latest

pytestmark = pytest.mark.beside


def test_the_newest_is_what_readers_get():
    latest: Latest[int] = Latest()
    assert latest.get(0, 0.01) is None
    for value in (5, 6, 7):
        latest.put(value)
    assert latest.get(0, 0.01) == (3, 7)
    assert latest.get(3, 0.01) is None


def test_a_reader_that_waits_wakes_for_an_item_and_for_the_end():
    latest: Latest[int] = Latest()
    got = []

    def read():
        for number in range(2):
            got.append(latest.get(number, threading.TIMEOUT_MAX))

    def is_asleep():
        return bool(latest._changed._waiters)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    wait_until(is_asleep)
    latest.put(8)
    wait_until(lambda: got == [(1, 8)] and is_asleep())
    latest.close()
    reader.join(SECONDS)
    assert got == [(1, 8), None]
