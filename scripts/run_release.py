"""Runs a model on a release of a runtime, for scripts/known-bugs: a process of its own, because a release with a bug
may take its process with it.

    run_release.py RUNTIME MODEL INPUTS.npz OUTPUTS.npz NAME...   (the names of the model's outputs, in order)

The runtime is the one that PYTHONPATH leads to, and rten the program `rten_release` in PATH. The exit status is 3, with
the runtime's words on stderr, when it refuses, and 4 when it crashes without taking this process with it.
"""

import subprocess
import sys

import numpy

REFUSED, CRASHED = 3, 4


def onnxruntime():
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    def run(model, inputs):
        return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, inputs)

    errors = [value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)]
    return run, tuple(errors)


def openvino():
    import openvino

    if not hasattr(openvino, "Core"):  # before 2023.1
        import openvino.runtime as openvino

    def run(model, inputs):
        core = openvino.Core()
        # Else a processor that has bf16 would compute in it.
        compiled = core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        results = compiled(inputs)
        return [results[output] for output in compiled.outputs]

    return run, (RuntimeError,)


def tract():
    import tract
    from tract.bindings import TractError

    def run(model, inputs):
        onnx = tract.onnx()
        old = not hasattr(onnx, "load")  # before 0.23
        read = onnx.model_for_path(model) if old else onnx.load(model)
        names = [read.input_name(index) for index in range(read.input_count())]
        made = read.into_optimized() if old else read.into_model()
        facts = [str(made.output_fact(index)) for index in range(made.output_count())]
        if old and not all(fact.endswith("F32") for fact in facts):
            sys.exit("the wheels of tract before 0.23 give every output as f32: take a newer one")
        return [value.to_numpy() for value in made.into_runnable().run([inputs[name] for name in names])]

    return run, (TractError,)


def rten():
    class Refused(Exception):
        pass

    def run(model, inputs):
        lines = "".join(map(line, inputs.values()))
        done = subprocess.run(["rten_release", model], input=lines, capture_output=True, text=True)
        if done.returncode == REFUSED:
            raise Refused(done.stderr)
        if done.returncode:
            # A panic has told where it is, then why, then how to learn more.
            told = [line for line in done.stderr.splitlines() if line and not line.startswith("note:")]
            print(told[-1] if told else f"status {done.returncode}", file=sys.stderr)
            sys.exit(CRASHED)
        return [array(line.split()) for line in done.stdout.splitlines()]

    def line(array):  # rten has i32 for every integer
        dtype = "f32" if array.dtype == numpy.float32 else "i32"
        return f"{dtype} {','.join(map(str, array.shape)) or '-'} {' '.join(map(str, array.ravel().tolist()))}\n"

    def array(words):
        shape = [] if words[1] == "-" else [int(size) for size in words[1].split(",")]
        return numpy.array(words[2:], dtype=numpy.float32).reshape(shape)

    return run, (Refused,)


def main() -> None:
    runtime, model, inputs, outputs, *names = sys.argv[1:]
    run, errors = {"onnxruntime": onnxruntime, "openvino": openvino, "tract": tract, "rten": rten}[runtime]()
    try:
        values = run(model, dict(numpy.load(inputs)))
    except errors as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(REFUSED)
    numpy.savez(outputs, **{name: numpy.array(value, order="C") for name, value in zip(names, values, strict=True)})


if __name__ == "__main__":
    main()
