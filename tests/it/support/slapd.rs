//! A private, real directory: OpenLDAP's slapd on its own ports, gone when the test process is gone.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use tempfile::TempDir;

use super::pki::{Ca, Spec};
use super::wire::free_addresses;

/// Where everything is.
pub const BASE: &str = "dc=example,dc=org";
/// The account that searches, and its password.
pub const BROKER: (&str, &str) = ("cn=broker,dc=example,dc=org", "broker-very-secret");
const ADMIN: (&str, &str) = ("cn=admin,dc=example,dc=org", "admin-very-secret");

const PROGRAM: &str = "/usr/sbin/slapd";

/// Stops the server once standard input ends: when it is closed on purpose, and when this process is
/// gone, however it went.
const WATCHDOG: &str = r#"
    "$1" -f "$2/slapd.conf" -h "$3" -d stats >>"$2/log" 2>&1 </dev/null &
    cat >/dev/null
    kill -TERM $! 2>/dev/null
    wait $!
    [ -e "$2/keep" ] || rm -rf "$2"
"#;

/// Who may see what: people are for everybody to search, groups are not.
const ACCESS: &str = r#"
access to attrs=userPassword by anonymous auth by * none
access to dn.subtree="ou=groups,dc=example,dc=org"
    by dn.exact="cn=broker,dc=example,dc=org" read by users read by * none
access to * by * read
limits dn.exact="cn=broker,dc=example,dc=org" size=20 size.pr=20 size.prtotal=unlimited
"#;

const ENTRIES: &str = r#"
dn: dc=example,dc=org
objectClass: dcObject
objectClass: organization
o: Example
dc: example

dn: cn=broker,dc=example,dc=org
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: broker
userPassword: broker-very-secret

dn: ou=people,dc=example,dc=org
objectClass: organizationalUnit
ou: people

dn: ou=others,ou=people,dc=example,dc=org
objectClass: organizationalUnit
ou: others

dn: ou=groups,dc=example,dc=org
objectClass: organizationalUnit
ou: groups
"#;

/// One directory.
pub struct Slapd {
    directory: TempDir,
    port: u16,
    tls_port: u16,
    running: Mutex<Option<Watchdog>>,
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

impl Slapd {
    /// A directory whose certificate is signed by `ca`, which also signs those of its clients.
    pub fn start(ca: &Ca) -> Self {
        assert!(
            Path::new(PROGRAM).exists(),
            "these tests need OpenLDAP: `apt-get install slapd ldap-utils` (Debian, Ubuntu)"
        );
        let directory = tempfile::Builder::new().prefix("leasehold-slapd-").tempdir().unwrap();
        let mut server = Self { directory, port: 0, tls_port: 0, running: Mutex::new(None) };
        let shown = ca.issue(&Spec::server());
        for (name, text) in [
            ("ca.pem", ca.pem()),
            ("server.pem", shown.pem()),
            ("server.key", shown.key_pem),
            ("entries.ldif", ENTRIES.trim_start().to_owned()),
            ("slapd.conf", server.config()),
        ] {
            fs::write(server.path(name), text).unwrap();
        }
        fs::create_dir(server.path("data")).unwrap();
        let mut add = Command::new(PROGRAM);
        // slapd is slapadd when it is called so.
        add.arg("-Ta").arg("-f").arg(server.path("slapd.conf"));
        add.arg("-l").arg(server.path("entries.ldif"));
        succeed(add.output().unwrap(), "slapadd");
        // Between finding a port free and taking it, another process may have taken it.
        for _ in 0..3 {
            [server.port, server.tls_port] = free_addresses().map(|address| address.port());
            if server.start_on_ports() {
                return server;
            }
        }
        panic!("slapd did not start:\n{}", server.log());
    }

    fn config(&self) -> String {
        let schemas: String = ["core", "cosine", "nis", "inetorgperson"]
            .iter()
            .map(|name| format!("include /etc/ldap/schema/{name}.schema\n"))
            .collect();
        let path = |name: &str| self.path(name).display().to_string();
        format!(
            "{schemas}\
             attributetype ( 1.2.840.113556.1.4.656 NAME 'userPrincipalName' \
             EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 SINGLE-VALUE )\n\
             objectclass ( 1.3.6.1.4.1.4203.666.11.1 NAME 'principal' SUP top AUXILIARY \
             MAY userPrincipalName )\n\
             attributetype ( 1.2.840.113556.1.4.146 NAME 'objectSid' EQUALITY octetStringMatch \
             SYNTAX 1.3.6.1.4.1.1466.115.121.1.40 SINGLE-VALUE )\n\
             attributetype ( 1.2.840.113556.1.4.1301 NAME 'tokenGroups' \
             EQUALITY octetStringMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.40 )\n\
             objectclass ( 1.3.6.1.4.1.4203.666.11.2 NAME 'securityPrincipal' SUP top AUXILIARY \
             MAY ( objectSid $ tokenGroups ) )\n\
             modulepath /usr/lib/ldap\nmoduleload back_mdb\nmoduleload memberof\n\
             TLSCACertificateFile {ca}\nTLSCertificateFile {certificate}\n\
             TLSCertificateKeyFile {key}\nTLSVerifyClient try\npidfile {pid}\n\
             database mdb\nmaxsize 33554432\nsuffix \"{BASE}\"\nrootdn \"{admin}\"\n\
             rootpw {password}\ndirectory {data}\ndbnosync\noverlay memberof\n{ACCESS}",
            ca = path("ca.pem"),
            certificate = path("server.pem"),
            key = path("server.key"),
            pid = path("pid"),
            admin = ADMIN.0,
            password = ADMIN.1,
            data = path("data"),
        )
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn start_on_ports(&self) -> bool {
        let _ = fs::remove_file(self.path("keep"));
        let urls = format!("ldap://127.0.0.1:{}/ ldaps://127.0.0.1:{}/", self.port, self.tls_port);
        let known = self.log().len();
        let mut child = Command::new("/bin/sh")
            .args(["-c", WATCHDOG, "slapd-watchdog", PROGRAM])
            .arg(self.directory.path())
            .arg(urls)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let watchdog = Watchdog { child, stdin };
        for _ in 0..600 {
            // Its own word. A probe of the port could reach somebody else's server.
            let log = self.log();
            if log[known..].contains("slapd starting") && self.answers() {
                *self.running.lock().unwrap() = Some(watchdog);
                return true;
            }
            if log[known..].contains("daemon: bind(") || log[known..].contains("slapd stopped") {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        fs::write(self.path("keep"), "").unwrap();
        false
    }

    fn answers(&self) -> bool {
        [self.port, self.tls_port]
            .iter()
            .all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok())
    }

    /// Stops it; the entries stay for [`Slapd::start_again`].
    pub fn stop(&self) {
        fs::write(self.path("keep"), "").unwrap();
        let running = self.running.lock().unwrap().take();
        assert!(running.is_some(), "the directory does not run");
    }

    /// Starts it on the same ports.
    pub fn start_again(&self) {
        assert!(self.start_on_ports(), "slapd did not start again:\n{}", self.log());
    }

    /// Host and port, for `ldap://`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Host and port, for `ldaps://`.
    pub fn tls_address(&self) -> String {
        format!("127.0.0.1:{}", self.tls_port)
    }

    /// What it has logged: each operation, and by whom.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Changes entries by LDIF with change types; entries without one are added.
    pub fn change(&self, ldif: &str) {
        let mut child = Command::new("ldapmodify")
            .args(["-a", "-x", "-H", &format!("ldap://{}", self.address())])
            .args(["-D", ADMIN.0, "-w", ADMIN.1])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("these tests need ldapmodify: `apt-get install ldap-utils` (Debian, Ubuntu)");
        child.stdin.take().unwrap().write_all(ldif.as_bytes()).unwrap();
        succeed(child.wait_with_output().unwrap(), "ldapmodify");
    }

    /// Adds a person below `ou=people`, whose first relative name and attributes are these. Values are
    /// written as they are into LDIF; the password is the text with `-secret` behind `uid`.
    pub fn person(&self, rdn: &str, uid: &str, further: &str) {
        self.change(&format!(
            "dn: {rdn},ou=people,{BASE}\nobjectClass: inetOrgPerson\nobjectClass: principal\n\
             cn: {uid}\nsn: x\nuid: {uid}\nuserPassword: {uid}-secret\n{further}\n"
        ));
    }

    /// Adds a group with these members, by the names of their entries.
    pub fn group(&self, name: &str, members: &[&str]) {
        let members: String = members.iter().map(|dn| format!("member: {dn}\n")).collect();
        self.change(&format!(
            "dn: cn={name},ou=groups,{BASE}\nobjectClass: groupOfNames\ncn: {name}\n{members}\n"
        ));
    }
}

impl Drop for Slapd {
    fn drop(&mut self) {
        drop(self.running.get_mut().unwrap().take());
    }
}

fn succeed(output: std::process::Output, what: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what} failed: {error}");
}
