"""What the README shows works as shown."""

import itertools
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from clips import Clip, Video, every

import mhnet_video
from mhnet_video.cli.arguments import (
    bench_parser,
    evaluate_parser,
    info_parser,
    live_parser,
    restore_parser,
    train_parser,
)

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [
    command.strip()
    for line in re.findall(r"^(?:.*\| )?mhnet-video .*$", TEXT, re.MULTILINE)
    for command in line.partition("#")[0].split("|")
    if command.strip().startswith("mhnet-video ")
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda code: code.splitlines()[-1][:30])
def test_python_examples_run(example, tmp_path, monkeypatch):
    clip = Clip(video=(Video(times=every(40, 4)),), name="in.mp4").make(tmp_path)
    assert clip.name == "in.mp4"
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command):
    words = shlex.split(command)[1:]
    parsers = {
        "bench": bench_parser,
        "evaluate": evaluate_parser,
        "live": live_parser,
        "train": train_parser,
        "info": info_parser,
    }
    if words[0] in parsers:
        parsers[words[0]]().parse_args(words[1:])
    else:
        restore_parser().parse_args(words)


def test_there_is_something_to_test():
    assert len(EXAMPLES) >= 3
    assert len(COMMANDS) >= 8


def test_changelog_has_this_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "Apache-2.0"
    assert f"## {mhnet_video.__version__}" in (ROOT / "CHANGELOG.md").read_text()


CARDS = [*sorted((ROOT / "mhnet_video/models").glob("*.md")), ROOT / "docs/training.md"]


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
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
