"""What can be typed behind `mhnet-video batch`. Imports nothing heavy."""

import argparse
import re

from mhnet_video.cli.arguments import (
    add_companions,
    add_encoding,
    add_keep,
    add_model_arguments,
    add_reporting,
    add_strength,
    take_defaults,
)
from mhnet_video.config import DRY_CLIPS, BatchConfig, RestoreConfig

_EPILOG = """\
Outputs have the names and the tree of the sources. What is done is kept in FOLDER/.mhnet-video:
run the same command again, and it goes on with what is missing, changed or failed. The exit status
is 0 if all files are done, 1 if one is not, 2 for wrong usage, and 130 after an interrupt.
"""


def batch_parser() -> argparse.ArgumentParser:
    """The arguments of `mhnet-video batch`."""
    parser = argparse.ArgumentParser(
        prog="mhnet-video batch",
        description="Restore many files: those of folders, each by itself or joined to trips.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "sources",
        metavar="SOURCE",
        nargs="+",
        help="folder, with all below it, file, or pattern in quotes, such as 'card/**/*F.MP4'",
    )
    add("out_folder", metavar="FOLDER", help="folder for the outputs, which is created")
    add("--join", action="store_true", help="make one output of files that follow one another")
    add("--watch", action="store_true", help="go on with files that appear in the folders later")
    add(
        "--dry",
        choices=DRY_CLIPS,
        help="what becomes of clips without rain, by a few windows of each (default: restore)",
    )
    add(
        "--jobs",
        type=int,
        metavar="N",
        help="files to restore at the same time (default: one for each GPU or core)",
    )
    add(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="take only the I-th of N parts of the files, for several machines",
    )
    add(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="do it on a Ray cluster: the one of --ray=HOST:PORT, or the one that runs here",
    )
    add("--report", metavar="FILE", help="also write a row for each file, .jsonl or .parquet")
    add_model_arguments(parser)
    add_strength(parser)
    add_keep(parser)
    add_encoding(parser)
    add_companions(parser)
    add(
        "--overwrite",
        action="store_true",
        help="replace outputs that no batch has made, and a file in place of the report",
    )
    add_reporting(parser, "show how far it is (default: unless --quiet)")
    take_defaults(parser, RestoreConfig)
    take_defaults(parser, BatchConfig)
    return parser


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"a shard is I/N, such as 2/8, not {text}")
    return int(match[1]), int(match[2])
