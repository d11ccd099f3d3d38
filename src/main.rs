//! The `graphsmith` command.

use std::process::ExitCode;

mod cli;
mod sancov;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let _no_gradients = graphsmith::reference::init();
    cli::main()
}
