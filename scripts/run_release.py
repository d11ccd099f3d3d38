"""Runs a model on a release of a runtime, for scripts/known-bugs and scripts/bisect-release: a process of its own, because
a release with a bug may take its process with it.

    run_release.py [--level off] [--before INPUTS.npz] RUNTIME MODEL INPUTS.npz OUTPUTS.npz NAME...

The names are those of the model's outputs, in order. With --before there is a run before, on other inputs.

The runtime is the one that PYTHONPATH leads to, and rten the program `rten_release` in PATH. The exit status is 3, with
the runtime's words on stderr, when it refuses, and 4 when it crashes without taking this process with it.
"""

import argparse
import subprocess
import sys

import numpy

REFUSED, CRASHED = 3, 4


def onnxruntime():
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    def run(model, runs, optimised):
        levels = onnxruntime.GraphOptimizationLevel
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimised else levels.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return [session.run(None, inputs) for inputs in runs][-1]

    errors = [value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)]
    return run, tuple(errors)


def openvino():
    import openvino

    if not hasattr(openvino, "Core"):  # before 2023.1
        import openvino.runtime as openvino

    def run(model, runs, _):
        core = openvino.Core()
        # Else a processor that has bf16 would compute in it.
        compiled = core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        for inputs in runs:
            results = compiled(inputs)
        return [results[output] for output in compiled.outputs]

    return run, (RuntimeError,)


def tract():
    import tract
    from tract.bindings import TractError

    def run(model, runs, optimised):
        onnx = tract.onnx()
        old = not hasattr(onnx, "load")  # before 0.23
        read = onnx.model_for_path(model) if old else onnx.load(model)
        names = [read.input_name(index) for index in range(read.input_count())]
        if not old:
            made = read.into_model()  # newer wheels have one level
        else:
            made = read.into_optimized() if optimised else read.into_typed()
        facts = [str(made.output_fact(index)) for index in range(made.output_count())]
        if old and not all(fact.endswith("F32") for fact in facts):
            sys.exit("the wheels of tract before 0.23 give every output as f32: take a newer one")
        runnable = made.into_runnable()
        for inputs in runs:
            values = runnable.run([inputs[name] for name in names])
        return [value.to_numpy() for value in values]

    return run, (TractError,)


def rten():
    class Refused(Exception):
        pass

    def run(model, runs, optimised):
        import onnx

        lines = "\n".join("".join(map(line, inputs.values())) for inputs in runs)
        command = ["rten_release", model, "on" if optimised else "off"]
        done = subprocess.run(command, input=lines, capture_output=True, text=True)
        if done.returncode == REFUSED:
            raise Refused(done.stderr)
        if done.returncode:
            # A panic has told where it is, then why, then how to learn more.
            told = [line for line in done.stderr.splitlines() if line and not line.startswith("note:")]
            print(told[-1] if told else f"status {done.returncode}", file=sys.stderr)
            sys.exit(CRASHED)
        declared = [output.type.tensor_type.elem_type for output in onnx.load(model).graph.output]
        return [array(line.split(), dtype) for line, dtype in zip(done.stdout.splitlines(), declared, strict=True)]

    dtypes = {"f32": numpy.float32, "i32": numpy.int32, "i8": numpy.int8, "u8": numpy.uint8}

    def line(array):  # rten has i32 for i64 and bool
        name = next((name for name, dtype in dtypes.items() if array.dtype == dtype), "i32")
        return f"{name} {','.join(map(str, array.shape)) or '-'} {' '.join(map(str, array.astype(dtypes[name]).ravel().tolist()))}\n"

    def array(words, declared):
        shape = [] if words[1] == "-" else [int(size) for size in words[1].split(",")]
        wide = {7: numpy.int64, 9: numpy.bool_}.get(declared) if words[0] == "i32" else None  # of onnx.TensorProto
        return numpy.array(words[2:]).astype(dtypes[words[0]]).astype(wide or dtypes[words[0]]).reshape(shape)

    return run, (Refused,)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--level", choices=["on", "off"], default="on")
    parser.add_argument("--before")
    for name in ("runtime", "model", "inputs", "outputs"):
        parser.add_argument(name)
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    table = {"onnxruntime": onnxruntime, "openvino": openvino, "tract": tract, "rten": rten}
    run, errors = table[arguments.runtime]()
    runs = [dict(numpy.load(path)) for path in (arguments.before, arguments.inputs) if path]
    try:
        values = run(arguments.model, runs, arguments.level == "on")
    except errors as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(REFUSED)
    named = zip(arguments.names, values, strict=True)
    numpy.savez(arguments.outputs, **{name: numpy.array(value, order="C") for name, value in named})


if __name__ == "__main__":
    main()
