//! The operator signatures of the ONNX standard: which element types each version of an operator takes.
//!
//! The table is made by `scripts/schemas` from the official onnx package and covers the opsets that graphsmith exports.
//! It keeps every model legal in its opset: a specification may name more element types than an older opset allows, and
//! what is left over is dropped while growing.

use crate::dtype::{DType, DTypes};
use crate::limits::{NEWEST_OPSET, OLDEST_OPSET};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::LazyLock;

const TEXT: &str = include_str!("schema.txt");

/// One version of an operator.
#[derive(Debug)]
pub struct Signature {
    /// The opset that introduced this version.
    pub version: i64,
    inputs: Vec<Parameter>,
    outputs: Vec<Parameter>,
}

#[derive(Debug)]
struct Parameter {
    /// The type variable, shared by parameters that must have the same type.
    variable: &'static str,
    types: DTypes,
    occurs: Occurs,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Occurs {
    Once,
    Optional,
    /// Any number of times, always with the same type.
    Repeated,
    /// Any number of times, each with a type of its own.
    Mixed,
}

/// By operator, the newest version first.
static ALL: LazyLock<BTreeMap<&'static str, Vec<Signature>>> = LazyLock::new(|| {
    let mut all: BTreeMap<&str, Vec<Signature>> = BTreeMap::new();
    for line in TEXT.lines().filter(|line| !line.starts_with('#')) {
        let (name, signature) = parse(line).unwrap_or_else(|| panic!("schema.txt is made by scripts/schemas: {line}"));
        all.entry(name).or_default().insert(0, signature);
    }
    all
});

/// `Gather 13 : T Tind -> T : T=f32,f64 Tind=i32,i64`
fn parse(line: &'static str) -> Option<(&'static str, Signature)> {
    let mut parts = line.split(" : ");
    let (name, version) = parts.next()?.trim_end_matches(" :").split_once(' ')?;
    let (inputs, outputs) = parts.next()?.split_once("->")?;
    let constraints: BTreeMap<&str, DTypes> =
        parts.next().unwrap_or("").split_whitespace().map(constraint).collect::<Option<_>>()?;
    let parameters = |text: &'static str| -> Option<Vec<Parameter>> {
        text.split_whitespace().map(|word| parameter(word, &constraints)).collect()
    };
    let (inputs, outputs) = (parameters(inputs)?, parameters(outputs.trim_end_matches(" :"))?);
    Some((name, Signature { version: version.parse().ok()?, inputs, outputs }))
}

fn constraint(text: &'static str) -> Option<(&'static str, DTypes)> {
    let (variable, names) = text.split_once('=')?;
    let types: Vec<DType> = names.split(',').map(DType::from_name).collect::<Option<_>>()?;
    Some((variable, DTypes::of(&types)))
}

fn parameter(word: &'static str, constraints: &BTreeMap<&str, DTypes>) -> Option<Parameter> {
    let variable = word.trim_end_matches(['?', '*']);
    let occurs = match &word[variable.len()..] {
        "" => Occurs::Once,
        "?" => Occurs::Optional,
        "*" => Occurs::Repeated,
        "**" => Occurs::Mixed,
        _ => return None,
    };
    let types = match DType::from_name(variable) {
        Some(dtype) => DTypes::of(&[dtype]),
        None => *constraints.get(variable)?,
    };
    Some(Parameter { variable, types, occurs })
}

/// The version of `operator` that a model of this opset uses; `None` when the opset has none.
pub fn signature(operator: &str, opset: i64) -> Option<&'static Signature> {
    ALL.get(operator)?.iter().find(|signature| signature.version <= opset)
}

/// The versions of `operator` that models of graphsmith's opsets use, oldest first.
pub fn versions(operator: &str) -> impl Iterator<Item = i64> {
    ALL.get(operator).into_iter().flatten().rev().map(|signature| signature.version)
}

/// The opsets among graphsmith's whose models use this version of `operator`.
pub fn opsets(operator: &str, version: i64) -> RangeInclusive<i64> {
    let next = versions(operator).find(|&other| other > version);
    version.max(OLDEST_OPSET)..=next.map_or(NEWEST_OPSET, |next| next - 1)
}

impl Signature {
    /// The types that some operand may have.
    pub fn operand_types(&self) -> DTypes {
        self.inputs.iter().fold(DTypes::of(&[]), |all, parameter| all.or(parameter.types))
    }

    /// The types that some output may have.
    pub fn output_types(&self) -> DTypes {
        self.outputs.iter().fold(DTypes::of(&[]), |all, parameter| all.or(parameter.types))
    }

    /// The type of the first output where the types of the operands (`None`: absent) decide it.
    pub fn output_type(&self, operands: impl IntoIterator<Item = Option<DType>>) -> Option<DType> {
        let mut bound = BTreeMap::new();
        if !fits(&self.inputs, operands, &mut bound) {
            return None;
        }
        let output = self.outputs.first()?;
        let mut types = output.types.iter();
        bound.get(output.variable).copied().or_else(|| types.next().filter(|_| types.next().is_none()))
    }

    /// Whether operands (`None`: absent) and outputs may have these types together.
    pub fn allows(
        &self,
        operands: impl IntoIterator<Item = Option<DType>>,
        outputs: impl IntoIterator<Item = DType>,
    ) -> bool {
        let mut bound: BTreeMap<&str, DType> = BTreeMap::new();
        fits(&self.inputs, operands, &mut bound) && fits(&self.outputs, outputs.into_iter().map(Some), &mut bound)
    }
}

fn fits(
    parameters: &[Parameter],
    types: impl IntoIterator<Item = Option<DType>>,
    bound: &mut BTreeMap<&'static str, DType>,
) -> bool {
    let mut count = 0;
    for (index, dtype) in types.into_iter().enumerate() {
        count += 1;
        let repeated = |last: &&Parameter| matches!(last.occurs, Occurs::Repeated | Occurs::Mixed);
        let Some(parameter) = parameters.get(index).or_else(|| parameters.last().filter(repeated)) else {
            return false;
        };
        match dtype {
            None if parameter.occurs != Occurs::Optional => return false,
            None => {}
            Some(dtype) => {
                let same =
                    parameter.occurs == Occurs::Mixed || *bound.entry(parameter.variable).or_insert(dtype) == dtype;
                if !same || !parameter.types.contains(dtype) {
                    return false;
                }
            }
        }
    }
    parameters.iter().skip(count).all(|parameter| parameter.occurs != Occurs::Once)
}

#[cfg(test)]
mod tests {
    use super::*;
    use DType::{BF16, Bool, F16, F32, F64, I8, I32, I64};

    fn allows(operator: &str, opset: i64, operands: &[Option<DType>], outputs: &[DType]) -> bool {
        let signature = signature(operator, opset).expect("a known operator");
        signature.allows(operands.iter().copied(), outputs.iter().copied())
    }

    #[test]
    fn types_are_legal_by_opset() {
        assert!(allows("Relu", 13, &[Some(F32)], &[F32]));
        assert!(!allows("Relu", 13, &[Some(I32)], &[I32]), "integers came with opset 14");
        assert!(allows("Relu", 14, &[Some(I32)], &[I32]));
        assert!(!allows("Add", 14, &[Some(F32), Some(F64)], &[F32]), "one type variable");
        assert!(allows("Clip", 13, &[Some(F32), None, Some(F32)], &[F32]));
        assert!(!allows("Clip", 13, &[None], &[F32]), "required");
        assert!(allows("Sum", 13, &[Some(BF16), Some(BF16), Some(BF16)], &[BF16]));
        assert!(allows("Gather", 13, &[Some(Bool), Some(I64)], &[Bool]));
        assert!(!allows("Gather", 13, &[Some(Bool), Some(I8)], &[Bool]));
        assert!(allows("Loop", 13, &[Some(I64), None, Some(F32), Some(I32)], &[F32, I32]), "each its own type");
        assert!(!allows("Relu", 14, &[Some(F32), Some(F32)], &[F32]), "one operand too many");
        assert!(signature("Gelu", 19).is_none() && signature("Gelu", 20).is_some());
        assert_eq!(versions("Relu").collect::<Vec<_>>(), [13, 14]);
        let output = |operator, operands: &[DType]| {
            signature(operator, 18).and_then(|it| it.output_type(operands.iter().copied().map(Some)))
        };
        assert_eq!([output("Add", &[F16, F16]), output("Less", &[F16, F16])], [Some(F16), Some(Bool)]);
        assert_eq!([output("Add", &[F16, F32]), output("Cast", &[F16])], [None, None], "illegal, and an attribute's");
    }

    #[test]
    fn every_opset_has_operators() {
        for opset in OLDEST_OPSET..=NEWEST_OPSET {
            assert!(signature("Conv", opset).is_some());
        }
        assert!(ALL.values().all(|versions| versions.is_sorted_by(|a, b| a.version > b.version)));
    }
}
