"""Models as folders and repositories of Hugging Face, without a network."""

import json
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from mhnet_video.errors import MHNetVideoError, WeightsError, WriteError
from mhnet_video.model import hub
from mhnet_video.model.network import MHNet, NetworkConfig
from mhnet_video.model.weights import load_model, push_to_hub, save_pretrained, training_of

CONFIG = NetworkConfig(width=8, encoder_blocks=(1, 0, 2, 1), heads=4, frames=3, align=True)


@pytest.fixture
def network():
    network = MHNet(CONFIG)
    network.task = "deblur"
    for parameter in network.parameters():
        parameter.data.normal_(0, 0.1)
    return network.eval()


@pytest.fixture
def repository(network, tmp_path, monkeypatch):
    """A hub with one repository, OWNER/NAME, whose folder it gives; it says what was asked."""
    asked = []

    def download(name, **options):
        asked.append((name, options))
        if name != "OWNER/NAME":
            raise ConnectionError("no route to host\nand more")
        return str(tmp_path / "repository")

    def upload(**options):
        shutil.copytree(options["folder_path"], tmp_path / "uploaded")
        asked.append(("upload", options))
        return "https://huggingface.co/OWNER/NAME/commit/1"

    fake = SimpleNamespace(
        snapshot_download=download,
        create_repo=lambda name, **options: asked.append((name, options)),
        upload_folder=upload,
    )
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    save_pretrained(network, tmp_path / "repository")
    return asked


def same(a, b):
    state = b.state_dict()
    return all(torch.equal(value, state[name]) for name, value in a.state_dict().items())


def test_a_folder_comes_back(network, tmp_path):
    folder = save_pretrained(network, tmp_path / "new/model", description="d", training={"a": 1})
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    loaded = load_model(folder)
    assert (loaded.config, loaded.task) == (CONFIG, "deblur") and same(loaded, network)
    assert training_of(folder)["a"] == 1
    assert json.loads((folder / "config.json").read_text())["model_type"] == "mhnet"


def test_a_folder_of_another_program_has_its_sizes_in_the_configuration(network, tmp_path):
    folder = save_pretrained(network, tmp_path / "model")
    save_file(network.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    loaded = load_model(folder)
    assert (loaded.config, loaded.task) == (CONFIG, "deblur") and same(loaded, network)
    for damaged in ("{", "[]", '{"width": 0}', '{"width": "wide"}'):
        (folder / "config.json").write_text(damaged)
        with pytest.raises(WeightsError):
            load_model(folder)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"is no model: config.json and model.safetensors"):
        load_model(tmp_path)


def test_nothing_in_a_folder_is_replaced(network, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(WriteError, match="not empty"):
        save_pretrained(network, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(WriteError, match="cannot write"):
        save_pretrained(network, tmp_path / "mine.txt/model")


def test_a_repository_loads(network, repository):
    loaded = load_model("OWNER/NAME")
    assert (loaded.config, loaded.task) == (CONFIG, "deblur") and same(loaded, network)
    # nothing else is fetched: repositories may hold large files, and code
    assert repository[0][1]["allow_patterns"] == ["config.json", "model.safetensors"]


def test_a_repository_without_a_network_is_one_sentence(repository):
    with pytest.raises(WeightsError, match="cannot fetch OTHER/NAME from Hugging Face") as caught:
        load_model("OTHER/NAME")
    assert "no route to host" in str(caught.value) and "\n" not in str(caught.value)


def test_a_repository_without_the_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WeightsError, match=r"pip install 'mhnet-video\[hub\]'"):
        load_model("OWNER/NAME")


def test_a_model_is_sent(network, repository, tmp_path):
    assert push_to_hub(network, "OWNER/NAME", private=True).startswith("https://")
    assert repository[0] == ("OWNER/NAME", {"private": True, "exist_ok": True})
    assert same(load_model(tmp_path / "uploaded"), network)


def test_what_the_hub_refuses_is_one_sentence(network, repository, monkeypatch):
    def refuse(name, **options):
        raise RuntimeError("401 Unauthorized\nlong")

    monkeypatch.setattr(sys.modules["huggingface_hub"], "create_repo", refuse)
    with pytest.raises(MHNetVideoError, match="cannot send the model to OWNER/NAME") as caught:
        push_to_hub(network, "OWNER/NAME")
    assert "\n" not in str(caught.value)


def test_paths_are_no_repositories(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    for path in ("realtime", "runs/new", "other/w.safetensors", "a/b/c", "/a/b", "./a", "a\\b"):
        assert not hub.is_repository(path), path
    assert hub.is_repository("OWNER/NAME") and hub.is_repository("owner/a.b-c_d")
