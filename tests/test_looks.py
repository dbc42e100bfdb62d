"""What several looks at a picture agree on."""

import numpy as np
import torch

from mhnet_video.looks import agreed_residual


def wanted_of(sides):
    """The meaning, pixel by pixel: the mean, and around it how far the sides are of one mind."""
    sides = torch.stack(list(sides)).double().numpy()
    mean = sides.mean(0)
    share = np.empty(mean.shape[1:])
    for y, x in np.ndindex(share.shape):
        around = slice(max(0, y - 7), y + 8), slice(max(0, x - 7), x + 8)
        power = (mean[:, *around] ** 2).sum()
        noise = ((sides[:, :, *around] - mean[:, *around]) ** 2).mean(0).sum()
        share[y, x] = power / (power + noise / 2) if power else 0
    return torch.from_numpy(mean * share).float()


def test_it_is_what_the_meaning_says():
    answers = iter(torch.randn(4, 3, 24, 33, generator=torch.Generator().manual_seed(0)))
    ways = ((), (1, 2), (2,), (1,))
    given, window = [], [None, torch.rand(3, 24, 33), None]

    def residual_of(seen):
        given.append((seen, next(answers)))
        return given[-1][1]

    found = agreed_residual(window, residual_of)
    for (seen, _), way in zip(given, ways, strict=True):
        assert seen[0] is seen[2] is None and torch.equal(seen[1], window[1].flip(way))
    sides = [answer.flip(way) for (_, answer), way in zip(given, ways, strict=True)]
    torch.testing.assert_close(found, wanted_of(sides), rtol=1e-4, atol=1e-6)


def test_what_all_agree_on_is_taken_out_whole_and_nothing_is_nothing():
    answer = torch.full((3, 5, 40), -0.25)
    found = agreed_residual([answer + 1], lambda _: answer)
    torch.testing.assert_close(found, answer, rtol=1e-5, atol=0)
    assert not agreed_residual([answer + 1], lambda _: torch.zeros_like(answer)).any()


def test_what_only_one_side_sees_hardly_counts():
    """A streak in one of four answers: a quarter in the mean, and two fifths of that are left."""
    streak = torch.zeros(3, 40, 40)
    streak[:, 10:30, 20] = -0.4
    answers = iter([streak, *[torch.zeros_like(streak)] * 3])
    found = agreed_residual([torch.rand(3, 40, 40)], lambda _: next(answers))
    torch.testing.assert_close(found, streak / 10, rtol=1e-4, atol=1e-7)


def test_what_is_not_finite_stays_so():
    answer = torch.zeros(3, 8, 8)
    answer[0, 2, 2] = torch.inf
    assert not agreed_residual([answer], lambda _: answer).isfinite().all()
