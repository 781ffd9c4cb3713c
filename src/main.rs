//! The `leasehold` program.

use std::alloc::System;
use std::process::ExitCode;

use zeroizing_alloc::ZeroAlloc;

/// Wipes memory as it is freed, so that no copy of a secret outlives its owner, whoever made it.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    ExitCode::from(leasehold::cli::main(std::env::args_os()))
}
