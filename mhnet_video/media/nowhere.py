"""Where a muxer writes whose answers alone are wanted."""


class Nowhere:
    """A file whose bytes are forgotten.

    Args:
        is_seekable: Whether a muxer can go back in it.
    """

    name = "trial"
    closed = False

    def __init__(self, *, is_seekable: bool = True) -> None:
        self._position = 0
        self._is_seekable = is_seekable

    def seekable(self) -> bool:
        """Whether a muxer can go back."""
        return self._is_seekable

    def write(self, data: bytes) -> int:
        """Forget some bytes."""
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a position."""
        self._position = offset if whence == 0 else self._position + offset
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position
