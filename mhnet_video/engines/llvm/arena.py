"""Memory of the CPU engine: the maps of each resolution, which steps take and release."""

import torch
from torch import Tensor

from mhnet_video.engines.llvm.weight_packing import Layout
from mhnet_video.kernels.llvm_machine import Machine
from mhnet_video.kernels.llvm_product import choose_tile

_SPARE_BLOCKS = 16
"""Blocks behind the end of every map that the last tile may touch."""


_LEAST_INT8 = 32
"""Channels from which on products in int8 save more time than it takes to round their inputs."""


class Map:
    """Memory for a map of C channels.

    Args:
        machine: What the kernels are made for.
        channels: C.
        height: In pixels.
        width: In pixels.
    """

    def __init__(self, machine: Machine, channels: int, height: int, width: int) -> None:
        self.channels, self.height, self.width = channels, height, width
        self.lanes = machine.lanes
        self.row_blocks = -(-width // machine.lanes)
        self.blocks = height * self.row_blocks
        size = channels // machine.group * machine.lanes
        self.data = torch.zeros((self.blocks + _SPARE_BLOCKS) * size, dtype=torch.int32)

    def mask(self) -> Tensor:
        """All ones at the elements inside the picture."""
        lanes = torch.arange(self.row_blocks * self.lanes) < self.width
        inside = torch.zeros((self.blocks + _SPARE_BLOCKS) * self.lanes, dtype=torch.int32)
        inside[: self.blocks * self.lanes] = -lanes.int().repeat(self.height)
        return inside


class Resolution:
    """A resolution of the network, and its maps.

    Args:
        machine: What the kernels are made for.
        channels: C of its maps.
        height: In pixels.
        width: In pixels.
        int8: Whether its 1x1 convolutions may be in int8.
    """

    def __init__(
        self, machine: Machine, channels: int, height: int, width: int, *, int8: bool = True
    ) -> None:
        self.machine, self.channels, self.height, self.width = machine, channels, height, width
        self.row_blocks = -(-width // machine.lanes)
        self.tile = choose_tile(machine, self.row_blocks, channels)
        """The tile of its matrix products."""
        self.layout = Layout(machine, self.tile.outputs)
        """How their weights lie in memory."""
        self.is_int8 = int8 and machine.int8 and channels >= _LEAST_INT8
        """Whether its 1x1 convolutions are in int8."""
        self.mask = Map(machine, machine.group, height, width).mask()
        """All ones at the elements inside the picture."""
        inside = width - (self.row_blocks - 1) * machine.lanes
        self.tail = -(torch.arange(machine.lanes) < inside).int()
        """`[L]`, all ones where the last block of a row is inside the picture."""
        self.scale = torch.tensor([1 / (height * width)])
        """One over the number of pixels."""
        self._free: list[Map] = []

    def take(self) -> Map:
        """Take a map; release it after the last step that reads it is added."""
        if self._free:
            return self._free.pop()
        return Map(self.machine, self.channels, self.height, self.width)

    def release(self, *maps: Map) -> None:
        """Allow later steps to overwrite maps."""
        self._free += maps

    def sums(self, parts: int) -> Tensor:
        """Memory for the sums of a map's channels by parts, `[parts, C, L]`."""
        return torch.zeros(parts, self.channels, self.machine.lanes)
