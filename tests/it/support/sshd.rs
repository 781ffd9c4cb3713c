//! A private, real OpenSSH server, and its client: own keys, own port, gone with the test.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// What clients call the machine.
pub const HOST: &str = "db.test.example";
/// Who logs in: the one account that is sure to exist.
pub const USER: &str = "root";
const PROGRAM: &str = "/usr/sbin/sshd";
/// Longest wait for the server to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// Ends the server when this test process is gone, however it went.
const WATCHDOG: &str = r#"
    cat >/dev/null
    kill -KILL "$1" 2>/dev/null
"#;

/// One server.
pub struct TestSshd {
    directory: TempDir,
    port: u16,
    running: Option<(Child, Child)>,
}

impl Drop for TestSshd {
    fn drop(&mut self) {
        if let Some((server, watchdog)) = &mut self.running {
            // The watchdog first: once the server is gone, its number may be somebody else's.
            let _ = watchdog.kill();
            let _ = watchdog.wait();
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// How a try to log in went.
pub struct Login {
    /// Whether the command was run.
    pub succeeded: bool,
    /// What it wrote.
    pub output: String,
    /// What the client says.
    pub messages: String,
}

impl TestSshd {
    /// A server with a new host key that nobody vouches for yet. It is started later.
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("leasehold-sshd-").tempdir().unwrap();
        let new = Self { directory, port: 0, running: None };
        new.make_key("host_key", &["-t", "ed25519"]);
        new
    }

    /// A file of its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file that only root may read, as `ssh` demands of keys.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Makes a key pair with `ssh-keygen` and answers the public half.
    pub fn make_key(&self, name: &str, arguments: &[&str]) -> String {
        let path = self.path(name);
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-N", "", "-C", ""]).args(arguments).arg("-f").arg(&path);
        succeed(command.output().unwrap());
        fs::read_to_string(path.with_extension("pub")).unwrap().trim().to_owned()
    }

    /// The public half of the host key.
    pub fn host_key(&self) -> String {
        fs::read_to_string(self.path("host_key.pub")).unwrap()
    }

    /// Starts it: it shows this certificate, and lets in whom one of these authorities vouches for.
    pub fn start(&mut self, host_certificate: &str, authorities: &[String]) {
        self.write("host_key-cert.pub", host_certificate);
        self.write("authorities", &(authorities.join("\n") + "\n"));
        self.write("revoked", "");
        // Where the package's own service has it made at each start.
        fs::create_dir_all("/run/sshd").unwrap();
        // Between finding a port free and taking it, another process may have taken it.
        for _ in 0..4 {
            self.port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
            if self.try_start() {
                return;
            }
        }
        panic!("sshd did not start:\n{}", self.log());
    }

    fn try_start(&mut self) -> bool {
        let dir = self.directory.path().display();
        let config = self.write(
            "sshd_config",
            &format!(
                "ListenAddress 127.0.0.1:{}\nHostKey {dir}/host_key\n\
                 HostCertificate {dir}/host_key-cert.pub\nTrustedUserCAKeys {dir}/authorities\n\
                 RevokedKeys {dir}/revoked\n\
                 AuthenticationMethods publickey\nAuthorizedKeysFile none\nPermitRootLogin yes\n\
                 UsePAM no\nPidFile none\nLogLevel VERBOSE\nMaxStartups 100\n",
                self.port
            ),
        );
        let log = fs::File::create(self.path("log")).unwrap();
        let mut server = Command::new(PROGRAM)
            .args(["-D", "-e", "-f"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "sh", &server.id().to_string()])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if server.try_wait().unwrap().is_some() {
                self.running = Some((server, watchdog));
                return false;
            }
            assert!(began.elapsed() < PATIENCE, "sshd does not start:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        self.running = Some((server, watchdog));
        true
    }

    /// Gives the server another list of what is revoked.
    pub fn revoke(&self, list: &[u8]) {
        fs::write(self.path("revoked"), list).unwrap();
    }

    /// What `ssh-keygen` finds in that list: whether these certificates are revoked, one after the
    /// other, and all that is on it.
    pub fn revoked(&self, certificates: &[&str]) -> (Vec<bool>, String) {
        let query = |arguments: &[&str]| {
            let mut command = Command::new("ssh-keygen");
            command.arg("-Q").args(arguments).arg("-f").arg(self.path("revoked"));
            command
        };
        let one = |certificate: &&str| {
            let path = self.write("asked-cert.pub", certificate);
            let told = query(&[]).arg(path).output().unwrap();
            let text = String::from_utf8_lossy(&told.stdout).into_owned();
            assert!(text.contains(if told.status.success() { "ok" } else { "REVOKED" }), "{text}");
            !told.status.success()
        };
        let found = certificates.iter().map(one).collect();
        (found, succeed(query(&["-l"]).output().unwrap()))
    }

    /// What the server logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    /// Logs in with this key and certificate, taking a host for whom `host_authority` vouches, and
    /// runs a command.
    pub fn log_in(
        &self,
        key: &Path,
        certificate: &str,
        host_authority: &str,
        arguments: &[&str],
    ) -> Login {
        let certificate = self.write("user-cert.pub", certificate);
        let pattern = HOST.split_once('.').unwrap().1;
        let line = format!("@cert-authority *.{pattern} {host_authority}\n");
        let known_hosts = self.write("known_hosts", &line);
        let option = |name: &str, path: &Path| format!("{name}={}", path.display());
        let output = Command::new("ssh")
            .args(["-F", "none", "-p", &self.port.to_string(), "-i"])
            .arg(key)
            .args(["-o", &option("CertificateFile", &certificate)])
            .args(["-o", &option("UserKnownHostsFile", &known_hosts)])
            .args(["-o", "GlobalKnownHostsFile=none", "-o", "StrictHostKeyChecking=yes"])
            .args(["-o", &format!("HostKeyAlias={HOST}"), "-o", "BatchMode=yes"])
            .args(["-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"])
            .args(["-o", "ConnectTimeout=20"])
            .arg(format!("{USER}@127.0.0.1"))
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        Login {
            succeeded: output.status.success(),
            output: String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            messages: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// What `ssh-keygen` says of a certificate.
    pub fn shown(&self, certificate: &str) -> String {
        let path = self.write("shown-cert.pub", certificate);
        succeed(Command::new("ssh-keygen").arg("-L").arg("-f").arg(path).output().unwrap())
    }

    /// The fingerprint of a public key.
    pub fn fingerprint(&self, public_key: &str) -> String {
        let path = self.write("shown.pub", public_key);
        let shown = succeed(Command::new("ssh-keygen").arg("-lf").arg(path).output().unwrap());
        shown.split(' ').nth(1).unwrap().to_owned()
    }

    /// The public half of a private key, as `ssh-keygen` computes it.
    pub fn public_half(&self, name: &str) -> String {
        let mut command = Command::new("ssh-keygen");
        succeed(command.arg("-y").arg("-f").arg(self.path(name)).output().unwrap()).trim().into()
    }
}

fn succeed(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
