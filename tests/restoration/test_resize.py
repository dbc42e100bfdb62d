"""Pictures at another size: strips against the whole picture."""

import pytest
import torch
import torch.nn.functional as F

from mhnet_video.restoration import resize
from mhnet_video.restoration.resize import enlarged_strips, scaled_strips, shrink, shrunk

CPU = torch.device("cpu")
SIZES = [
    ((216, 384), (108, 192)),
    ((108, 96), (81, 72)),
    ((90, 70), (77, 60)),
    ((60, 40), (60, 20)),
    ((216, 384), (81, 144)),
]


def picture(size):
    return torch.rand(3, *size, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(("large", "small"), SIZES)
def test_strips_cover_both_pictures(large, small, monkeypatch):
    monkeypatch.setattr(resize, "_STRIP_PIXELS", 8 * large[1])
    strips = list(scaled_strips(*large, small[0], CPU))
    for index, length in ((0, large[0]), (1, small[0])):
        edges = [0, *(strip[index].stop for strip in strips)]
        assert [strip[index].start for strip in strips] == edges[:-1]
        assert edges[-1] == length
    assert all(strip[0].start % resize.STRIP_ROWS == 0 for strip in strips)
    if large[0] % small[0] == 0:
        assert len(strips) > 1


@pytest.mark.parametrize("with_opencv", [True, False])
@pytest.mark.parametrize(("large", "small"), SIZES)
def test_strips_are_those_of_the_whole_picture(large, small, with_opencv, monkeypatch):
    if not with_opencv:
        monkeypatch.setattr(resize, "opencv", lambda: None)
    source, target = picture(large), picture(small)

    def results():
        fewer = torch.full((3, *small), float("nan"))
        for rows, of_small in scaled_strips(*large, small[0], CPU):
            shrink(source[:, rows], fewer[:, of_small])
        more = torch.full((3, *large), float("nan"))
        for rows, part in enlarged_strips(target, *large):
            more[:, rows] = part
        return fewer, more

    whole = results()
    torch.testing.assert_close(whole[0], shrunk(source, *small), rtol=0, atol=0)
    monkeypatch.setattr(resize, "_STRIP_PIXELS", 8 * large[1])
    for strips, expected in zip(results(), whole, strict=True):
        torch.testing.assert_close(strips, expected, rtol=0, atol=3e-6)


@pytest.mark.parametrize("with_opencv", [True, False])
@pytest.mark.parametrize("small", [(81, 144), (54, 96), (80, 144), (100, 96)])
def test_a_smaller_picture_is_the_mean_of_what_it_covers(small, with_opencv, monkeypatch):
    if not with_opencv:
        monkeypatch.setattr(resize, "opencv", lambda: None)
    steps = torch.arange(216)[:, None] / 216 + torch.arange(384) / 768
    source = torch.stack([steps, steps.square(), torch.ones(216, 384)])
    found = shrunk(source, *small)
    exact = F.interpolate(source[None].double(), (216 * small[0], 384), mode="nearest")
    exact = exact.reshape(3, small[0], 216, 384).mean(2)
    exact = exact.repeat_interleave(small[1], 2).reshape(3, small[0], small[1], 384).mean(3)
    # a sixth of a pixel off where halves are shared, and PyTorch takes whole pixels
    limit = 4e-3 if with_opencv else 2e-2
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=limit)


def test_a_picture_of_that_size_is_not_copied():
    source = picture((8, 8))
    assert [(rows, part is source) for rows, part in enlarged_strips(source, 8, 8)] == [
        (slice(0, 8), True)
    ]


def test_areas_are_averaged_by_the_cpu_of_a_mac(monkeypatch):
    """PyTorch refuses those on its GPU that are not of whole pixels."""
    monkeypatch.setattr(resize, "opencv", lambda: None)
    large = picture((90, 70))
    expected = shrunk(large, 77, 60)
    moved, interpolate = [], F.interpolate

    def on_cpu(x):
        moved.append(x.clone())
        return moved[-1]

    def only_there(x, *size, **options):
        assert x.data_ptr() == moved[-1].data_ptr()
        return interpolate(x, *size, **options)

    monkeypatch.setattr(torch.Tensor, "device", torch.device("mps"))
    monkeypatch.setattr(torch.Tensor, "cpu", on_cpu)
    monkeypatch.setattr(F, "interpolate", only_there)
    found = torch.empty(3, 77, 60)
    shrink(large, found)
    monkeypatch.undo()
    assert torch.equal(found, expected)
