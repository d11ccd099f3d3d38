//! The `graphsmith` command.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    let _no_gradients = graphsmith::reference::init();
    cli::main()
}
