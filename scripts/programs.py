"""The programs that scripts/campaign and scripts/compare-tmin run: those that are named, or else those of this checkout."""

import os
import subprocess
from pathlib import Path

from onnx_package import ROOT, Problem

FUZZER = ROOT / "target/fuzz-fast/x86_64-unknown-linux-gnu/release/graph_diff"


def add_options(parser) -> None:
    parser.add_argument("--fuzzer", type=Path, help="a fuzz target that is built already")
    parser.add_argument("--graphsmith", type=Path, help="a graphsmith that is built already")


def ready(arguments):
    """The paths of the fuzz target and of graphsmith, built where they are not named."""
    for named in filter(None, (arguments.fuzzer, arguments.graphsmith)):
        if not os.access(named, os.X_OK) or named.is_dir():
            raise Problem(f"{named} is no program")
    if arguments.fuzzer is None and subprocess.run([str(ROOT / "scripts/fuzz"), "--build"]).returncode:
        raise Problem("the fuzz target does not build, for the reason above")
    cargo = ["cargo", "build", "--quiet", "--release", "--bin", "graphsmith"]
    if arguments.graphsmith is None and subprocess.run(cargo, cwd=ROOT).returncode:
        raise Problem("graphsmith does not build, for the reason above")
    target = ROOT / (os.environ.get("CARGO_TARGET_DIR") or "target")
    return (arguments.fuzzer or FUZZER).resolve(), (arguments.graphsmith or target / "release/graphsmith").resolve()
