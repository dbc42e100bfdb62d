"""The shape of the repository: packages stand on floors, imports point down, all of it ships."""

import ast
import graphlib
import re
import shutil
import sys
import tarfile
import tomllib
import zipfile
from collections import defaultdict
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

# A package imports packages of lower floors, never one beside it or above it.
FLOORS = [
    ["ground"],
    ["kernels", "web"],
    ["media", "model"],
    ["engines", "training"],
    ["restoration"],
    ["live", "batch"],
    ["app"],
    ["pipelines"],
    ["cli"],
]
GROUND = {
    "cache_folder",
    "closing",
    "color_spaces",
    "config",
    "errors",
    "frame",
    "locator",
    "memory",
    "system",
    "tasks",
}
"""The modules that lie in no package; those of `ENTRANCES` do, too, and may see everything."""
ENTRANCES = {"mhnet_video", "mhnet_video.__main__"}


def files():
    """The modules by their names; a package is its `__init__`."""
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            if any(parent.is_symlink() for parent in path.parents):
                continue  # the links to the folders beside
            names = [package, *path.relative_to(ROOT / folder).with_suffix("").parts]
            yield ".".join(names).removesuffix(".__init__"), path


def imported(path):
    """What a module imports of this project, in functions and for type checkers, too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.partition(".")[0] == "mhnet_video" and name != "mhnet_video.__version__":
                yield name if name in MODULES else name.rpartition(".")[0]


MODULES = dict(files())
IMPORTS = {module: set(imported(path)) for module, path in MODULES.items()}
PACKAGES = [module for module, path in MODULES.items() if path.name == "__init__.py"]


def floor(module):
    rest = module.partition(".")[2]
    package = "ground" if rest in GROUND else rest.partition(".")[0]
    for index, names in enumerate(FLOORS):
        if package in names:
            return index, package
    raise AssertionError(f"{module} stands on no floor: move it into a package of FLOORS")


def member(module, package):
    """The part of a package that a module is, or is in; None where it is elsewhere."""
    rest = module.removeprefix(f"{package}.")
    return None if rest == module else rest.partition(".")[0]


@pytest.mark.parametrize("module", sorted(MODULES.keys() - ENTRANCES))
def test_imports_point_down(module):
    own, package = floor(module)
    for name in IMPORTS[module]:
        other, theirs = floor(name)
        assert other < own or theirs == package, f"{module} imports {name}"


@pytest.mark.parametrize("package", PACKAGES)
def test_the_parts_of_a_package_do_not_import_each_other_in_a_circle(package):
    graph = {}
    for module in MODULES.keys() - ENTRANCES:
        parts = {member(name, package) for name in IMPORTS[module]}
        graph.setdefault(member(module, package), set()).update(parts)
    graph.pop(None, None)
    for part, others in graph.items():
        others -= {None, part}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"in {package}: {' <- '.join(error.args[1])}")


def test_only_the_ground_is_in_no_package():
    flat = {module.partition(".")[2] for module in MODULES if module.count(".") < 2}
    packages = {package.partition(".")[2] for package in PACKAGES}
    assert flat - packages == {*GROUND, "__main__"}


def test_the_tests_are_in_folders_of_the_same_names():
    paths = sorted((ROOT / "tests").glob("*/**/test_*.py"))
    for path in paths:
        folder = path.parent.relative_to(ROOT / "tests")
        assert any((root / folder).is_dir() for root in (ROOT, ROOT / "mhnet_video")), path
    # they import from one another by these names
    assert len({path.name for path in paths}) == len(paths)


def test_no_two_classes_have_one_name():
    """Nor a private one that of a public one."""
    places = defaultdict(list)
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name.lstrip("_")].append(module)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_every_package_is_listed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(PACKAGES)


@pytest.mark.slow
def test_every_module_ships(tmp_path):
    """In the wheel, which is built of the sdist."""
    pytest.importorskip("build")
    left = shutil.ignore_patterns(
        ".*", "build", "dist", "demo", "runs", "*.egg-info", "__pycache__"
    )
    copy = shutil.copytree(ROOT, tmp_path / "copy", symlinks=True, ignore=left)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path]
    done = processes.run([*command, copy], seconds=200)
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        found = set(wheel.namelist())
    wanted = {module.replace(".", "/") for module in MODULES}
    assert {name.removesuffix(".py").removesuffix("/__init__") for name in found} >= wanted
    top = {name.partition("/")[0] for name in found}
    assert {name for name in top if not name.endswith(".dist-info")} == {"mhnet_video"}
    # what is no code
    for path in (ROOT / "mhnet_video").rglob("*"):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            assert str(path.relative_to(ROOT)) in found
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("*.py")} <= names


def test_every_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = sum(project["optional-dependencies"].values(), project["dependencies"])
    wanted = [each for each in wanted if not each.startswith(project["name"])]  # its own extras
    pinned = {
        line.partition("==")[0]
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    assert {requirement.partition(">")[0] for requirement in wanted} <= pinned


def test_the_hook_before_a_commit_runs_the_ruff_of_the_tests():
    pinned = re.search(r"^ruff==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert f"rev: v{pinned[1]}\n" in hooks


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


def test_files_are_replaced_in_one_way():
    """By `replace_file`, which Windows needs, and no rename of Python's own."""
    found = []
    for _, path in files():
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            of_os = isinstance(node.func.value, ast.Name) and node.func.value.id == "os"
            # a string's has two arguments, a time's has keywords
            is_rename = len(node.args) == (2 if of_os else 1) and not node.keywords
            if node.func.attr in ("replace", "rename") and is_rename:
                found.append(path.name)
    assert found == ["system.py"], found


def test_nothing_waits_for_a_whole_gpu():
    """Another thread may be recording a graph there, which that would end."""
    found = [name for name, path in files() if "cuda.synchronize(" in path.read_text()]
    # a benchmark has the GPU for itself
    assert found == ["mhnet_video.pipelines.bench_kernels"]
    # these wait too, and take the lock that a recording holds
    found = [name for name, path in files() if "empty_cache(" in path.read_text()]
    assert found == ["mhnet_video.memory"]
    found = [name for name, path in files() if "cuda.graph(" in path.read_text()]
    assert found == ["mhnet_video.engines.triton.cuda_graph"]


def test_the_main_job_needs_no_opencv():
    """Its wheel needs libGL and libxcb, which a machine without a screen lacks."""
    needs = ("mhnet_video.training", "mhnet_video.pipelines.train", "mhnet_video.__main__")
    needs += ("mhnet_video.pipelines.measure",)  # of `bench`, which says so
    names = [name for name, _ in files() if not name.startswith(needs)]
    code = f"""
import sys
from importlib import import_module
sys.modules["cv2"] = None
for name in {names}:
    try:
        import_module(name)
    except ImportError as error:
        if "cv2" in str(error):  # others want extras that may be missing
            raise
"""
    processes.run([sys.executable, "-c", code], check=True)
