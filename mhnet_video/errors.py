"""What this package raises about files, settings and weights.

* MHNetVideoError
  * ConfigError    a setting is out of range (also a ValueError)
  * ReadError      the source cannot be opened or decoded
  * WriteError     the destination cannot be opened, encoded or written
  * WeightsError   a weights file is wrong, truncated or foreign
"""

from mhnet_video.locator import hide


class MHNetVideoError(Exception):
    """Base of the package's errors; the command line prints its message and exits with 1.

    With 2 after a `ConfigError`. The message is one sentence for a person: which file, what is
    wrong, what to do, and without the passwords of the addresses that it is about.
    """

    def __init__(self, *said: object) -> None:
        super().__init__(*(hide(each) if isinstance(each, str) else each for each in said))


class ConfigError(MHNetVideoError, ValueError):
    """A setting is out of range."""


class ShortageError(ConfigError):
    """A device has too little memory."""


class ReadError(MHNetVideoError):
    """The source cannot be opened or decoded."""


class WriteError(MHNetVideoError):
    """The destination cannot be opened, encoded or written."""


class WeightsError(MHNetVideoError):
    """A weights file is wrong, truncated or foreign."""


def first_line(error: BaseException) -> str:
    """The first line of what an error of others says, or its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def unforeseen(error: BaseException) -> str:
    """What is said of an error that nobody has foreseen, without a full stop."""
    return f"a fault in this program, {type(error).__name__}: {first_line(error)}"
