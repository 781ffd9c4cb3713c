//! The `leasehold` program.

use std::process::ExitCode;

use mimalloc::MiMalloc;
use zeroizing_alloc::ZeroAlloc;

/// Wipes memory as it is freed, so that no copy of a secret outlives its owner, whoever made it. A
/// request allocates in many small pieces, and the allocator below is quick with those.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<MiMalloc> = ZeroAlloc(MiMalloc);

fn main() -> ExitCode {
    ExitCode::from(leasehold::cli::main(std::env::args_os()))
}
