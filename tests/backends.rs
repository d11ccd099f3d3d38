//! Every backend at every level on small models, and what they say to models that they cannot take.

use graphsmith::backend::{self, Backend, Failure, Level};
use graphsmith::dtype::DType;
use graphsmith::onnx::proto::{
    AttributeProto, AttributeType, Dimension, DimensionValue, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use graphsmith::tensor::{Element, TensorData};
use half::f16;
use prost::Message;
use std::process::Command;
use std::time::Instant;

fn value(name: &str, dtype: DType, shape: &[usize]) -> ValueInfoProto {
    let size = |&size: &usize| Dimension { value: Some(DimensionValue::Size(size as i64)), ..Default::default() };
    let shape = Some(TensorShapeProto { dim: shape.iter().map(size).collect() });
    let tensor_type = Some(TensorTypeProto { elem_type: dtype.onnx_code(), shape });
    let r#type = Some(TypeProto { tensor_type, ..Default::default() });
    ValueInfoProto { name: name.into(), r#type, ..Default::default() }
}

fn initializer(name: &str, tensor: TensorData) -> TensorProto {
    TensorProto {
        name: name.into(),
        dims: tensor.shape.iter().map(|&size| size as i64).collect(),
        data_type: tensor.dtype.onnx_code(),
        raw_data: Some(tensor.bytes),
        ..Default::default()
    }
}

fn node(op_type: &str, input: &[&str], output: &[&str]) -> NodeProto {
    let names = |names: &[&str]| names.iter().map(|&name| name.into()).collect();
    NodeProto { op_type: op_type.into(), input: names(input), output: names(output), ..Default::default() }
}

fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), r#type: AttributeType::Int.into(), i: Some(i), ..Default::default() }
}

fn with(mut node: NodeProto, attribute: AttributeProto) -> NodeProto {
    node.attribute.push(attribute);
    node
}

fn model(
    input: impl Into<Vec<ValueInfoProto>>,
    initializer: impl Into<Vec<TensorProto>>,
    node: impl Into<Vec<NodeProto>>,
    output: impl Into<Vec<ValueInfoProto>>,
) -> ModelProto {
    let graph = GraphProto {
        name: "test".into(),
        input: input.into(),
        initializer: initializer.into(),
        node: node.into(),
        output: output.into(),
        ..Default::default()
    };
    let opset_import = vec![OperatorSetIdProto { version: 17, ..Default::default() }];
    ModelProto { ir_version: 8, opset_import, graph: Some(graph), ..Default::default() }
}

/// What `backend` computes at `level`, after two equal runs of one session.
fn run(
    backend: &dyn Backend,
    level: Level,
    model: &ModelProto,
    inputs: &[TensorData],
) -> Result<Vec<TensorData>, Failure> {
    let mut session = backend.compile(&model.encode_to_vec(), level)?;
    let first = session.run(inputs)?;
    assert_eq!(session.run(inputs)?, first, "second run on {} {level}", backend.id());
    Ok(first)
}

/// Every backend but the `except`ed must give `expected` at every level.
#[track_caller]
fn check_except(except: &[&str], model: ModelProto, inputs: &[TensorData], expected: &[TensorData]) {
    for backend in backend::all().unwrap() {
        for level in Level::ALL {
            let outputs = run(&*backend, level, &model, inputs);
            if except.contains(&backend.id()) {
                assert!(matches!(outputs, Err(Failure::Unsupported(_))), "{} {level}: {outputs:?}", backend.id());
            } else {
                assert_eq!(outputs.as_deref(), Ok(expected), "{} {level}", backend.id());
            }
        }
    }
}

#[track_caller]
fn check(model: ModelProto, inputs: &[TensorData], expected: &[TensorData]) {
    check_except(&[], model, inputs, expected);
}

fn relu(shape: &[usize]) -> ModelProto {
    let (x, y) = (value("x", DType::F32, shape), value("y", DType::F32, shape));
    model([x], [], [node("Relu", &["x"], &["y"])], [y])
}

#[test]
fn every_row_opens_and_has_a_version() {
    for backend in backend::all().unwrap() {
        assert!(semver::Version::parse(&backend.version()).is_ok(), "{} {}", backend.id(), backend.version());
    }
    let ids: Vec<_> = backend::TABLE.iter().map(|(id, _)| *id).collect();
    let opened: Vec<_> = backend::all().unwrap().iter().map(|backend| backend.id()).collect();
    assert_eq!(ids, opened);
}

#[test]
fn relu_of_f32() {
    let x = TensorData::new(&[2, 2], &[-1f32, 0.5, f32::MIN_POSITIVE, -0.25]);
    check(relu(&[2, 2]), &[x], &[TensorData::new(&[2, 2], &[0f32, 0.5, f32::MIN_POSITIVE, 0.0])]);
}

#[test]
fn an_empty_tensor() {
    let empty = [TensorData::zeros(DType::F32, &[0, 3])];
    check(relu(&[0, 3]), &empty, &empty);
}

#[test]
fn a_tensor_of_rank_0() {
    check(relu(&[]), &[TensorData::new(&[], &[-2f32])], &[TensorData::new(&[], &[0f32])]);
    check(relu(&[]), &[TensorData::new(&[], &[2f32])], &[TensorData::new(&[], &[2f32])]);
}

#[test]
fn an_initializer() {
    let constant = initializer("c", TensorData::new(&[3], &[1i32, -1, i32::MAX]));
    let (x, y) = (value("x", DType::I32, &[2, 3]), value("y", DType::I32, &[2, 3]));
    check(
        model([x], [constant], [node("Add", &["x", "c"], &["y"])], [y]),
        &[TensorData::new(&[2, 3], &[1i32, 2, 0, 4, 5, -6])],
        &[TensorData::new(&[2, 3], &[2i32, 1, i32::MAX, 5, 4, i32::MAX - 6])],
    );
}

#[test]
fn matmul_and_add() {
    let weight = initializer("w", TensorData::new(&[3, 2], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0]));
    let bias = initializer("b", TensorData::new(&[2], &[0.5f32, -0.5]));
    let nodes = [node("MatMul", &["x", "w"], &["p"]), node("Add", &["p", "b"], &["y"])];
    let (x, y) = (value("x", DType::F32, &[1, 3]), value("y", DType::F32, &[1, 2]));
    check(
        model([x], [weight, bias], nodes, [y]),
        &[TensorData::new(&[1, 3], &[1f32, 10.0, 100.0])],
        &[TensorData::new(&[1, 2], &[531.5f32, 641.5])],
    );
}

#[test]
fn a_chain_of_casts() {
    let values = |dtype| TensorData::from_f64(dtype, &[3], &[0.0, 1.0, 1.0]);
    let order = [DType::F64, DType::F16, DType::I8, DType::U8, DType::I32, DType::Bool, DType::I64, DType::F32];
    let names: Vec<String> = (0..=order.len()).map(|i| format!("v{i}")).collect();
    let casts = order
        .iter()
        .enumerate()
        .map(|(i, dtype)| with(node("Cast", &[&names[i]], &[&names[i + 1]]), int("to", dtype.onnx_code().into())));
    // Each value is an output too.
    let outputs: Vec<_> = order.iter().zip(&names[1..]).map(|(&dtype, name)| value(name, dtype, &[3])).collect();
    let expected: Vec<_> = order.iter().map(|&dtype| values(dtype)).collect();
    let model = model([value("v0", DType::F32, &[3])], [], casts.collect::<Vec<_>>(), outputs);
    check_except(&["rten"], model, &[values(DType::F32)], &expected);
}

#[test]
fn every_element_type_goes_in_and_out() {
    fn through<T: Element>(values: &[T]) {
        let shape = [values.len()];
        let tensors = [TensorData::new(&shape, values)];
        let (x, y) = (value("x", T::DTYPE, &shape), value("y", T::DTYPE, &shape));
        let except: &[&str] = if matches!(T::DTYPE, DType::F16 | DType::F64) { &["rten"] } else { &[] };
        check_except(except, model([x], [], [node("Identity", &["x"], &["y"])], [y]), &tensors, &tensors);
    }
    through(&[f32::MIN, -0.0, f32::INFINITY, 1e-45]);
    through(&[f64::MIN, -0.0, f64::NEG_INFINITY, 5e-324]);
    through(&[f16::MIN, f16::NEG_ZERO, f16::INFINITY]);
    through(&[i8::MIN, 0, i8::MAX]);
    through(&[i32::MIN, 0, i32::MAX]);
    through(&[i32::MIN as i64, 0, i32::MAX as i64]);
    through(&[0, u8::MAX]);
    through(&[true, false, true]);
}

#[test]
fn a_computed_bool() {
    let (x, y, z) = (value("x", DType::F32, &[3]), value("y", DType::F32, &[3]), value("z", DType::Bool, &[3]));
    check(
        model([x, y], [], [node("Less", &["x", "y"], &["less"]), node("Not", &["less"], &["z"])], [z]),
        &[TensorData::new(&[3], &[1f32, 2.0, 3.0]), TensorData::new(&[3], &[2f32, 2.0, 2.0])],
        &[TensorData::new(&[3], &[false, true, true])],
    );
}

#[test]
fn reshape_by_an_initializer() {
    let shape = initializer("s", TensorData::new(&[3], &[1i64, -1, 2]));
    let values = [1i64, -2, 3, -4];
    let (x, y) = (value("x", DType::I64, &[4]), value("y", DType::I64, &[1, 2, 2]));
    check(
        model([x], [shape], [node("Reshape", &["x", "s"], &["y"])], [y]),
        &[TensorData::new(&[4], &values)],
        &[TensorData::new(&[1, 2, 2], &values)],
    );
}

#[test]
fn a_shape_is_i64() {
    let (x, y) = (value("x", DType::F32, &[2, 5]), value("y", DType::I64, &[2]));
    let x_value = TensorData::zeros(DType::F32, &[2, 5]);
    check(model([x], [], [node("Shape", &["x"], &["y"])], [y]), &[x_value], &[TensorData::new(&[2], &[2i64, 5])]);
}

#[test]
fn several_outputs() {
    let sizes = initializer("sizes", TensorData::new(&[3], &[1i64, 2, 1]));
    let outputs = [value("c", DType::F32, &[1]), value("a", DType::F32, &[1]), value("b", DType::F32, &[2])];
    let split = with(node("Split", &["x", "sizes"], &["a", "b", "c"]), int("axis", 0));
    check(
        model([value("x", DType::F32, &[4])], [sizes], [split], outputs),
        &[TensorData::new(&[4], &[1f32, 2.0, 3.0, 4.0])],
        &[TensorData::new(&[1], &[4f32]), TensorData::new(&[1], &[1f32]), TensorData::new(&[2], &[2f32, 3.0])],
    );
}

#[test]
fn garbage_is_refused() {
    let wrong_operator = model([], [], [node("NoSuchOperator", &[], &["y"])], [value("y", DType::F32, &[])]);
    for bytes in [&b"not a model"[..], &[], &[0xff; 64], &wrong_operator.encode_to_vec()] {
        for backend in backend::all().unwrap() {
            for level in Level::ALL {
                let session = backend.compile(bytes, level).map(drop);
                let loaded_nothing = bytes.is_empty() && session == Ok(());
                let refused = matches!(session, Err(Failure::Refused(_)));
                assert!(refused || loaded_nothing, "{} {level} {bytes:?}: {session:?}", backend.id());
            }
        }
    }
}

#[cfg(feature = "ort")]
#[test]
fn a_library_that_is_none_is_an_error() {
    // A process keeps the library that it has loaded first, so another one has to try.
    for library in ["/nowhere/libonnxruntime.so", "libm.so.6", "Cargo.toml"] {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "open_onnx_runtime", "--ignored", "--nocapture"])
            .env("ORT_DYLIB_PATH", library)
            .output()
            .unwrap();
        let output = String::from_utf8(child.stdout).unwrap();
        let message = output.lines().find(|line| line.starts_with('`')).unwrap_or_else(|| panic!("{output}"));
        assert!(message.starts_with(&format!("`{library}` cannot be used as ONNX Runtime (")), "{message}");
        assert!(message.ends_with("; name the right file in ORT_DYLIB_PATH"), "{message}");
        assert!(child.status.success() && child.stderr.is_empty(), "{:?}", child.stderr);
    }
}

#[cfg(feature = "ort")]
#[test]
#[ignore = "the child of another test"]
fn open_onnx_runtime() {
    match backend::ort::open() {
        Ok(backend) => println!("{}", backend.version()),
        Err(error) => println!("\n{error}"),
    }
}

/// A wrong input is an error of the caller; it must not take the process down all the same.
#[test]
fn wrong_inputs_are_failures() {
    let right = [TensorData::zeros(DType::F32, &[2])];
    let wrong_dtype = [TensorData::zeros(DType::I32, &[2])];
    for backend in backend::all().unwrap() {
        for level in Level::ALL {
            let mut session = backend.compile(&relu(&[2]).encode_to_vec(), level).unwrap();
            assert!(session.run(&[]).is_err(), "{} {level}", backend.id());
            assert!(session.run(&wrong_dtype).is_err(), "{} {level}", backend.id());
            assert!(session.run(&right).is_ok(), "{} {level}", backend.id());
        }
    }
}

#[cfg(feature = "tract")]
#[test]
fn a_panic_in_tract_is_a_crash() {
    // tract looks a graph output up without asking whether any node makes it.
    let model = model([value("x", DType::F32, &[])], [], [], [value("nowhere", DType::F32, &[])]);
    let tract = backend::tract::open().unwrap();
    match tract.compile(&model.encode_to_vec(), Level::On).map(drop) {
        Err(Failure::Crashed(message)) => assert!(message.contains(" at tract-onnx-"), "{message}"),
        other => panic!("{other:?}"),
    }
}

/// libfuzzer-sys sets a hook that aborts before anything can unwind.
#[test]
fn only_isolated_panics_survive_an_aborting_hook() {
    const CHILD: &str = "GRAPHSMITH_TEST_ABORTING_HOOK";
    if std::env::var_os(CHILD).is_some() {
        std::panic::set_hook(Box::new(|_| std::process::abort()));
        backend::install_panic_hook();
        let crash = backend::isolate::<()>(|| panic!("inside"));
        println!("\n{}", crash.unwrap_err());
        panic!("outside");
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "only_isolated_panics_survive_an_aborting_hook", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&child.stdout).contains("\ncrashed: inside at tests/backends.rs:"), "{child:?}");
    assert_eq!(child.status.code(), None, "killed by a signal");
}

#[cfg(feature = "rten")]
#[test]
fn i64_beyond_i32_is_not_supported_by_rten() {
    let rten = backend::rten::open().unwrap();
    let beyond = i64::from(i32::MAX) + 1;
    let (x, y) = (value("x", DType::I64, &[]), value("y", DType::I64, &[]));
    let identity = model([x.clone()], [], [node("Identity", &["x"], &["y"])], [y.clone()]);
    let outputs = run(&*rten, Level::On, &identity, &[TensorData::new(&[], &[beyond])]);
    assert!(matches!(outputs, Err(Failure::Unsupported(_))), "{outputs:?}");
    let constant = initializer("c", TensorData::new(&[], &[beyond]));
    let add = model([x], [constant], [node("Add", &["x", "c"], &["y"])], [y]);
    let session = rten.compile(&add.encode_to_vec(), Level::On).map(drop);
    assert!(matches!(session, Err(Failure::Unsupported(_))), "{session:?}");
}

/// Resident memory of this process in KiB.
fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4
}

/// A model unlike that of every other `i`.
fn numbered(i: usize, nodes: &[NodeProto], initializer: &[TensorProto], output_width: usize) -> ModelProto {
    let rows = 1 + i % 97;
    let (x, y) = (value("x", DType::F32, &[rows, 3]), value("y", DType::F32, &[rows, output_width]));
    let mut model = model([x], initializer, nodes, [y]);
    model.graph.as_mut().unwrap().node[0].name = format!("node{i}");
    model
}

/// Prints what a session costs. Run it alone: `cargo test --test backends -- --ignored --nocapture`.
#[test]
#[ignore = "a minute"]
fn memory_stays_flat_over_20_000_sessions() {
    const CYCLES: usize = 20_000;
    let relu = [node("Relu", &["x"], &["y"])];
    let layer = [node("MatMul", &["x", "w"], &["p"]), node("Add", &["p", "b"], &["q"]), node("Relu", &["q"], &["y"])];
    let weights = [
        initializer("w", TensorData::new(&[3, 2], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0])),
        initializer("b", TensorData::new(&[2], &[0.5f32, -0.5])),
    ];
    let unknown = [node("NoSuchOperator", &["x"], &["y"])];
    let cases: [(&str, &[NodeProto], &[TensorProto], usize); 3] =
        [("Relu", &relu, &[], 3), ("three nodes", &layer, &weights, 2), ("refused", &unknown, &[], 3)];
    for backend in backend::all().unwrap() {
        for (name, nodes, initializers, width) in cases {
            for level in Level::ALL {
                let cycle = |i| {
                    let input = TensorData::zeros(DType::F32, &[1 + i % 97, 3]);
                    let onnx = numbered(i, nodes, initializers, width).encode_to_vec();
                    let outputs = backend.compile(&onnx, level).and_then(|mut session| session.run(&[input]));
                    assert_eq!(outputs.is_ok(), name != "refused", "{outputs:?}");
                };
                (0..1000).for_each(cycle);
                let (before, start) = (resident_kib(), Instant::now());
                (1000..1000 + CYCLES).for_each(cycle);
                let (time, grown) = (start.elapsed() / CYCLES as u32, resident_kib().saturating_sub(before));
                println!("{:5} {level:3} {name:11} {time:>9.1?} a session; {before} KiB + {grown}", backend.id());
                assert!(grown < 4096, "{} {level} {name} grew by {grown} KiB", backend.id());
            }
        }
    }
}
