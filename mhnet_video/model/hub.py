"""Models in folders and repositories of the form that Hugging Face has.

Such a folder holds `config.json`, the sizes of the network, and `model.safetensors`. Repositories
are reached by the package `huggingface_hub`, which is in the extra `hub`.
"""

import re
from os import PathLike
from pathlib import Path
from typing import Any

from mhnet_video.errors import MHNetVideoError, WeightsError, first_line

CONFIG = "config.json"
"""The file of the sizes."""
WEIGHTS = "model.safetensors"
"""The file of the tensors."""
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""The form of a repository's name: OWNER/NAME."""


def is_repository(name_or_path: str | PathLike[str]) -> bool:
    """Whether a name is one of a repository, and of no file or folder here."""
    text = str(name_or_path)
    path = Path(text)
    # what ends like a file of weights, or begins with a folder that is here, is a path
    is_path = path.suffix in (".safetensors", ".pth", ".pt") or path.parent.exists()
    return _REPOSITORY.fullmatch(text) is not None and not is_path


def weights_in(folder: Path) -> Path:
    """The weights of a folder.

    Raises:
        WeightsError: It is no folder of a model.
    """
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise WeightsError(
            f"{folder} is no model: {' and '.join(missing)} missing; name a folder that "
            "save_pretrained wrote, or a weights file"
        )
    return folder / WEIGHTS


def download(repository: str, *, is_offline: bool = False) -> Path:
    """The weights of a repository, from the cache of `huggingface_hub` where they are there.

    Args:
        repository: Its name.
        is_offline: Whether to look into the cache only.

    Raises:
        WeightsError: The package is not installed, or there is no such model or no network.
    """
    hub = _hub(WeightsError)
    try:
        folder = hub.snapshot_download(
            repository, allow_patterns=[CONFIG, WEIGHTS], local_files_only=is_offline
        )
    except Exception as error:  # those of its network library have no common base
        raise WeightsError(
            f"cannot fetch {repository} from Hugging Face ({_reason(error)}); check the name and "
            "the network, or name a folder or a weights file"
        ) from error
    return weights_in(Path(folder))


def upload(folder: Path, repository: str, *, private: bool) -> str:
    """Send a folder's files to a repository, which is created where there is none.

    Returns:
        The address of the commit.

    Raises:
        MHNetVideoError: The package is not installed, or the upload fails.
    """
    hub = _hub(MHNetVideoError)
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        return str(hub.upload_folder(repo_id=repository, folder_path=str(folder)))
    except Exception as error:
        raise MHNetVideoError(
            f"cannot send the model to {repository} on Hugging Face ({_reason(error)}); check the "
            "name, the network and `hf auth login`"
        ) from error


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}".rstrip(".: ")


def _hub(kind: type[MHNetVideoError]) -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise kind(
            "repositories of Hugging Face need the package huggingface_hub; pip install "
            "'mhnet-video[hub]', or name a folder or a weights file"
        ) from error
    return huggingface_hub
