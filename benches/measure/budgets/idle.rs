//! A broker as a developer starts it, for the second time: `leasehold dev` unseals by itself.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::target::resident_mib;

/// What a start took.
pub struct Started {
    /// From exec to the line that says it answers.
    pub ready_millis: f64,
    pub resident_mib: f64,
}

/// Starts one on a store that exists already.
pub fn start() -> Started {
    let dir = tempfile::tempdir().unwrap();
    end(launch(dir.path()).0);
    let (child, ready_millis) = launch(dir.path());
    let resident_mib = resident_mib(child.id());
    end(child);
    Started { ready_millis, resident_mib }
}

fn launch(dir: &Path) -> (Child, f64) {
    let begun = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_leasehold"))
        .args(["dev", "--dir", dir.to_str().unwrap(), "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let ready = lines.any(|line| line.starts_with("ready https://"));
    assert!(ready, "the broker did not start");
    (child, begun.elapsed().as_secs_f64() * 1000.0)
}

fn end(mut child: Child) {
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::TERM).unwrap();
    child.wait().unwrap();
}
