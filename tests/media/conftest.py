"""What the tests of files share."""

import json
from pathlib import Path

import pytest
from clips import Audio, Clip
from damage import Outcome, Restore
from standin import StandIn

from mhnet_video.cli.main import main


@pytest.fixture
def restore(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Restore:
    """Run the command line in this process, with a restorer that changes nothing."""
    monkeypatch.setattr(
        "mhnet_video.restoration.restorer.Restorer", lambda *_, **__: StandIn(), raising=False
    )

    def run(source: str | Path, output: str | Path, *options: str) -> Outcome:
        capsys.readouterr()
        try:
            status = main(["--json", *options, "--", str(source), str(output)])
        except SystemExit as end:
            status = int(end.code or 0)
        told = capsys.readouterr()
        report = json.loads(told.out) if told.out else None
        return Outcome(status, told.err, report, Path(output))

    return run


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return Clip(audio=(Audio(),)).make(tmp_path)
