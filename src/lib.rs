//! graphsmith: a coverage-guided fuzzer for deep-learning compilers.
//!
//! ```text
//! bytes --decode--> Input --grow, solve--> Model --search--> Case --every backend and level--> Outcomes --judge--> Verdict
//! ```
//!
//! The same in ten lines:
//!
//! ```
//! use graphsmith::{case, harness::{Harness, Verdict}, input, reference};
//!
//! let _no_gradients = reference::init();
//! let mut harness = Harness::new()?;
//! let generated = case::generate(&input::random(7, 5));
//! match harness.test(generated)? {
//!     Verdict::Bug(finding) => println!("{finding}"),
//!     Verdict::Agree | Verdict::Known(_) | Verdict::Skip(_) => {}
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | module | what crosses it |
//! |---|---|
//! | [`input`] | raw bytes to a header and fixed-size records; total |
//! | [`swarm`] | the header to what the case may use |
//! | [`spec`], [`ops`], [`schema`] | what an operator is, all of them, and what types the standard gives them |
//! | [`graph`], [`solve`], [`term`] | records to a graph of integer terms with an assignment that fulfils every law |
//! | [`model`], [`onnx`] | the concrete model, and its serialized form |
//! | [`mod@reference`], [`search`] | what the model means, and inputs on which that is free of exceptional values |
//! | [`backend`] | the compilers under test |
//! | [`oracle`], [`harness`], [`known`] | answers to a verdict |
//! | [`peers`] | answers to groups of equal ones, where there is no reference |
//! | [`finding`], [`triage`] | a difference told so that a reader can act on it |
//! | [`mod@minimise`] | a finding to the least case that shows it, with the part of the backend to blame |
//! | [`report`] | a finding as a folder for the backend's maintainers |
//! | [`mutate`], [`distance`] | an input to a similar one, and how similar their models are |
//! | [`clock`], [`stages`] | CPU time, for figures |
//! | [`trace`] | coverage of shared libraries as they are shipped |
//! | [`features`] | models and answers to counters that steer libFuzzer |
//! | [`fuzz`] | the glue to libFuzzer |

pub mod audit;
pub mod backend;
pub mod case;
pub mod clock;
pub mod distance;
pub mod dtype;
mod elements;
pub mod features;
pub mod finding;
pub mod fuzz;
pub mod graph;
pub mod harness;
pub mod input;
pub mod known;
pub mod limits;
pub mod metamorphic;
pub mod minimise;
pub mod model;
pub mod mutate;
pub mod npz;
pub mod onnx;
pub mod ops;
pub mod oracle;
pub mod peers;
pub mod reference;
pub mod report;
pub mod schema;
pub mod search;
pub mod shared_memory;
pub mod solve;
pub mod spec;
pub mod stages;
pub mod stats;
pub mod support;
pub mod swarm;
pub mod tensor;
pub mod term;
pub mod trace;
pub mod triage;
