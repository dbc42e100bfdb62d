"""The container files, as far as a machine without containers can try them.

No image is built here. What they copy exists and reaches the build, the build runs in a fresh
folder that holds nothing else, and each command is one that the program understands.
"""

import fnmatch
import json
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import processes
import pytest

from mhnet_video.cli.arguments import live_parser, restore_parser

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parent.parent
FILES = [ROOT / "Dockerfile", ROOT / "Dockerfile.cuda"]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
MEDIAMTX = yaml.safe_load((ROOT / "examples/mediamtx.yml").read_text())


def steps(path):
    """The instructions of a file, each with its text on one line."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.M).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def context(folder):
    """What `COPY . .` copies: all that .dockerignore leaves."""
    lines = (ROOT / ".dockerignore").read_text().split()
    assert lines[0] == "*"
    left_out = [Path(line).name for line in lines if line.startswith("**/")]
    for name in (line[1:] for line in lines if line.startswith("!")):
        source = ROOT / name
        assert source.exists(), name
        if source.is_dir():
            ignored = shutil.ignore_patterns(*left_out)
            shutil.copytree(source, folder / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(source, folder / name)


@pytest.mark.slow
def test_the_build_runs_on_what_the_context_holds(tmp_path):
    pytest.importorskip("build")
    for path in FILES:
        assert ("RUN", "python -m build --no-isolation --wheel") in steps(path)
    context(tmp_path)
    command = [sys.executable, "-m", "build", "--no-isolation", "--wheel"]
    done = processes.run(command, cwd=tmp_path, seconds=200)
    assert done.returncode == 0, done.stderr
    wheels = [path.name for path in (tmp_path / "dist").iterdir()]
    assert len(wheels) == 1 and fnmatch.fnmatch(wheels[0], "mhnet_video-*.whl")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_what_is_installed_is_pinned_and_there(path):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = re.search(r"\*\.whl\)\[([\w,]+)\]", path.read_text())
    assert set(extras[1].split(",")) <= project["optional-dependencies"].keys()
    for _, text in (step for step in steps(path) if step[0] == "RUN" and "pip install" in step[1]):
        assert "-c constraints.txt" in text or "-c /tmp/constraints.txt" in text
    assert re.search("^torch==", (ROOT / "constraints.txt").read_text(), re.M)
    copied = [text.split() for kind, text in steps(path) if kind == "COPY"]
    assert copied[1][:3] == ["--from=build", "/src/constraints.txt", "/src/dist/*.whl"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_program_runs_as_a_user(path):
    kinds = [kind for kind, _ in steps(path)]
    assert kinds.index("USER") > max(i for i, kind in enumerate(kinds) if kind == "RUN")
    assert ("ENTRYPOINT", '["mhnet-video"]') in steps(path)
    pattern = r"^#   docker run .*? mhnet-video(?::cuda)? (.*)"
    shown = re.findall(pattern, path.read_text(), re.M)
    assert shown
    for line in shown:
        restore_parser().parse_args(line.split())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
@pytest.mark.parametrize("status, is_healthy", [(200, True), (503, False), (None, False)])
def test_the_health_check_tells(path, status, is_healthy):
    check = next(text for kind, text in steps(path) if kind == "HEALTHCHECK")
    command = json.loads(check[check.index("CMD") + 3 :])

    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        port = server.server_port
        thread = threading.Thread(target=server.serve_forever)
        if status:
            thread.start()
        else:
            server.server_close()
        words = [word.replace(":8080/", f":{port}/") for word in command]
        assert words != command
        done = subprocess.run([sys.executable, *words[1:]], capture_output=True, timeout=60)
        if status:
            server.shutdown()
            thread.join()
    assert (done.returncode == 0) is is_healthy, done.stderr


def test_the_services_meet(tmp_path):
    restore, server = COMPOSE["restore"], COMPOSE["mediamtx"]
    assert restore["build"] == "." and restore["command"][0] == "live"
    options = live_parser().parse_args(restore["command"][1:])
    port = server["ports"][0].split(":")[-1]
    for address, path in ((options.source, "camera"), (options.output, "restored")):
        assert address == f"rtsp://mediamtx:{port}/{path}"
        assert path in MEDIAMTX["paths"]
    page = options.serve.rpartition(":")[2]
    assert restore["ports"] == [f"127.0.0.1:{page}:{page}"]
    assert f"127.0.0.1:{page}/healthz" in FILES[0].read_text()
    mounted = {}
    for volume in server["volumes"]:
        here, there, mode = volume.split(":")
        assert (ROOT / here).is_file() and mode == "ro"
        mounted[there] = here
    assert "/mediamtx.yml" in mounted
    source = re.search(r" -i (\S+) ", MEDIAMTX["paths"]["camera"]["runOnInit"])
    assert source[1] in mounted


def test_only_this_machine_is_reached():
    for service in COMPOSE.values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
