"""What the README and the documentation show works as shown.

Every block of Python and of shell commands runs. One behind a comment `<!-- not run: WHY -->` does
not: there the commands are only held against the parsers of their arguments.
"""

import itertools
import re
import shlex
import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
from clips import Clip, Video, every

import mhnet_video
from mhnet_video.cli.arguments import (
    app_parser,
    bench_parser,
    evaluate_parser,
    export_parser,
    info_parser,
    live_parser,
    restore_parser,
    train_parser,
)
from mhnet_video.cli.batch_arguments import batch_parser
from mhnet_video.cli.main import main
from mhnet_video.model.weights import list_models

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
CARDS = sorted((ROOT / "mhnet_video/models").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *DOCS, *CARDS]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BLOCK = re.compile(
    r"(?P<mark><!-- not run: .+? -->\n)?^```(?P<kind>python|sh)\n(?P<code>.*?)^```",
    re.DOTALL | re.MULTILINE,
)
PARSERS = {
    "app": app_parser,
    "batch": batch_parser,
    "bench": bench_parser,
    "evaluate": evaluate_parser,
    "export": export_parser,
    "live": live_parser,
    "train": train_parser,
    "info": info_parser,
}


@dataclass(frozen=True)
class Block:
    """Code as a page shows it."""

    page: Path
    number: int
    """Counts the blocks of the page."""
    kind: str
    """`python` or `sh`."""
    code: str
    is_run: bool

    def __str__(self):
        return f"{self.page.stem}-{self.number}"

    @property
    def commands(self):
        """Without comments; those of a pipe one by one."""
        for line in self.code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            for is_bar, command in itertools.groupby(words, lambda word: word in ("|", "&&")):
                if not is_bar:
                    yield tuple(command)


def blocks_of(page):
    for number, found in enumerate(BLOCK.finditer(page.read_text())):
        yield Block(page, number, found["kind"], found["code"], not found["mark"])


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
EXAMPLES = [block for block in BLOCKS if block.kind == "python"]
SHELL = [(block, command) for block in BLOCKS if block.kind == "sh" for command in block.commands]
RUN = dict.fromkeys(command for block, command in SHELL if block.is_run)
NOT_RUN = dict.fromkeys(command for block, command in SHELL if not block.is_run)


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_python_examples_run(example, tmp_path, monkeypatch):
    assert example.is_run
    Clip(video=(Video(times=every(40, 4)),), name="in.mp4").make(tmp_path)
    monkeypatch.chdir(tmp_path)
    exec(compile(example.code, str(example), "exec"), {})


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """What the commands read, tiny and under the names that the pages use."""
    folder = tmp_path_factory.mktemp("inputs")
    Clip(video=(Video(times=every(5000, 24)),), name="in.mp4").make(folder)
    for name in ("rainy", "clean"):
        Clip(video=(Video(times=every(40, 10)),), name=f"{name}.mp4").make(folder)
    pictures = np.random.default_rng(0).integers(0, 255, (2, 48, 64, 3), np.uint8)
    for number, picture in enumerate(pictures):
        for name in ("frames", "rainy", "clean", "masks"):
            (folder / name).mkdir(exist_ok=True)
            save(folder / name / f"{number}.png", picture)
    save(folder / "photo.jpg", pictures[0])
    return folder


def save(path, picture):
    with av.open(path, "w") as file:
        codec, kind = ("png", "rgb24") if path.suffix == ".png" else ("mjpeg", "yuvj420p")
        stream = file.add_stream(codec, width=64, height=48, pix_fmt=kind)
        file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())


@pytest.mark.slow
@pytest.mark.parametrize("command", RUN, ids=" ".join)
def test_commands_run(command, inputs, tmp_path, monkeypatch):
    program, *words = command
    assert program == "mhnet-video", "mark the block as not run"
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.rglob("*"))

    assert main(words) == 0

    made = {path.relative_to(tmp_path).as_posix() for path in set(tmp_path.rglob("*")) - before}
    named = {word.rstrip("/") for word in words if re.search(r"^(out|dry|sheet)\b", word)}
    assert named <= made


@pytest.mark.parametrize("command", NOT_RUN, ids=" ".join)
def test_commands_that_are_not_run_are_understood(command):
    program, *words = command
    if program == "torchrun":
        program, words = "mhnet-video", words[words.index("mhnet_video") + 1 :]
    if program == "mhnet-video":
        parser = PARSERS.get(words[0], restore_parser)
        parser().parse_args(words[1:] if words[0] in PARSERS else words)
    elif program == "make":
        targets = [word for word in words if "=" not in word]
        makefile = (ROOT / "Makefile").read_text()
        assert targets
        assert all(re.search(rf"^{target}: ", makefile, re.MULTILINE) for target in targets)
    elif program == "pip":
        for extra in re.findall(r"\.\[([\w,]+)\]", " ".join(words)):
            assert set(extra.split(",")) <= PROJECT["optional-dependencies"].keys()
    elif program == "python" and words[0].endswith(".py"):
        assert (ROOT / words[0]).is_file()
    else:
        assert shutil.which(program) or program in (
            "docker",
            "ffplay",
            "git",
            "pre-commit",
            "sbatch",
            "ray",
        ), program


def test_there_is_something_to_test():
    assert len(EXAMPLES) >= 6
    assert len(RUN) >= 12
    assert len(NOT_RUN) >= 12


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page):
    text = page.read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in link]
    for link in links:
        assert (page.parent / link).is_file(), link
    modules = re.findall(r"`((?:[\w-]+/)*[a-z_0-9]+\.py)`", text)
    places = [path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py")]
    for module in modules:
        assert any(f"/{place}".endswith(f"/{module}") for place in places), module


def test_modules_that_the_architecture_names_exist():
    package = None
    text = (ROOT / "docs/architecture.md").read_text().partition("## The way of a frame")[0]
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ")][2:]
    for _, _, name, contents, _ in rows:
        name = name.strip(" `/")
        package = package if not name else ROOT / "mhnet_video" / name.replace("the ground", "")
        for module in re.findall(r"`(\w+)`", contents):
            path = package / module
            assert path.is_dir() or path.with_suffix(".py").is_file(), path


def test_readme_is_short():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 140
    assert (ROOT / "docs/before-after.jpg").stat().st_size <= 200_000


def test_changelog_has_this_version():
    assert PROJECT["license"] == "Apache-2.0"
    assert f"## {mhnet_video.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_citation_has_this_version():
    assert f"\nversion: {mhnet_video.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_every_model_has_a_licence():
    rows = (ROOT / "docs/models.md").read_text().splitlines()
    for model in list_models():
        row = next((row for row in rows if row.startswith(f"| `{model.name}` |")), "")
        assert f"| `{model.task}` | Apache-2.0 |" in row, model.name


def test_the_bug_template_asks_for_what_info_says():
    form = (ROOT / ".github/ISSUE_TEMPLATE/bug.yml").read_text()
    command = re.search(r"`mhnet-video (info --json)`", form)
    assert command and info_parser().parse_args(command[1].split()[1:]).json


@pytest.mark.parametrize("card", [*CARDS, ROOT / "docs/training.md"], ids=lambda card: card.name)
def test_cards_have_whole_tables_and_no_blanks_to_fill(card):
    lines = card.read_text().splitlines()
    assert not [line for line in lines if re.search(r"\{[a-z]\w*\}|TODO|XXX", line)]
    rows = [line for line in lines if line.startswith("|")]
    for index, line in enumerate(lines):
        if line.startswith("| ---"):  # as many cells in each row as its head has
            table = itertools.takewhile(lambda row: row.startswith("|"), lines[index - 1 :])
            assert len({row.count("|") for row in table}) == 1, line
            rows.remove(line)
    assert rows
