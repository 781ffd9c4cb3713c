//! A real server in a process of its own, with its own PKI, store and audit, and clients for it.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustls::version::TLS13;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio_rustls::client::TlsStream;

use super::pki::{Ca, Issued, Spec};
use super::wire::{Answer, Client, answer, free_addresses};

/// The trust domain of the clients.
pub const DOMAIN: &str = "test.example";
/// Longest wait for a process to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks at a process that starts or ends.
const STEP: Duration = Duration::from_millis(5);

/// Ends the server and removes its directory when this test process is gone, however it went.
const WATCHDOG: &str = r#"
    cat >/dev/null
    kill -KILL "$1" 2>/dev/null
    rm -rf "$2"
"#;

/// How a broker is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// URL of the PostgreSQL database to keep records in; SQLite without.
    pub postgres: Option<String>,
    /// Where the process kills itself, in builds that have fail points.
    pub fail_point: Option<String>,
    /// Unseal shares, and how many of them open.
    pub shares: (u8, u8),
    /// Keys of `[server]`, as TOML lines.
    pub server: String,
    /// Other tables, as TOML.
    pub tables: String,
    /// Where the audit is written, instead of the broker's own directory.
    pub audit: Option<PathBuf>,
    /// When the audit is forced to the disk, as the configuration says it.
    pub audit_sync: Option<&'static str>,
    /// Where the store and everything else is, instead of a new directory.
    pub data_dir: Option<PathBuf>,
    /// How far the server's clock is ahead, in builds that have fail points.
    pub clock_ahead: Duration,
    /// What is added to the process's environment.
    pub environment: Vec<(String, String)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            postgres: None,
            fail_point: None,
            shares: (1, 1),
            server: String::new(),
            tables: String::new(),
            audit: None,
            audit_sync: None,
            data_dir: None,
            clock_ahead: Duration::ZERO,
            environment: Vec::new(),
        }
    }
}

/// Who signs what.
pub struct Pki {
    /// Signs the server's certificate.
    pub servers: Ca,
    /// Signs the clients' certificates; its bundle is configured for [`DOMAIN`].
    pub clients: Ca,
    /// The administrator's certificate, which no role knows.
    pub admin: Issued,
}

/// What initialising gave.
#[derive(Clone, Debug, Default)]
pub struct Opening {
    /// The shares, in hexadecimal.
    pub keys: Vec<String>,
    /// The root token.
    pub root_token: String,
}

/// One server.
pub struct Broker {
    /// Who signs what.
    pub pki: Arc<Pki>,
    /// The listener that wants a certificate.
    pub address: SocketAddr,
    /// The listener that does without.
    pub open_address: SocketAddr,
    directory: TempDir,
    setup: Setup,
    opening: Mutex<Opening>,
    running: Mutex<Option<Running>>,
    clock_ahead: Mutex<Duration>,
    environment: Mutex<Vec<(String, String)>>,
}

struct Running {
    server: Child,
    watchdog: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        // The watchdog first: once the server is gone, its number may be somebody else's.
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
        let _ = self.server.kill();
        let _ = self.server.wait();
        // What libfaketime leaves behind when its process is killed keeps a later one from starting
        // that happens to get the same number.
        for left in ["faketime_shm", "sem.faketime_sem"] {
            let _ = fs::remove_file(format!("/dev/shm/{left}_{}", self.server.id()));
        }
    }
}

impl Broker {
    /// Starts a server; returns once it answers. It is not initialised, or sealed.
    pub fn start(setup: Setup) -> Self {
        let servers = Ca::root("servers");
        let clients = Ca::root("clients");
        let admin = clients.issue(&Spec::svid(&format!("spiffe://{DOMAIN}/admin")));
        Self::start_with(setup, Arc::new(Pki { servers, clients, admin }))
    }

    /// The same with the certificates of another.
    pub fn start_with(setup: Setup, pki: Arc<Pki>) -> Self {
        let directory = tempfile::Builder::new().prefix("leasehold-broker-").tempdir().unwrap();
        let [address, open_address] = free_addresses();
        let mut broker = Self {
            pki,
            address,
            open_address,
            directory,
            clock_ahead: Mutex::new(setup.clock_ahead),
            environment: Mutex::new(setup.environment.clone()),
            setup,
            opening: Mutex::default(),
            running: Mutex::default(),
        };
        broker.write_files();
        // Between finding a port free and taking it, another process may have taken it.
        for _ in 0..4 {
            broker.write_config();
            if broker.spawn(broker.setup.fail_point.as_deref()) {
                return broker;
            }
            let log = broker.log();
            assert!(log.contains("cannot listen on"), "the server did not start:\n{log}");
            [broker.address, broker.open_address] = free_addresses();
        }
        panic!("no free ports");
    }

    /// Starts, initialises and unseals.
    pub async fn ready(setup: Setup) -> Self {
        let broker = Self::start(setup);
        broker.init().await;
        broker.unseal().await;
        broker
    }

    /// A further server on the same store, with the same certificates and shares, unsealed.
    pub async fn beside(&self) -> Self {
        self.beside_later(self.clock_ahead()).await
    }

    /// The same, with a clock that is so far ahead.
    pub async fn beside_later(&self, clock_ahead: Duration) -> Self {
        let setup = Setup { audit: None, fail_point: None, clock_ahead, ..self.setup.clone() };
        let broker = Self::start_with(setup, self.pki.clone());
        *broker.opening() = self.opening().clone();
        broker.unseal().await;
        broker
    }

    /// Initialises the store and keeps the shares and the root token.
    pub async fn init(&self) {
        let (shares, threshold) = self.setup.shares;
        let body = json!({ "secret_shares": shares, "secret_threshold": threshold });
        let made = self.admin().write("sys/init", body).await.ok();
        let keys = made["keys"].as_array().unwrap();
        *self.opening() = Opening {
            keys: keys.iter().map(|key| key.as_str().unwrap().to_owned()).collect(),
            root_token: made["root_token"].as_str().unwrap().to_owned(),
        };
    }

    /// Gives shares until it is unsealed.
    pub async fn unseal(&self) {
        let admin = self.admin();
        let keys = self.opening().keys.clone();
        for key in &keys {
            let status = admin.write("sys/unseal", json!({ "key": key })).await.ok();
            if status["sealed"] == json!(false) {
                return;
            }
        }
        panic!("all shares given and still sealed");
    }

    /// Gives one share, to a server that may end over it; whether it is unsealed then.
    pub async fn try_unseal(&self, key: &str) -> bool {
        let body = json!({ "key": key }).to_string();
        let given = self.admin().try_request("POST", "sys/unseal", &[], body.as_bytes()).await;
        given.is_ok_and(|answer| answer.status == 200 && answer.json()["sealed"] == json!(false))
    }

    /// The shares are these from now on.
    pub fn set_keys(&self, keys: Vec<String>) {
        self.opening().keys = keys;
    }

    /// How far its clock is ahead from the next start on.
    pub fn set_clock_ahead(&self, ahead: Duration) {
        *self.clock_ahead.lock().unwrap() = ahead;
    }

    /// What is added to its environment from the next start on.
    pub fn set_environment(&self, environment: Vec<(String, String)>) {
        *self.environment.lock().unwrap() = environment;
    }

    fn clock_ahead(&self) -> Duration {
        *self.clock_ahead.lock().unwrap()
    }

    fn opening(&self) -> MutexGuard<'_, Opening> {
        self.opening.lock().unwrap()
    }

    /// The shares, in hexadecimal.
    pub fn keys(&self) -> Vec<String> {
        self.opening().keys.clone()
    }

    /// The root token.
    pub fn root_token(&self) -> String {
        self.opening().root_token.clone()
    }

    /// A caller with the administrator's certificate, which entitles to nothing.
    pub fn admin(&self) -> Caller {
        self.caller(&self.pki.admin)
    }

    /// A caller with the root token.
    pub fn root(&self) -> Caller {
        self.admin().with_token(&self.root_token())
    }

    /// A caller with that certificate.
    pub fn caller(&self, leaf: &Issued) -> Caller {
        self.caller_with_chain(leaf, &[])
    }

    /// A caller with that certificate and the certificates of those authorities.
    pub fn caller_with_chain(&self, leaf: &Issued, chain: &[&Ca]) -> Caller {
        let client = Client::new(&self.pki.servers.der, &TLS13, Some((leaf, chain)));
        Caller::new(client, self.address)
    }

    /// A caller without certificate and token.
    pub fn nobody(&self) -> Caller {
        Caller::new(Client::new(&self.pki.servers.der, &TLS13, None), self.open_address)
    }

    /// A certificate with that SPIFFE path.
    pub fn svid(&self, path: &str) -> Issued {
        self.pki.clients.issue(&Spec::svid(&format!("spiffe://{DOMAIN}/{path}")))
    }

    /// The broker's directory.
    pub fn dir(&self) -> &Path {
        self.directory.path()
    }

    /// How it was set up.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Where the store and the like are.
    pub fn data_dir(&self) -> PathBuf {
        self.setup.data_dir.clone().unwrap_or_else(|| self.dir().join("data"))
    }

    /// The audit log.
    pub fn audit_path(&self) -> PathBuf {
        self.setup.audit.clone().unwrap_or_else(|| self.dir().join("audit.log"))
    }

    /// The entries of the audit log, oldest first.
    pub fn audit(&self) -> Vec<Value> {
        let log = fs::read(self.audit_path()).unwrap();
        // Of a group that is being written, a reader may see the beginning.
        let whole = log.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        let lines = log[..whole].split_inclusive(|byte| *byte == b'\n');
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }

    /// The one entry of a request.
    pub fn audited(&self, answer: &Answer) -> Value {
        let id = answer.header("x-request-id").expect("an answer names its request").to_owned();
        let all = self.audit();
        let mut found = all.into_iter().filter(|entry| entry["request_id"] == *id);
        let entry = found.next().unwrap_or_else(|| panic!("no entry of request {id}"));
        assert!(found.next().is_none(), "request {id} has two entries");
        entry
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir().join("log")).unwrap_or_default()
    }

    /// The process.
    pub fn pid(&self) -> i32 {
        let running = self.running.lock().unwrap();
        i32::try_from(running.as_ref().expect("it runs").server.id()).unwrap()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.pid()).unwrap(), signal).unwrap();
    }

    /// Ends it as a power cut would.
    pub fn kill(&self) {
        let running = self.running.lock().unwrap().take();
        drop(running);
    }

    /// Stops it in an orderly way.
    pub fn stop(&self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_for_end()
    }

    /// Waits until it has ended by itself.
    pub fn wait_for_end(&self) -> ExitStatus {
        let mut running = self.running.lock().unwrap().take().expect("it runs");
        let began = Instant::now();
        loop {
            if let Some(status) = running.server.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "the server does not end");
            std::thread::sleep(STEP);
        }
    }

    /// Starts it again on the same files, without a fail point; it is sealed.
    pub fn start_again(&self) {
        self.start_again_at(None);
    }

    /// The same where it may meet what keeps it from starting: whether it runs.
    pub fn try_start_again(&self) -> bool {
        self.kill();
        self.spawn(None)
    }

    /// The same with a fail point.
    pub fn start_again_at(&self, fail_point: Option<&str>) {
        self.kill();
        // While nobody listened there, an outgoing connection may have got the port for a moment.
        let began = Instant::now();
        let known = self.log().len();
        while !self.spawn(fail_point) {
            let log = self.log();
            let taken = log[known..].contains("cannot listen on") && began.elapsed() < PATIENCE;
            assert!(taken, "the server did not start again:\n{log}");
            std::thread::sleep(STEP);
        }
    }

    fn write_files(&self) {
        let shown = self.pki.servers.issue(&Spec::server());
        self.write("server.pem", &shown.pem());
        self.write("server.key", &shown.key_pem);
        self.write("clients.pem", &self.pki.clients.pem());
        self.write_crl(&[]);
        fs::create_dir_all(self.data_dir()).unwrap();
    }

    /// Writes the configured revocation list: certificates with these serial numbers are revoked.
    pub fn write_crl(&self, serials: &[&[u8]]) {
        let list = self.pki.clients.crl(serials, super::pki::NOT_AFTER_SECS);
        let fresh = self.dir().join("clients.crl.new");
        fs::write(&fresh, list).unwrap();
        fs::rename(fresh, self.dir().join("clients.crl")).unwrap();
    }

    /// Writes a file of the broker's directory, for the owner alone.
    pub fn write(&self, name: &str, text: &str) {
        use std::os::unix::fs::OpenOptionsExt;
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(self.dir().join(name)).unwrap();
        io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    }

    fn write_config(&self) {
        let setup = &self.setup;
        let path = |name: &str| self.dir().join(name).display().to_string();
        let mut text = format!(
            "[server]\ndata_dir = {:?}\nlog_format = \"json\"\nlock_memory = false\n{}\n",
            self.data_dir(),
            setup.server
        );
        if !setup.server.contains("log_level") {
            text += "log_level = \"trace\"\n";
        }
        for (name, address, mode) in
            [("api", self.address, "required"), ("open", self.open_address, "optional")]
        {
            let (certificate, key) = (path("server.pem"), path("server.key"));
            write!(
                text,
                "[[listener]]\nname = {name:?}\naddress = \"{address}\"\n\
                 certificate = {certificate:?}\nkey = {key:?}\nclient_certificate = {mode:?}\n"
            )
            .unwrap();
        }
        write!(
            text,
            "[[trust]]\nname = \"clients\"\ntrust_domain = \"{DOMAIN}\"\nbundle = {:?}\n\
             crls = [{:?}]\n[[seal]]\ntype = \"shamir\"\n[[audit]]\ntype = \"file\"\n\
             name = \"file\"\npath = {:?}\n",
            path("clients.pem"),
            path("clients.crl"),
            self.audit_path(),
        )
        .unwrap();
        if let Some(sync) = setup.audit_sync {
            writeln!(text, "sync = {sync:?}").unwrap();
        }
        text += "[storage]\n";
        match &setup.postgres {
            Some(url) => {
                self.write("database-url", url);
                write!(text, "type = \"postgresql\"\nurl_file = {:?}\n", path("database-url"))
                    .unwrap();
            }
            None => text += "type = \"sqlite\"\n",
        }
        text += &setup.tables;
        self.write("leasehold.toml", &text);
    }

    /// Starts the process; whether it came to answer before it ended.
    fn spawn(&self, fail_point: Option<&str>) -> bool {
        let log = File::options().create(true).append(true).open(self.dir().join("log")).unwrap();
        let mut command = Command::new(program());
        command.args(["server", "--config"]).arg(self.dir().join("leasehold.toml"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        if let Some(point) = fail_point {
            command.env("LEASEHOLD_FAIL_POINT", point);
        }
        command.envs(self.environment.lock().unwrap().clone());
        let ahead = self.clock_ahead();
        if !ahead.is_zero() {
            command.env("LEASEHOLD_CLOCK_AHEAD_SECS", ahead.as_secs().to_string());
        }
        let server = command.spawn().unwrap();
        let watchdog = Command::new("/bin/sh")
            .args(["-c", WATCHDOG, "broker-watchdog", &server.id().to_string()])
            .arg(self.dir())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut running = Running { server, watchdog };
        let began = Instant::now();
        while TcpStream::connect(self.open_address).is_err() {
            if running.server.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(began.elapsed() < PATIENCE, "the server does not start:\n{}", self.log());
            std::thread::sleep(STEP);
        }
        // Somebody else may be listening there.
        if running.server.try_wait().unwrap().is_some() {
            return false;
        }
        *self.running.lock().unwrap() = Some(running);
        true
    }
}

/// What is started: `LEASEHOLD_PROGRAM`, a release or something that watches one, or else what was
/// built with the tests.
fn program() -> OsString {
    std::env::var_os("LEASEHOLD_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_leasehold").into())
}

/// Somebody with a connection to a broker. Requests follow each other on it.
pub struct Caller {
    client: Client,
    address: SocketAddr,
    token: Option<String>,
    stream: tokio::sync::Mutex<Option<TlsStream<tokio::net::TcpStream>>>,
}

impl Caller {
    /// Comes as `client` to `address`.
    pub fn new(client: Client, address: SocketAddr) -> Self {
        Self { client, address, token: None, stream: tokio::sync::Mutex::default() }
    }

    /// The same with a token.
    pub fn with_token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// Its token.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// GET.
    pub async fn read(&self, path: &str) -> Answer {
        self.send("GET", path, None).await
    }

    /// LIST.
    pub async fn list(&self, path: &str) -> Answer {
        self.send("LIST", path, None).await
    }

    /// POST.
    pub async fn write(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, Some(body)).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, None).await
    }

    /// PATCH with a merge patch.
    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        let headers = [("content-type", "application/merge-patch+json")];
        self.request("PATCH", path, &headers, body.to_string().as_bytes()).await
    }

    async fn send(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        self.request(method, path, &[], body.as_bytes()).await
    }

    /// Any request below `/v1/`.
    pub async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let outcome = self.try_request(method, path, headers, body).await;
        outcome.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// The same; an error when the connection cannot be made or breaks. Nothing is sent twice.
    pub async fn try_request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        let mut head = format!("{method} /v1/{path} HTTP/1.1\r\nhost: test\r\n");
        if let Some(token) = &self.token {
            write!(head, "x-vault-token: {token}\r\n").unwrap();
        }
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        write!(head, "content-length: {}\r\n\r\n", body.len()).unwrap();
        self.try_raw(&[head.as_bytes(), body].concat()).await
    }

    /// Sends these bytes and reads one answer.
    pub async fn raw(&self, bytes: &[u8]) -> Answer {
        self.try_raw(bytes).await.unwrap()
    }

    /// The same; an error when the connection cannot be made or breaks.
    pub async fn try_raw(&self, bytes: &[u8]) -> io::Result<Answer> {
        let mut place = self.stream.lock().await;
        let mut stream = match place.take() {
            Some(stream) => stream,
            None => self.client.connect(self.address).await?,
        };
        stream.write_all(bytes).await?;
        stream.flush().await?;
        let answer = answer(&mut stream).await?;
        if answer.header("connection") != Some("close") {
            *place = Some(stream);
        }
        Ok(answer)
    }

    /// Lets go of the connection; the next request makes a new one.
    pub async fn hang_up(&self) {
        self.stream.lock().await.take();
    }

    /// Comes with a certificate that the handshake refuses; answers how it said so.
    pub async fn refused(&self) -> io::Error {
        self.client.refused(self.address).await
    }
}

impl Answer {
    /// The value of a header, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The body of a success, as JSON; `Null` where there is none.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert!((200..300).contains(&self.status), "{} {}", self.status, self.body);
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// The `data` of a success.
    #[track_caller]
    pub fn data(&self) -> Value {
        self.ok()["data"].clone()
    }

    /// The text of a refusal with that status.
    #[track_caller]
    pub fn error(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.body);
        let body = self.json();
        let errors = body["errors"].as_array().expect("a refusal says why");
        errors.iter().map(|one| one.as_str().unwrap()).collect::<Vec<_>>().join("; ")
    }
}
