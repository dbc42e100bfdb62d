"""Kernel for CPUs of what stands still on the glass.

`glass_statistics` in model/window.py is the reference implementation.
"""

from mhnet_video.kernels.llvm_ir import Emitter
from mhnet_video.kernels.llvm_machine import Machine
from mhnet_video.kernels.llvm_operations import BYTES, FLOATS, I8, I16, I32, I64, INDEX, pointer

MOST_IMAGES = 128
"""Images whose sums fit 16 bits."""
_VECTORS = 2
"""Vectors that a step works on."""


def step_samples(lanes: int) -> int:
    """Fewest samples of an image, and those of a step.

    Args:
        lanes: Of the machine.
    """
    return 2 * lanes * _VECTORS


def glass_statistics(machine: Machine, name: str) -> Emitter:
    """The mean of images, and the mean of their absolute differences from one of them.

    Sums are whole numbers, so that the order of the images changes nothing. Steps lie one after the
    other, but for the last one, which ends where the image does.

    Args:
        machine: What it is made for.
        name: The kernel's name.
    """
    e = Emitter(
        machine,
        name,
        middle=BYTES,  # [samples]: the image that the others are compared with
        offsets=pointer(I64),  # [count]: bytes from it to each image
        count=INDEX,  # images, MOST_IMAGES at most
        shares=FLOATS,  # [2]: factors of the two sums
        mean=FLOATS,  # [samples] float32
        difference=FLOATS,  # the same
        samples=INDEX,  # step_samples at least
    )
    p = e.parameters
    width, step = 2 * machine.lanes, step_samples(machine.lanes)
    bytes_, words = I8.vector(width), I16.vector(width)
    halves = [e.broadcast(p.shares + number) for number in (0, 1)]
    shares = [e.shuffle(half, half, range(width)) for half in halves]
    last = p.samples - step
    for start in e.loop(0, p.samples, step):
        at = e.select(start < last, start, last)
        fixed = [
            e.emit("load", p.middle + (at + number * width), type=bytes_).widen_unsigned(I16)
            for number in range(_VECTORS)
        ]
        sums = [e.zero(words) for _ in range(2 * _VECTORS)]
        for index in e.loop(0, p.count, carry=sums):
            image = p.middle + (e.load_scalar(p.offsets + index) + at)
            for number, other in enumerate(fixed):
                here = e.emit("load", image + number * width, type=bytes_).widen_unsigned(I16)
                change = here - other
                sums[2 * number] += here
                sums[2 * number + 1] += e.maximum(change, other - here)
        for number, total in enumerate(sums):
            out = (p.mean, p.difference)[number % 2]
            value = total.widen_unsigned(I32).to_float() * shares[number % 2]
            e.store(value, out + (at + number // 2 * width))
    return e
