//! Runs a model on a release of rten, for scripts/known-bugs: `rten_release MODEL`.
//!
//! Each line of the input is one of the model's inputs in order, and each line that is printed one of its outputs, as
//! `f32 2,3 1.5 ...`: the element type (f32 or i32), the shape (`-` for none) and the elements. The exit status is 3, with
//! rten's words on stderr, when it refuses, and that of a panic when it panics.

use rten::{Model, Value};
use rten_tensor::prelude::*;
use std::error::Error;

fn value(line: &str) -> Result<Value, Box<dyn Error>> {
    let mut words = line.split(' ');
    let (dtype, shape) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let shape: Vec<usize> = match shape {
        "-" => Vec::new(),
        shape => shape.split(',').map(str::parse).collect::<Result<_, _>>()?,
    };
    match dtype {
        "f32" => Ok(Value::from_shape(&shape, words.map(str::parse).collect::<Result<Vec<f32>, _>>()?)?),
        "i32" => Ok(Value::from_shape(&shape, words.map(str::parse).collect::<Result<Vec<i32>, _>>()?)?),
        other => Err(format!("{other} is not read").into()),
    }
}

fn text(value: &Value) -> Result<String, Box<dyn Error>> {
    let Value::FloatTensor(tensor) = value else { return Err("an output is not f32".into()) };
    let shape: Vec<String> = tensor.shape().iter().map(usize::to_string).collect();
    let shape = if shape.is_empty() { "-".to_owned() } else { shape.join(",") };
    let elements: String = tensor.iter().map(|element| format!(" {element:?}")).collect();
    Ok(format!("f32 {shape}{elements}"))
}

fn run() -> Result<(), Box<dyn Error>> {
    let model = Model::load_file(std::env::args().nth(1).ok_or("which model?")?)?;
    let values = std::io::read_to_string(std::io::stdin())?.lines().map(value).collect::<Result<Vec<_>, _>>()?;
    let inputs = model.input_ids().iter().copied().zip(values.into_iter().map(Into::into)).collect();
    for output in model.run(inputs, model.output_ids(), None)? {
        println!("{}", text(&output)?);
    }
    Ok(())
}

fn main() {
    if let Err(error) = run() {
        eprintln!("{error}");
        std::process::exit(3);
    }
}
