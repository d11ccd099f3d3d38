//! Runs a model on a release of rten, for scripts/known-bugs and scripts/bisect-release: `rten_release MODEL on|off`, with
//! or without optimisations.
//!
//! Each line of the input is one of the model's inputs in order, and each line that is printed one of its outputs, as
//! `f32 2,3 1.5 ...`: the element type (f32, i32, i8 or u8), the shape (`-` for none) and the elements. An empty line
//! begins another run, the last of which is printed. The exit status is 3, with rten's words on stderr, when it refuses,
//! and that of a panic when it panics.

use rten::{ModelOptions, Value};
use rten_tensor::prelude::*;
use std::error::Error;

fn value(line: &str) -> Result<Value, Box<dyn Error>> {
    let mut words = line.split(' ');
    let (dtype, shape) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let shape: Vec<usize> = match shape {
        "-" => Vec::new(),
        shape => shape.split(',').map(str::parse).collect::<Result<_, _>>()?,
    };
    let words = words.filter(|word| !word.is_empty());
    match dtype {
        "f32" => Ok(Value::from_shape(&shape, words.map(str::parse).collect::<Result<Vec<f32>, _>>()?)?),
        "i32" => Ok(Value::from_shape(&shape, words.map(str::parse).collect::<Result<Vec<i32>, _>>()?)?),
        "i8" => Ok(Value::from_shape(&shape, words.map(str::parse).collect::<Result<Vec<i8>, _>>()?)?),
        "u8" => Ok(Value::from_shape(&shape, words.map(str::parse).collect::<Result<Vec<u8>, _>>()?)?),
        other => Err(format!("{other} is not read").into()),
    }
}

fn text(value: &Value) -> Result<String, Box<dyn Error>> {
    let (dtype, elements): (&str, Vec<String>) = match value {
        Value::FloatTensor(tensor) => ("f32", tensor.iter().map(|element| format!("{element:?}")).collect()),
        Value::Int32Tensor(tensor) => ("i32", tensor.iter().map(ToString::to_string).collect()),
        Value::Int8Tensor(tensor) => ("i8", tensor.iter().map(ToString::to_string).collect()),
        Value::UInt8Tensor(tensor) => ("u8", tensor.iter().map(ToString::to_string).collect()),
        _ => return Err("an output is no tensor".into()),
    };
    let shape: Vec<String> = value.shape().iter().map(ToString::to_string).collect();
    let shape = if shape.is_empty() { "-".to_owned() } else { shape.join(",") };
    Ok(format!("{dtype} {shape} {}", elements.join(" ")))
}

fn run() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("which model?")?;
    let on = std::env::args().nth(2).as_deref() != Some("off");
    let mut options = ModelOptions::with_all_ops();
    options.enable_optimization(on).prepack_weights(on);
    let model = options.load(std::fs::read(path)?)?;
    let input = std::io::read_to_string(std::io::stdin())?;
    let mut last = Vec::new();
    for lines in input.split("\n\n") {
        let values = lines.lines().map(value).collect::<Result<Vec<_>, _>>()?;
        let inputs = model.input_ids().iter().copied().zip(values.into_iter().map(Into::into)).collect();
        last = model.run(inputs, model.output_ids(), None)?;
    }
    for output in &last {
        println!("{}", text(output)?);
    }
    Ok(())
}

fn main() {
    if let Err(error) = run() {
        eprintln!("{error}");
        std::process::exit(3);
    }
}
