"""The signature of a kernel, by which callers bind arguments."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mhnet_video.kernels.llvm_operations import Type


@dataclass(frozen=True)
class Signature:
    """A kernel's name and its parameters, to which callers bind arguments by name."""

    name: str
    parameters: Mapping[str, Type]

    def bind(self, arguments: Mapping[str, Any], calls: int = 1) -> NDArray[np.void]:
        """The arguments of calls, as the kernel reads them.

        Args:
            arguments: Of each parameter a number or an address, or one of these for each call.
            calls: How many calls.

        Returns:
            `[calls]`, with an int64 field of each parameter's name.

        Raises:
            TypeError: A parameter has no argument, or an argument no parameter.
        """
        if arguments.keys() != self.parameters.keys():
            missing = ", ".join(self.parameters.keys() - arguments.keys()) or "nothing"
            unknown = ", ".join(arguments.keys() - self.parameters.keys()) or "nothing"
            raise TypeError(f"{self.name} lacks {missing} and has no parameter {unknown}")
        bound = np.empty(calls, [(name, np.int64) for name in self.parameters])
        for name, value in arguments.items():
            bound[name] = value
        return bound
