//! One target, chosen by `LEASEHOLD_FUZZ_TARGET`, under libFuzzer.
#![no_main]

mod support;
#[path = "../../it/fuzz/targets/mod.rs"]
#[allow(dead_code, reason = "shared with the integration tests, which use other parts of it")]
mod targets;

use std::sync::OnceLock;

use targets::{ALL, Target};

fn chosen() -> &'static Target {
    static CHOSEN: OnceLock<&'static Target> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let name = std::env::var("LEASEHOLD_FUZZ_TARGET").expect("LEASEHOLD_FUZZ_TARGET is set");
        ALL.iter().find(|target| target.name == name).expect("there is such a target")
    })
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| (chosen().run)(input));
