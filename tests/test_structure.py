"""The shape of the repository: imports point one way, and every folder ships."""

import ast
import sys
import tomllib
from pathlib import Path

import processes
import pytest

import mhnet_video
from mhnet_video import errors

ROOT = Path(__file__).parent.parent
FOLDERS = {
    "mhnet_video": "mhnet_video",
    "kernels": "mhnet_video.kernels",
    "pipelines": "mhnet_video.pipelines",
}

# A module may import those of lower layers and its own; never a higher one.
LAYERS = [
    ["errors", "locator", "config", "frame", "stage", "relay", "screen", "memory", "unveil"],
    ["kernels"],
    [
        "align",
        "frame_window",
        "scene_changes",
        "temporal_window",
        "rgb_frames",
        "network",
        "cost",
        "rain",
        "metrics",
        "boxes",
        "inventory",
        "units",
        "walk",
        "jpeg",
        "pixels",
        "yuv",
        "color",
    ],
    [
        "weights",
        "growth",
        "resize",
        "self_ensemble",
        "tiling",
        "dataset",
        "encoder",
        "sink",
        "timeline",
        "containers",
        "source",
        "decoding",
        "hardware",
        "notes",
        "address",
        "visitor",
    ],
    [
        "packing",
        "program",
        "llvm_arena",
        "llvm_layers",
        "llvm_inputs",
        "llvm_graph",
        "motion_graph",
        "motion",
        "engine",
        "map_weights",
        "tuning",
        "cuda_engine",
        "traffic",
        "engines",
    ],
    ["cuda_frames", "window_network", "executors", "temporal_filter", "frame_chain"],
    ["cuda_stream"],
    ["reader", "restorer", "tracks", "streams", "plan", "writer", "folder", "contact"],
    ["camera", "view", "pace"],
    ["live", "recorder"],
    ["window", "page", "server", "webrtc"],
    ["pipelines"],
    ["terminal", "arguments", "cli", "__main__"],
]


def modules():
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).glob("*.py")):
            if path.stem != "__init__" or folder != "mhnet_video":
                yield pytest.param(
                    path, f"{package}.{path.stem}".removesuffix(".__init__"), id=path.name
                )


def layer(module):
    name = module.split(".")[1]
    for index, names in enumerate(LAYERS):
        if name in names:
            return index
    raise AssertionError(f"{module} is in no layer: add it to LAYERS")


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "mhnet_video":
            yield from (f"mhnet_video.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize(("path", "module"), list(modules()))
def test_imports_point_down(path, module):
    for name in imported(path):
        if name.startswith("mhnet_video.") and name != "mhnet_video.__version__":
            assert layer(name) <= layer(module), f"{module} imports {name}"


def test_every_package_ships():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        ".".join([package, *path.parent.relative_to(ROOT / folder).parts])
        for folder, package in FOLDERS.items()
        for path in (ROOT / folder).rglob("__init__.py")
        if not any(parent.is_symlink() for parent in path.parents)
    }
    assert found == set(listed)


def test_every_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    pinned = {
        line.partition("==")[0]
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    assert {requirement.partition(">")[0] for requirement in wanted} <= pinned


def test_folders_are_not_top_level_packages():
    for name in ("kernels", "pipelines"):
        module = sys.modules.get(name)
        assert module is None or ROOT not in Path(module.__file__ or "/").parents


def test_public_names_load():
    for name in mhnet_video.__all__:
        assert getattr(mhnet_video, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        getattr(mhnet_video, "no_such_name")  # noqa: B009


def test_every_error_is_one_of_ours():
    ours = [value for value in vars(errors).values() if isinstance(value, type)]
    assert all(issubclass(error, errors.MHNetVideoError) for error in ours)


def test_the_main_job_needs_no_opencv():
    """Its wheel needs libGL and libxcb, which a machine without a screen lacks."""
    modules = ["restorer", "contact", "pipelines.restore", "pipelines.evaluate", "pipelines.info"]
    imports = "".join(f"import mhnet_video.{module}; " for module in modules)
    code = f"import sys; sys.modules['cv2'] = None; {imports}"
    processes.run([sys.executable, "-c", code], check=True)
