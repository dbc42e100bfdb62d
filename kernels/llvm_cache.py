"""Compiled kernels on disk, so that a program starts without a compiler.

A file holds one object file, a line of JSON before it. Kernels depend on the processor and on what
writes them, and neither on weights nor on the sizes of pictures: the files' names say for which
processor and by which source they were made.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import llvmlite
import llvmlite.binding as llvm

from mhnet_video.cache_folder import cache_folder
from mhnet_video.kernels.llvm_machine import Machine
from mhnet_video.kernels.llvm_signature import Signature
from mhnet_video.system import replace_file

KEPT_SECONDS = 30 * 24 * 3600
"""How long files of other processors and sources are kept."""


class ObjectFile(NamedTuple):
    """Kernels that were compiled together."""

    signatures: Mapping[str, Signature]
    """The kernels by name."""
    code: bytes
    """The object file, in the format of this system's linker."""


class KernelCache:
    """The kernels on disk for one processor. Whatever goes wrong with the disk is no error.

    Processes may share a folder: files appear whole, and those of one name hold the same kernels.

    Args:
        machine: What the kernels are made for.
        folder: Where the files are; None for the user's folder for caches.
    """

    def __init__(self, machine: Machine, folder: Path | None = None) -> None:
        self._folder = folder or user_folder()
        self._key = _key(machine)
        self._objects: dict[str, ObjectFile] = {}
        if self._folder is not None and _is_private(self._folder):
            for path in sorted(self._folder.glob(f"{self._key}-*")):
                for name in (found := _read(path)).signatures:
                    self._objects.setdefault(name, found)

    def signature(self, name: str) -> Signature | None:
        """The signature of a kernel; None if it is not on disk."""
        found = self._objects.get(name)
        return None if found is None else found.signatures[name]

    def objects(self, names: Iterable[str]) -> Sequence[ObjectFile]:
        """The object files in which kernels are, each once."""
        found = {id(each): each for name in names if (each := self._objects.get(name))}
        return list(found.values())

    def save(self, compiled: ObjectFile) -> None:
        """Keep an object file for the processes that follow."""
        if self._folder is None:
            return
        parameters = {name: each.parameters for name, each in compiled.signatures.items()}
        names = hashlib.sha256("\n".join(sorted(parameters)).encode()).hexdigest()[:16]
        header = {"kernels": parameters, "sha256": hashlib.sha256(compiled.code).hexdigest()}
        path = self._folder / f"{self._key}-{names}"
        partial = path.with_name(f".{path.name}-{os.getpid()}")
        with suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                partial.write_bytes(json.dumps(header).encode() + b"\n" + compiled.code)
                replace_file(partial, path)
            except OSError:
                partial.unlink(missing_ok=True)
            self._forget_others()

    def _forget_others(self) -> None:
        """Remove what nobody has made for long, and what a killed process left."""
        assert self._folder is not None
        for path in self._folder.iterdir():
            if path.name.startswith(self._key):
                continue
            with suppress(OSError):
                if path.stat().st_mtime < time.time() - KEPT_SECONDS:
                    path.unlink()


def user_folder() -> Path | None:
    """The folder of kernels in the user's folder for caches; None if the user has no home."""
    folder = cache_folder()
    return None if folder is None else folder / "kernels"


def _is_private(folder: Path) -> bool:
    """Whether nobody else can put code there."""
    if sys.platform == "win32":
        return folder.is_dir()
    try:
        status = folder.stat()
    except OSError:
        return False
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _read(path: Path) -> ObjectFile:
    """A file's kernels; none if it is damaged."""
    try:
        line, _, code = path.read_bytes().partition(b"\n")
        header = json.loads(line)
        if header["sha256"] != hashlib.sha256(code).hexdigest():
            return ObjectFile({}, b"")
        signatures = {
            name: Signature(name, tuple(parameters))
            for name, parameters in header["kernels"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ObjectFile({}, b"")
    return ObjectFile(signatures, code)


def _key(machine: Machine) -> str:
    """What a kernel's code depends on besides its name, hashed."""
    features = llvm.get_host_cpu_features().flatten()
    return hashlib.sha256(
        "\n".join(
            [
                repr(machine),
                llvm.get_process_triple(),
                llvm.get_host_cpu_name(),
                features,
                llvmlite.__version__,
                str(llvm.llvm_version_info),
                _source(),
            ]
        ).encode()
    ).hexdigest()[:32]


@cache
def _source() -> str:
    """The source of all that writes kernels, hashed."""
    files = sorted(Path(__file__).parent.glob("llvm_*.py"))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()
