//! The child process of a backend that is isolated.

use super::{Error, Exit, Result};
use graphsmith::backend::{TABLE, process};

/// Does the work of one backend for the process that has started this one
#[derive(clap::Args)]
pub struct Arguments {
    id: String,
}

pub fn main(arguments: &Arguments) -> Result<Exit> {
    let row = TABLE.iter().find(|(id, _)| *id == arguments.id);
    let (_, open) = row.ok_or_else(|| Error::NoBackend(arguments.id.clone()))?;
    process::serve(open()?.as_ref())?;
    Ok(Exit::Fine)
}
