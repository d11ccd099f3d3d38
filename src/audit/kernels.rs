//! Backends some of whose kernels are at fault, always and in the same way, as those of real ones are: bugs whose identity is
//! known, for a test of what sorts findings into bugs.

use super::{Fault, Inject, Place};
use crate::input::Stream;
use crate::model::{LeafData, Model};
use crate::reference::{self, Defect, Precision, Values};
use crate::tensor::TensorData;
use crate::triage;

/// A bug: the kernel of one operator has a fault.
#[derive(Clone, Copy)]
pub struct Bug {
    pub fault: &'static Fault,
    pub operator: &'static str,
}

/// The outputs that a backend with this bug gives for a model without control flow. Where the fault finds nothing to get wrong
/// they are right.
pub fn answer(model: &Model, data: &LeafData, bug: Bug) -> Result<Vec<TensorData>, Defect> {
    let mut values = reference::run(model, data, Precision::Declared)?;
    for (index, node) in model.nodes.iter().enumerate() {
        let results = reference::run_node(model, node, &values, Precision::Declared)?;
        node.outputs.iter().zip(results).for_each(|(&output, result)| values[output] = Some(result));
        if node.spec.name == bug.operator {
            for (output, wrong) in faulty(model, index, &values, bug.fault).unwrap_or_default() {
                values[output] = Some(reference::to_tensor(&wrong, false));
            }
        }
    }
    Ok(reference::outputs(model, &values))
}

/// What a kernel gives in place of what is right, by output.
fn faulty(model: &Model, index: usize, values: &Values, fault: &Fault) -> Option<Vec<(usize, TensorData)>> {
    // The same kernel on the same data always errs in the same way.
    let stream = &mut Stream::new(0);
    let node = &model.nodes[index];
    match fault.inject {
        Inject::Model(change) => {
            let (mut part, mut data) = triage::extract(model, index, values);
            change(&mut part, &mut data, stream)?;
            let computed = crate::backend::isolate(|| Ok(reference::run(&part, &data, Precision::Declared)));
            let wrong = reference::outputs(&part, &computed.ok()?.ok()?);
            let written = node.outputs.iter().filter(|&&output| !model.values[output].name.is_empty());
            let fits = |(&output, wrong): (&usize, TensorData)| {
                let declared = &model.values[output];
                (declared.dtype == wrong.dtype && declared.shape == wrong.shape).then_some((output, wrong))
            };
            written.zip(wrong).map(fits).collect()
        }
        Inject::Result(change) => {
            let output = node.outputs[0];
            let right = reference::to_data(values[output].as_ref()?, model.values[output].dtype);
            Some(vec![(output, change(&Place { node, values }, &right, stream)?)])
        }
        Inject::Answer(_) => None,
    }
}
