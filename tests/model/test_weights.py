"""Weights on disk: ours, the authors', and files that are neither."""

import pytest
import safetensors
import torch
from safetensors.torch import save_file

import mhnet_video
from mhnet_video.errors import WeightsError
from mhnet_video.model.network import MHNet, NetworkConfig
from mhnet_video.model.weights import list_models, load_model, save_weights

CONFIG = NetworkConfig(width=8, encoder_blocks=(1, 0, 2, 1), group_blocks=(1, 1, 2, 1), heads=4)


@pytest.fixture
def network():
    network = MHNet(CONFIG)
    for parameter in network.parameters():
        parameter.data.normal_(0, 0.1)
    return network.eval()


def published(network):
    """A state dict as the authors save it, their unused tensors included."""
    state = dict(network.state_dict())
    width = network.config.width
    state["intro.weight"] = torch.randn(width, 3, 3, 3)
    state["stage1.ending.weight"] = torch.randn(3, width, 3, 3)
    state["stage1.ending.bias"] = torch.randn(3)
    for number in (2, 3, 4):
        state[f"stage2.conv_dnc{number}.weight"] = torch.randn(width, width, 1, 1)
    return state


def same(a, b):
    x = torch.rand(1, 3 * a.config.frames, 20, 24)
    with torch.inference_mode():
        return torch.allclose(a(x), b(x), rtol=1e-5, atol=1e-6)


def test_ours_come_back_with_their_sizes(network, tmp_path):
    path = save_weights(network, tmp_path / "w.safetensors", description="d", training={"a": 1})
    loaded = load_model(path)
    assert loaded.config == CONFIG and same(loaded, network) and not loaded.training
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w.safetensors"]


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "under state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."], ids=["plain", "module."])
def test_published_checkpoints_load(network, tmp_path, wrapped, prefix):
    state = {prefix + name: value for name, value in published(network).items()}
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, tmp_path / "m.pth")
    loaded = load_model(tmp_path / "m.pth")
    assert loaded.config == CONFIG and same(loaded, network)


def test_shipped_models_load():
    models = list_models()
    assert "realtime" in [model.name for model in models]
    for model in models:
        network = mhnet_video.load_model(model.name)
        assert network.config == model.config
        assert model.description and model.training
        most = 8_000_000 if model.name.endswith("realtime") else 40_000_000
        assert model.size_bytes < most
        x = torch.rand(1, 3 * model.config.pictures, 32, 32)
        with torch.inference_mode():
            assert bool(network(x).isfinite().all())


def files(network, folder):
    """Files that are no weights, by what is wrong with them."""
    good = save_weights(network, folder / "good.safetensors", description="d", training={})
    whole = good.read_bytes()
    torch.save(published(network), folder / "good.pth")
    checkpoint = (folder / "good.pth").read_bytes()
    half = MHNet(NetworkConfig(width=8, encoder_blocks=(1, 0, 2, 1), heads=4)).state_dict()
    del half["stage2.CABG3.1.conv4.bias"]
    contents = {
        "empty": b"",
        "one byte": b"x",
        "eight bytes": bytes(8),
        "text": b"this is no weights file, but a text of some length",
        "half a safetensors file": whole[: len(whole) // 2],
        "header of a safetensors file": whole[:20],
        "half a checkpoint": checkpoint[: len(checkpoint) // 2],
        "picture": b"\x89PNG\r\n\x1a\n" + bytes(200),
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    torch.save({"a": torch.ones(2)}, folder / "another network")
    torch.save(half, folder / "a tensor missing")
    torch.save([1, 2], folder / "a list")
    torch.save(torch.nn.Linear(2, 2), folder / "a whole module")
    other = dict(published(network), **{"concat12.weight": torch.ones(8, 8, 1, 1)})
    torch.save(other, folder / "a wrong shape")
    return [
        *contents,
        "another network",
        "a tensor missing",
        "a list",
        "a whole module",
        "a wrong shape",
    ]


def test_wrong_files_get_one_sentence(network, tmp_path):
    for name in files(network, tmp_path):
        with pytest.raises(WeightsError) as caught:
            load_model(tmp_path / name)
        message = str(caught.value)
        assert str(tmp_path / name) in message, name
        assert "\n" not in message and len(message) < 400, (name, message)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_weights_of_other_types_are_floats_when_they_are_loaded(network, kind, tmp_path):
    path = save_weights(network, tmp_path / "a.safetensors", description="d", training={})
    with safetensors.safe_open(str(path), framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name).to(kind) for name in file.keys()}  # noqa: SIM118
    save_file(tensors, tmp_path / "b.safetensors", metadata=metadata)
    loaded = load_model(tmp_path / "b.safetensors")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


def test_unknown_names_list_the_models():
    with pytest.raises(WeightsError, match=r"the models are: .*realtime"):
        load_model("nonsense")
