"""How a machine is divided among workers."""

import pytest

from mhnet_video.batch.jobs import share_machine, visible_gpus, worker_bytes


def divided(*args, **how):
    share = share_machine(*args, **how)
    return len(share.environments), share.threads


def test_each_core_has_a_worker_as_long_as_there_is_work_and_memory():
    assert divided(None, cores=2) == (2, 1)
    usual, large = worker_bytes("derain"), worker_bytes("raindrop")
    assert divided(None, cores=32, works=100, memory_bytes=64 * usual) == (32, 1)
    assert divided(None, cores=32, works=5) == (5, 7)
    assert divided(None, cores=8, memory_bytes=6 * usual - 1) == (5, 2)
    assert divided(None, cores=8, memory_bytes=2 * large, task="raindrop") == (2, 4)
    assert divided(None, cores=8, works=0, memory_bytes=1) == (1, 8)


def test_jobs_that_are_asked_for_are_given():
    assert divided(3, cores=2, works=1, memory_bytes=1) == (3, 1)


def test_each_gpu_has_a_worker():
    share = share_machine(None, cores=32, gpus=("0", "GPU-5"), memory_bytes=1)
    assert [each["CUDA_VISIBLE_DEVICES"] for each in share.environments] == ["0", "GPU-5"]
    assert divided(None, cores=32, gpus=("0", "1"), works=1) == (1, 32)
    share = share_machine(3, cores=32, gpus=("0", "1"))
    assert [each["CUDA_VISIBLE_DEVICES"] for each in share.environments] == ["0", "1", "0"]


@pytest.mark.parametrize(
    ("said", "count", "names"),
    [("", 2, ("0", "1")), ("2, 3", 2, ("2", "3")), ("GPU-1", 1, ("GPU-1",))],
)
def test_gpus_that_were_chosen_before_stay_so(monkeypatch, said, count, names):
    class Cuda:
        @staticmethod
        def device_count():
            return count

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
    assert visible_gpus(Cuda) == names
