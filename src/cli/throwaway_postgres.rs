//! A private PostgreSQL server that lives as long as the command that needs one.

use std::ffi::OsString;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::types::id::random_base62;
use crate::types::secret::{RandomError, SecretString};

/// The superuser of the private server.
pub const SUPERUSER: &str = "postgres";
const READY_MILLIS_MAX: u64 = 30_000;
const STOP_MILLIS_MAX: u64 = 10_000;
const LOOK_MILLIS: u64 = 20;
/// Another process may take the free port between our finding it and the server's binding it.
const START_ATTEMPTS: u32 = 3;

/// Why there is no private PostgreSQL.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// `initdb` and `postgres` are nowhere to be found.
    #[error("PostgreSQL's programs (initdb, postgres) are not installed")]
    NotInstalled,
    /// PostgreSQL refuses to run as root, and there is no other user to run it as.
    #[error("PostgreSQL does not run as root, and there is no user \"postgres\" to run it as")]
    NoUser,
    /// A file, directory, port or process could not be had.
    #[error("{what}")]
    System {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// `initdb` or `postgres` ended on its own.
    #[error("{program} failed: {said}")]
    Failed {
        /// Which of them.
        program: &'static str,
        /// The end of what it said.
        said: String,
    },
    /// The server was not ready in time.
    #[error("PostgreSQL was not ready within {} s", READY_MILLIS_MAX / 1000)]
    Slow,
    /// No randomness for a password.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// A running private server. Dropping it stops it and removes its files.
pub struct ThrowawayPostgres {
    child: Child,
    port: u16,
    password: SecretString,
    // Removed after `drop` has stopped the server.
    _dir: TempDir,
}

impl ThrowawayPostgres {
    /// Creates and starts a server on a free port of 127.0.0.1, with SCRAM passwords.
    ///
    /// # Errors
    /// The reason why there is none.
    pub async fn start() -> Result<Self, Unavailable> {
        let programs = find_programs()?;
        let user = service_user()?;
        let dir = tempfile::Builder::new()
            .prefix("leasehold-postgres-")
            .tempdir()
            .map_err(system("cannot make a temporary directory"))?;
        if let Some(user) = user {
            chown(dir.path(), Some(user.uid), Some(user.gid))
                .map_err(system("cannot give the temporary directory to postgres"))?;
        }
        let password = SecretString::new(random_base62(32)?);
        let as_user = |program: &str| {
            let mut command = Command::new(programs.join(program));
            command
                .current_dir(dir.path())
                .env_clear()
                .env("PATH", "/usr/bin:/bin")
                .env("LC_ALL", "C");
            if let Some(user) = user {
                command.uid(user.uid).gid(user.gid);
            }
            command
        };
        initialise(as_user("initdb"), dir.path(), user, &password).await?;
        let mut attempt = 1;
        loop {
            let port = free_port()?;
            match launch(as_user("postgres"), dir.path(), port).await {
                Ok(child) => return Ok(Self { child, port, password, _dir: dir }),
                Err(Unavailable::Failed { said, .. })
                    if attempt < START_ATTEMPTS && said.contains("Address already in use") =>
                {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The superuser's password.
    pub fn password(&self) -> &SecretString {
        &self.password
    }

    /// A connection URL without credentials in it.
    pub fn url(&self) -> String {
        format!("postgres://127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for ThrowawayPostgres {
    fn drop(&mut self) {
        stop(&mut self.child);
    }
}

/// A fast shutdown; a server that does not heed it is killed.
fn stop(child: &mut Child) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // A server that is gone already needs no signal.
        let _ = kill_process(pid, Signal::INT);
    }
    for _ in 0..STOP_MILLIS_MAX / LOOK_MILLIS {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(Duration::from_millis(LOOK_MILLIS)),
            Ok(Some(_)) | Err(_) => return,
        }
    }
    let _ = child.kill();
    let _ = child.wait();
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct User {
    uid: u32,
    gid: u32,
}

/// Whom to run as: ourselves, or `postgres` when we are root.
fn service_user() -> Result<Option<User>, Unavailable> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let passwd =
        std::fs::read_to_string("/etc/passwd").map_err(system("cannot read /etc/passwd"))?;
    find_user(&passwd, "postgres").map(Some).ok_or(Unavailable::NoUser)
}

fn find_user(passwd: &str, name: &str) -> Option<User> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(User { uid, gid })
    })
}

fn find_programs() -> Result<PathBuf, Unavailable> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            Some((number, entry.path().join("bin")))
        })
        .collect();
    versions.sort_unstable_by_key(|(number, _)| std::cmp::Reverse(*number));
    first_with_programs(&path, versions.into_iter().map(|(_, dir)| dir))
        .ok_or(Unavailable::NotInstalled)
}

fn first_with_programs(path: &OsString, further: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    std::env::split_paths(path)
        .chain(further)
        .find(|dir| dir.join("initdb").is_file() && dir.join("postgres").is_file())
}

async fn initialise(
    mut command: Command,
    dir: &Path,
    user: Option<User>,
    password: &SecretString,
) -> Result<(), Unavailable> {
    let password_file = dir.join("password");
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&password_file)
        .and_then(|mut file| file.write_all(password.expose().as_bytes()))
        .map_err(system("cannot write the password file"))?;
    if let Some(user) = user {
        chown(&password_file, Some(user.uid), Some(user.gid))
            .map_err(system("cannot give the password file to postgres"))?;
    }
    command.arg("-D").arg(dir.join("data")).arg("--pwfile").arg(&password_file).args([
        "-U",
        SUPERUSER,
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C",
        "--no-sync",
    ]);
    let output = tokio::process::Command::from(command)
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(system("cannot run initdb"))?;
    // The server knows the password now; nobody needs the file.
    std::fs::remove_file(&password_file).map_err(system("cannot remove the password file"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = last_lines(&String::from_utf8_lossy(&output.stderr));
    Err(Unavailable::Failed { program: "initdb", said })
}

async fn launch(mut command: Command, dir: &Path, port: u16) -> Result<Child, Unavailable> {
    let data = dir.join("data");
    let log_path = dir.join("log");
    let log = std::fs::File::create(&log_path).map_err(system("cannot write PostgreSQL's log"))?;
    log.set_permissions(PermissionsExt::from_mode(0o600))
        .map_err(system("cannot protect PostgreSQL's log"))?;
    command.arg("-D").arg(&data);
    for setting in [
        "listen_addresses=127.0.0.1".to_owned(),
        format!("port={port}"),
        format!("unix_socket_directories={}", dir.display()),
        "max_connections=50".to_owned(),
        "shared_buffers=16MB".to_owned(),
        // What a crash loses is thrown away in any case.
        "fsync=off".to_owned(),
        "full_page_writes=off".to_owned(),
    ] {
        command.arg("-c").arg(setting);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(system("cannot run postgres"))?;
    for _ in 0..READY_MILLIS_MAX / LOOK_MILLIS {
        if is_ready(&data) {
            return Ok(child);
        }
        match child.try_wait() {
            Ok(None) => tokio::time::sleep(Duration::from_millis(LOOK_MILLIS)).await,
            Ok(Some(_)) => {
                let said = last_lines(&std::fs::read_to_string(&log_path).unwrap_or_default());
                return Err(Unavailable::Failed { program: "postgres", said });
            }
            Err(source) => {
                stop(&mut child);
                return Err(system("cannot watch postgres")(source));
            }
        }
    }
    stop(&mut child);
    Err(Unavailable::Slow)
}

/// The eighth line of its pid file says so, as `pg_ctl` reads it.
fn is_ready(data: &Path) -> bool {
    std::fs::read_to_string(data.join("postmaster.pid"))
        .is_ok_and(|text| text.lines().nth(7).is_some_and(|status| status.trim() == "ready"))
}

fn free_port() -> Result<u16, Unavailable> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(system("there is no free port"))
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines.iter().skip(lines.len().saturating_sub(3)).copied().collect::<Vec<_>>().join("; ")
}

fn system(what: &'static str) -> impl Fn(std::io::Error) -> Unavailable {
    move |source| Unavailable::System { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_user_is_found_by_its_whole_name() {
        let passwd = "root:x:0:0::/root:/bin/sh\npostgresql:x:7:7::/:\npostgres:x:105:112:x:/:/\n";
        assert_eq!(find_user(passwd, "postgres"), Some(User { uid: 105, gid: 112 }));
        assert_eq!(find_user(passwd, "post"), None);
        assert_eq!(find_user("postgres:x:many", "postgres"), None);
    }

    #[test]
    fn both_programs_must_be_in_the_same_place() {
        let (half, whole) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(half.path().join("initdb"), "").unwrap();
        assert_eq!(first_with_programs(&half.path().into(), std::iter::empty()), None);
        for name in ["initdb", "postgres"] {
            std::fs::write(whole.path().join(name), "").unwrap();
        }
        let found = first_with_programs(&half.path().into(), [whole.path().to_owned()].into_iter());
        assert_eq!(found.as_deref(), Some(whole.path()));
    }
}
