//! Whole commands, with their streams captured.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex};

use super::*;

#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Vec<u8>>>);

impl Capture {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Capture {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Ran {
    status: u8,
    out: String,
    err: String,
}

fn ran(args: &[&str], env: &[(&str, &str)]) -> Ran {
    let (out, err) = (Capture::default(), Capture::default());
    let env: HashMap<String, String> =
        env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let mut process = Process {
        env: Box::new(move |name| env.get(name).cloned()),
        stdin: Box::new(std::io::empty()),
        stdin_is_terminal: false,
        output: Output::new(Streams {
            out: Box::new(out.clone()),
            err: Box::new(err.clone()),
            out_is_terminal: false,
            err_is_terminal: false,
            colour: true,
        }),
    };
    let args = ["leasehold"].iter().chain(args).map(OsString::from);
    let status = execute(args, &mut process);
    Ran { status, out: out.text(), err: err.text() }
}

#[test]
fn the_definition_of_the_command_line_holds_together() {
    Line::command().debug_assert();
}

#[test]
fn help_is_data_and_a_wrong_flag_is_a_local_mistake() {
    let help = ran(&["-help"], &[]);
    assert_eq!((help.status, help.err.as_str()), (0, ""));
    assert!(help.out.contains("operator"), "{}", help.out);
    let wrong = ran(&["read", "--nosuch", "x"], &[]);
    assert_eq!((wrong.status, wrong.out.as_str()), (1, ""));
    assert!(wrong.err.contains("--nosuch"), "{}", wrong.err);
}

#[test]
fn an_environment_that_makes_no_sense_is_named_before_anything_is_sent() {
    for (name, value, word) in [
        ("VAULT_ADDR", "http://127.0.0.1:8200", "TLS only"),
        ("LEASEHOLD_CLIENT_TIMEOUT", "soon", "LEASEHOLD_CLIENT_TIMEOUT"),
        ("LEASEHOLD_CACERT", "/no/such/ca.pem", "/no/such/ca.pem"),
    ] {
        let ran = ran(&["status"], &[(name, value)]);
        assert_eq!(ran.status, 1, "{name}");
        assert!(ran.err.contains(word), "{name}: {}", ran.err);
        assert_eq!(ran.err.lines().count(), 2, "{name}: {}", ran.err);
    }
}

#[test]
fn a_pipe_gets_no_colour() {
    let ran = ran(&["status"], &[("LEASEHOLD_ADDR", "nonsense")]);
    assert!(ran.err.starts_with("error: the address"), "{}", ran.err);
}

#[test]
fn decoding_a_root_token_needs_no_server() {
    let ran = ran(
        &["operator", "generate-root", "-decode=QFFRUw", "-otp=0000", "-format=json"],
        &[("LEASEHOLD_ADDR", "nonsense")],
    );
    assert_eq!(ran.err, "");
    assert_eq!(ran.status, 0);
    assert!(ran.out.contains("\"paac\""), "{}", ran.out);
}
