//! A private, real PostgreSQL: its own directory, its own port, gone when the test process is gone.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use super::wire::free_addresses;

/// Name of the superuser of every cluster made here.
pub const SUPERUSER: &str = "root";

/// Stops the server and removes the directory once standard input ends: when it is closed on purpose,
/// and when this process is gone, however it went.
const WATCHDOG: &str = r#"
    "$1" -D "$2/data" -p "$3" >>"$2/log" 2>&1 </dev/null &
    cat >/dev/null
    kill -QUIT $! 2>/dev/null
    wait $!
    [ -e "$2/keep" ] || rm -rf "$2"
"#;

/// One PostgreSQL server.
pub struct TestPostgres {
    programs: PathBuf,
    directory: PathBuf,
    port: u16,
    password: String,
    tls: bool,
    running: Mutex<Option<Watchdog>>,
    databases: AtomicU32,
}

struct Watchdog {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

impl TestPostgres {
    /// The server that all tests of this binary share: take a [`TestPostgres::database`] of it, and
    /// remember that roles are shared by all databases.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<TestPostgres> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// A server of one's own, to stop, start again or reconfigure.
    pub fn start() -> Self {
        Self::start_configured(None, "")
    }

    /// A server of one's own with further lines of `postgresql.conf`.
    pub fn start_with_settings(settings: &str) -> Self {
        Self::start_configured(None, settings)
    }

    /// A server of one's own that also speaks TLS, with this certificate and key (PEM).
    pub fn start_with_tls(certificate: &str, key: &str) -> Self {
        Self::start_configured(Some((certificate, key)), "")
    }

    fn start_configured(tls: Option<(&str, &str)>, settings: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let directory = std::env::temp_dir().join(format!(
            "leasehold-postgres-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        ));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, Permissions::from_mode(0o700)).unwrap();
        if let Some((uid, gid)) = server_user() {
            chown(&directory, Some(uid), Some(gid)).unwrap();
        }
        let mut server = Self {
            programs: programs(),
            directory,
            port: free_port(),
            password: "only-for-tests".to_owned(),
            tls: tls.is_some(),
            running: Mutex::new(None),
            databases: AtomicU32::new(0),
        };
        server.write_private("password", &server.password);
        server.initdb();
        if let Some((certificate, key)) = tls {
            server.write_private("tls.pem", certificate);
            server.write_private("tls.key", key);
        }
        server.configure(settings);
        // Between finding a port free and taking it, another process may have taken it.
        for _ in 0..3 {
            if server.start_on_port() {
                return server;
            }
            server.port = free_port();
        }
        panic!("PostgreSQL did not start:\n{}", server.log());
    }

    fn initdb(&self) {
        let path = |name: &str| self.directory.join(name);
        let mut command = self.as_server_user(&self.programs.join("initdb"));
        command
            .args(["-U", SUPERUSER, "-A", "scram-sha-256", "--locale=C.UTF-8", "--no-sync"])
            .arg("-D")
            .arg(path("data"))
            .arg(format!("--pwfile={}", path("password").display()));
        succeed(command.output().unwrap(), "initdb");
    }

    fn configure(&self, settings: &str) {
        let directory = self.directory.display();
        let mut lines = format!(
            "listen_addresses = '127.0.0.1'\nunix_socket_directories = '{directory}'\n\
             fsync = off\nfull_page_writes = off\nshared_buffers = 16MB\nmax_connections = 100\n"
        );
        if self.tls {
            lines += &format!(
                "ssl = on\nssl_cert_file = '{directory}/tls.pem'\n\
                 ssl_key_file = '{directory}/tls.key'\n"
            );
        }
        lines += settings;
        self.append("data/postgresql.conf", &lines);
        // Every address of the loopback network, not the usual one alone.
        self.append("data/pg_hba.conf", "host all all 127.0.0.0/8 scram-sha-256\n");
    }

    fn append(&self, name: &str, lines: &str) {
        let mut file = OpenOptions::new().append(true).open(self.directory.join(name)).unwrap();
        file.write_all(lines.as_bytes()).unwrap();
    }

    /// Starts the server after [`TestPostgres::stop`], with the same data and port; returns once it
    /// answers.
    pub fn start_again(&self) {
        assert!(self.start_on_port(), "PostgreSQL did not start again:\n{}", self.log());
    }

    fn start_on_port(&self) -> bool {
        let mut running = self.running.lock().unwrap();
        assert!(running.is_none(), "the server runs already");
        let _ = fs::remove_file(self.directory.join("keep"));
        let state_file = self.directory.join("data/postmaster.pid");
        let _ = fs::remove_file(&state_file);
        let mut child = self
            .as_server_user(Path::new("/bin/sh"))
            .args(["-c", WATCHDOG, "postgres-watchdog"])
            .arg(self.programs.join("postgres"))
            .arg(&self.directory)
            .arg(self.port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let watchdog = Watchdog { child, stdin };
        for _ in 0..600 {
            // The postmaster's own word. A probe of the port could reach somebody else's server.
            let state = fs::read_to_string(&state_file).unwrap_or_default();
            if state.lines().nth(7).is_some_and(|line| line.trim() == "ready") {
                *running = Some(watchdog);
                return true;
            }
            if self.log().contains("Address already in use") {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.write_private("keep", "");
        false
    }

    /// Stops the server at once, as a crash would: sessions are cut. The data stays for
    /// [`TestPostgres::start_again`].
    pub fn stop(&self) {
        self.write_private("keep", "");
        let running = self.running.lock().unwrap().take();
        assert!(running.is_some(), "the server does not run");
        drop(running);
    }

    /// Makes a fresh, empty database and returns its URL, with the superuser's name and password.
    pub fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        self.url(&name)
    }

    /// The superuser's URL of `database`.
    pub fn url(&self, database: &str) -> String {
        self.url_for(SUPERUSER, &self.password, database)
    }

    /// The URL of `database` for somebody else.
    pub fn url_for(&self, user: &str, password: &str, database: &str) -> String {
        format!("postgres://{user}:{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The superuser's password.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// What the server has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Where its data is.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// All of `database` as `pg_dump` writes it.
    pub fn dump(&self, database: &str) -> String {
        let output = Command::new(self.programs.join("pg_dump"))
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", SUPERUSER, database])
            .env("PGPASSWORD", &self.password)
            .output()
            .unwrap();
        succeed(output, "pg_dump")
    }

    /// Runs SQL as superuser and returns what `psql` prints, without decoration.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        succeed(self.psql(SUPERUSER, &self.password, database, sql), sql)
    }

    /// Whether this user can log in with this password.
    pub fn can_log_in(&self, user: &str, password: &str, database: &str) -> bool {
        self.psql(user, password, database, "SELECT 1").status.success()
    }

    fn psql(&self, user: &str, password: &str, database: &str, sql: &str) -> Output {
        Command::new(self.programs.join("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(["-U", user, "-d", database, "-c", sql])
            .env("PGPASSWORD", password)
            .output()
            .unwrap()
    }

    fn as_server_user(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.directory);
        if let Some((uid, gid)) = server_user() {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn write_private(&self, name: &str, text: &str) {
        let path = self.directory.join(name);
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        if let Some((uid, gid)) = server_user() {
            chown(&path, Some(uid), Some(gid)).unwrap();
        }
    }
}

impl Drop for TestPostgres {
    fn drop(&mut self) {
        drop(self.running.get_mut().unwrap().take());
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn succeed(output: Output, what: &str) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    assert!(output.status.success(), "{what} failed: {}", text(&output.stderr));
    text(&output.stdout)
}

/// PostgreSQL refuses to run as root, so root runs it as the user that its package made.
fn server_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let fields: Vec<&str> = line.unwrap_or_else(|| missing()).split(':').collect();
    Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
}

/// The directory of the newest PostgreSQL programs: Debian keeps them out of PATH.
fn programs() -> PathBuf {
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut found: Vec<(u32, PathBuf)> = debian
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            Some((path.file_name()?.to_str()?.parse().ok()?, path.join("bin")))
        })
        .collect();
    found.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    found
        .into_iter()
        .rev()
        .map(|(_, directory)| directory)
        .chain(std::env::split_paths(&path))
        .find(|directory| {
            ["initdb", "postgres", "psql"].iter().all(|name| directory.join(name).exists())
        })
        .unwrap_or_else(|| missing())
}

fn missing() -> ! {
    panic!(
        "these tests need PostgreSQL's own programs: `apt-get install postgresql` (Debian, Ubuntu), \
         or initdb, postgres and psql in PATH"
    )
}

fn free_port() -> u16 {
    let [address] = free_addresses();
    address.port()
}
