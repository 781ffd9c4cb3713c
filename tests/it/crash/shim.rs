//! What stands between a server and its files: `support/faulty_io.c` says what it can do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The library, and the files by which it is told things and tells them.
pub struct Shim {
    directory: tempfile::TempDir,
}

impl Shim {
    /// Compiles it.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/faulty_io.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(directory.path().join("faulty_io.so"));
        cc.arg(source).args(["-ldl", "-lpthread"]);
        assert!(cc.status().unwrap().success(), "{cc:?}");
        Self { directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn plan(&self, what: &str, nth: u64, file: &str) -> Vec<(String, String)> {
        for name in ["mark", "arm"] {
            let _ = fs::remove_file(self.path(name));
        }
        let text = |name: &str| self.path(name).to_str().unwrap().to_owned();
        vec![
            ("LD_PRELOAD".to_owned(), text("faulty_io.so")),
            ("LEASEHOLD_TEST_IO".to_owned(), format!("{what}:{nth}:{file}")),
            ("LEASEHOLD_TEST_IO_MARK".to_owned(), text("mark")),
        ]
    }

    /// The environment of a server to which it happens at the `nth` operation on a file.
    pub fn at(&self, what: &str, nth: u64, file: &str) -> Vec<(String, String)> {
        self.plan(what, nth, file)
    }

    /// The same, counted from [`Shim::arm`] on.
    pub fn when_armed(&self, what: &str, nth: u64, file: &str) -> Vec<(String, String)> {
        let mut plan = self.plan(what, nth, file);
        plan.push((
            "LEASEHOLD_TEST_IO_ARM".to_owned(),
            self.path("arm").to_str().unwrap().to_owned(),
        ));
        plan
    }

    /// From now on operations are counted.
    pub fn arm(&self) {
        fs::write(self.path("arm"), "").unwrap();
    }

    /// Whether it has happened since the last plan.
    pub fn has_fired(&self) -> bool {
        self.path("mark").exists()
    }

    /// How many writes to that file a power cut undid.
    pub fn unsynced(&self, file: &str) -> usize {
        let marks = fs::read_to_string(self.path("mark")).unwrap();
        let counts = marks.lines().filter_map(|line| line.strip_prefix("cut ")?.split_once(' '));
        counts.filter(|(name, _)| *name == file).map(|(_, n)| n.parse::<usize>().unwrap()).sum()
    }
}
