"""The export: what is written has been run, and bad input is one sentence and no file."""

import json

import pytest
import torch

from mhnet_video.cli.main import main
from mhnet_video.errors import MHNetVideoError
from mhnet_video.model.network import MHNet, NetworkConfig
from mhnet_video.model.weights import load_model, save_weights
from mhnet_video.pipelines import export, onnx_graph
from mhnet_video.pipelines.export import export_model
from mhnet_video.pipelines.onnx_graph import missing_packages

needs_onnx = pytest.mark.skipif(bool(missing_packages()), reason="the extra `export`")
ONE = (1, 0, 0, 0)
NONE = (0, 0, 0, 0)


@pytest.fixture
def weights(tmp_path):
    """The smallest aligned network of three frames."""
    torch.manual_seed(0)
    sizes = {"encoder_blocks": ONE, "decoder_blocks": NONE, "group_blocks": NONE}
    network = MHNet(NetworkConfig(width=4, heads=4, frames=3, patch=2, align=True, **sizes))
    for parameter in network.parameters():
        parameter.data.normal_(0, 0.1)
    path = tmp_path / "w.safetensors"
    return save_weights(network.eval(), path, description="d", training={})


@pytest.mark.slow
@pytest.mark.timeout(1200)
@needs_onnx
def test_an_aligned_graph_gives_what_pytorch_gives(weights, tmp_path, capsys):
    import onnxruntime

    out = tmp_path / "out.onnx"
    # no multiple of the network's, so that the padding is inside
    assert main(["export", str(weights), str(out), "--size", "70x66"]) == 0
    assert "worst error against PyTorch" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    assert [each.shape for each in session.get_inputs()] == [[1, 9, 66, 70]]
    assert [each.shape for each in session.get_outputs()] == [[1, 3, 66, 70]] * 2
    about = session.get_modelmeta().custom_metadata_map
    # neither a folder of this machine, nor a licence of weights that are not ours
    assert {key: about[key] for key in sorted(about) if key != "config"} == {
        "model": "w.safetensors",
        "task": "derain",
    }


def test_a_model_that_ships_has_its_licence(weights):
    network = load_model(weights)
    about = {"model": "realtime", "license": "Apache-2.0", "task": "derain"}
    assert export._described("realtime", network) == about
    assert export._described(weights, network) == {"model": "w.safetensors", "task": "derain"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@needs_onnx
def test_a_dynamic_graph_takes_any_size(weights, tmp_path, capsys):
    out = tmp_path / "out.onnx"
    words = ["export", str(weights), str(out), "--size", "dynamic", "--no-align", "--json"]
    assert main(words) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["size"] is None and said["expects_aligned"] and not said["aligns"]
    assert said["worst_error"] < 1e-5
    assert said["size_bytes"] == out.stat().st_size


def test_elimination_solves_what_pytorch_solves():
    root = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    left = root @ root.transpose(-2, -1) + torch.eye(6)
    right = torch.randn(2, 3, 6, 1, dtype=torch.float64)
    found, _ = onnx_graph._solved(left, right)
    torch.testing.assert_close(found, torch.linalg.solve(left, right))


@pytest.mark.parametrize(
    "words, said",
    [
        (["--size", "8x640"], "cannot have frames of 8x640: the sides are at least 64 pixels"),
        (["--size", "9000x9000"], "cannot have frames of 9000x9000"),
        (["--size", "dynamic"], "the steps of the alignment depend on the size"),
    ],
)
def test_a_size_that_no_graph_has_is_refused(weights, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.setattr(export, "missing_packages", lambda: "")
    out = tmp_path / "out.onnx"
    assert main(["export", str(weights), str(out), *words]) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not out.exists()


def test_what_cannot_be_written_is_said_before_the_work(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "missing_packages", lambda: "")
    monkeypatch.setattr(export, "to_onnx", lambda *_, **__: pytest.fail("work was done"))
    out = tmp_path / "out.onnx"
    with pytest.raises(MHNetVideoError, match=r"must end in \.onnx"):
        export_model(weights, tmp_path / "out.bin")
    with pytest.raises(MHNetVideoError, match="there is no model or weights file"):
        export_model("none", out)
    out.write_bytes(b"mine")
    with pytest.raises(MHNetVideoError, match="exists already"):
        export_model(weights, out)
    monkeypatch.setattr(export, "missing_packages", lambda: "onnx")
    with pytest.raises(MHNetVideoError, match="not installed: onnx;"):
        export_model(weights, tmp_path / "new.onnx")
    assert out.read_bytes() == b"mine"


def test_a_graph_with_another_result_is_not_written(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "missing_packages", lambda: "")
    monkeypatch.setattr(export, "to_onnx", lambda *_, **__: b"graph")
    for error in (0.01, float("nan")):
        monkeypatch.setattr(export, "worst_error", lambda *_, error=error, **__: error)
        with pytest.raises(MHNetVideoError, match="differs from PyTorch's by"):
            export_model(weights, tmp_path / "out.onnx")
    assert not list(tmp_path.glob("out*"))
    monkeypatch.setattr(export, "worst_error", lambda *_, **__: 1e-6)
    export_model(weights, tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == b"graph"


def test_a_full_disk_leaves_nothing(weights, tmp_path, monkeypatch):
    def full(file, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "missing_packages", lambda: "")
    monkeypatch.setattr(export, "to_onnx", lambda *_, **__: b"graph")
    monkeypatch.setattr(export, "worst_error", lambda *_, **__: 0.0)
    monkeypatch.setattr(export.OutputFile, "write", full)
    with pytest.raises(MHNetVideoError, match="the disk is full"):
        export_model(weights, tmp_path / "out.onnx")
    assert not list(tmp_path.glob("out*"))
