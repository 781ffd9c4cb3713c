//! The `leasehold` program.

use std::process::ExitCode;

use zeroizing_alloc::ZeroAlloc;

/// Wipes memory as it is freed, so that no copy of a secret outlives its owner, whoever made it. A
/// request allocates in many small pieces, and the allocator below is quick with those.
#[cfg(not(feature = "system-allocator"))]
#[global_allocator]
static ALLOCATOR: ZeroAlloc<mimalloc::MiMalloc> = ZeroAlloc(mimalloc::MiMalloc);

/// The same on top of one whose blocks tools that look for leaks know.
#[cfg(feature = "system-allocator")]
#[global_allocator]
static ALLOCATOR: ZeroAlloc<std::alloc::System> = ZeroAlloc(std::alloc::System);

fn main() -> ExitCode {
    ExitCode::from(leasehold::cli::main(std::env::args_os()))
}
