//! The `graphsmith` command.

use std::process::ExitCode;

mod cli;
mod sancov;

fn main() -> ExitCode {
    let _no_gradients = graphsmith::reference::init();
    cli::main()
}
