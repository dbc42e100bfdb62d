"""The signature of a kernel, by which callers bind arguments."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Signature:
    """A kernel's name and those of its parameters, to which callers bind arguments by name."""

    name: str
    parameters: tuple[str, ...]

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
        if arguments.keys() != set(self.parameters):
            missing = ", ".join(set(self.parameters) - arguments.keys()) or "nothing"
            unknown = ", ".join(arguments.keys() - set(self.parameters)) or "nothing"
            raise TypeError(f"{self.name} lacks {missing} and has no parameter {unknown}")
        bound = np.empty(calls, [(name, np.int64) for name in self.parameters])
        for name, value in arguments.items():
            bound[name] = value
        return bound
