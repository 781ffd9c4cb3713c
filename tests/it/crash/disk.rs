//! The disk fails under the store and under the audit: a write, a sync, a full disk for a while, and a
//! write that was cut in the middle by the end of the machine.

use std::path::PathBuf;
use std::process::Command;

use super::World;
use super::clerk::Clerk;
use super::commits::run_errands;

/// The operation that fails, counted from the start of the process.
const AT: [u64; 4] = [5, 14, 31, 60];

/// Compiles what stands between the server and the C library.
fn library(directory: &std::path::Path) -> PathBuf {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/faulty_io.c");
    let library = directory.join("faulty_io.so");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl");
    assert!(cc.status().unwrap().success(), "{cc:?}");
    library
}

async fn survives(file: &str, faults: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let library = library(directory.path()).to_str().unwrap().to_owned();
    let world = World::on_sqlite().await;
    let mut clerks = [Clerk::new("disk")];
    let mut met = 0;
    for fault in faults {
        for nth in AT {
            let node = &world.nodes[0];
            node.set_environment(vec![
                ("LD_PRELOAD".to_owned(), library.clone()),
                ("LEASEHOLD_TEST_IO".to_owned(), format!("{fault}:{nth}:{file}")),
            ]);
            node.set_clock_ahead(world.ahead());
            // It may be met on the way up, too.
            let done = node.try_start_again()
                && node.try_unseal(&node.keys()[0]).await
                && run_errands(&mut clerks[0], &world).await.is_ok();
            met += usize::from(!done);
            node.kill();
            node.set_environment(Vec::new());
            world.revive(0).await;
            world.check(0, &mut clerks, false).await;
        }
        world.pass_time().await;
        world.check(0, &mut clerks, true).await;
    }
    assert!(met > 0, "no errand met a fault");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_under_the_store_loses_nothing_that_was_promised() {
    survives("leasehold.db", &["write", "sync", "full", "torn"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_under_the_audit_lets_nothing_out_unrecorded() {
    survives("audit.log", &["write", "sync", "full", "torn"]).await;
}
