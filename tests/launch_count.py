"""Counts what would be launches of kernels on a GPU, and the waits for their results."""

from torch.utils._python_dispatch import TorchDispatchMode

_NOTHING = ("empty", "detach", "lift_fresh", "alias")
"""Operations of PyTorch that start no kernel, beside views."""
_WAITS = ("_local_scalar_dense", "equal", "is_nonzero")
"""Those that wait for a result."""


class LaunchCount(TorchDispatchMode):
    """Counts operations of this thread while it is entered, wherever the tensors are."""

    def __init__(self):
        super().__init__()
        self.launches = 0
        self.waits = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.removeprefix("aten::")
        aliases = [each.alias_info for each in function._schema.returns]
        is_view = any(each is not None and not each.is_write for each in aliases)
        if name in _WAITS:
            self.waits += 1
        elif not is_view and not name.startswith(_NOTHING):
            self.launches += 1
        return function(*args, **(kwargs or {}))
