"""The programs that scripts run: those that are named, or else those of this checkout."""

import ctypes
import os
import signal
import subprocess
from pathlib import Path

import onnx_package
from onnx_package import ROOT, Problem

FUZZER = ROOT / "target/fuzz-fast/x86_64-unknown-linux-gnu/release/graph_diff"
PARENT_DIES = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>


def add_fuzzer(parser) -> None:
    parser.add_argument("--fuzzer", type=Path, help="a fuzz target that is built already")


def add_options(parser) -> None:
    add_fuzzer(parser)
    parser.add_argument("--graphsmith", type=Path, help="a graphsmith that is built already")


def fuzz_target(named: Path | None) -> Path:
    """The fuzz target as scripts/fuzz builds it, where none is named."""
    if named is None and subprocess.run([str(ROOT / "scripts/fuzz"), "--build"], stdin=subprocess.DEVNULL).returncode:
        raise Problem("the fuzz target does not build, for the reason above")
    return program(named or FUZZER)


def graphsmith(named: Path | None) -> Path:
    cargo = ["cargo", "build", "--quiet", "--release", "--bin", "graphsmith"]
    if named is None and subprocess.run(cargo, cwd=ROOT).returncode:
        raise Problem("graphsmith does not build, for the reason above")
    return program(named or ROOT / (os.environ.get("CARGO_TARGET_DIR") or "target") / "release/graphsmith")


def program(path: Path) -> Path:
    if not os.access(path, os.X_OK) or path.is_dir():
        raise Problem(f"{path} is no program")
    return path.resolve()


def environment(**more: str) -> dict:
    """Of this process, with ONNX Runtime for a fuzz target that is started without cargo."""
    library = onnx_package.NATIVE / "onnxruntime" / "libonnxruntime.so"
    return {"ORT_DYLIB_PATH": str(library), **os.environ, **more}


def start(command: list, log, **more: str) -> subprocess.Popen:
    """A process that ends with this one and says what it has to say to `log`."""
    return subprocess.Popen(
        command, cwd=ROOT, env=environment(**more), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        preexec_fn=die_with_parent, start_new_session=True,
    )  # fmt: skip


def stop(process: subprocess.Popen) -> None:
    """Ends it with those that it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PARENT_DIES, signal.SIGKILL)
