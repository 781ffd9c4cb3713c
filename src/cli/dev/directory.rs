//! The files of a development broker.

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::broker::Storage;
use crate::cli::ca::{Authority, Subject, TRUST_DOMAIN, write_private};
use crate::cli::error::CliError;
use crate::types::secret::SecretString;
use crate::types::time::{Clock, SystemClock, Ttl};

/// How long the certificates made here are valid; a start after that makes none anew.
const CERT_TTL: Ttl = Ttl::from_secs(365 * 86_400);

/// A directory, readable by its owner alone, with everything one development broker needs.
pub(super) struct Directory(PathBuf);

impl Directory {
    /// Makes what is missing: the directory, the authority, the clients' certificates. The server's
    /// certificate is made anew each time, for the address it listens on now.
    pub(super) fn prepare(path: &Path, listen: SocketAddr) -> Result<Self, CliError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .and_then(|()| path.canonicalize())
            .map_err(CliError::system(format!("cannot make {}", path.display())))
            .map(Self)
            .and_then(|this| {
                let authority = this.authority()?;
                this.client(&authority, "admin")?;
                this.client(&authority, "workload")?;
                let names: Vec<String> = (!listen.ip().is_unspecified())
                    .then(|| listen.ip().to_string())
                    .into_iter()
                    .collect();
                authority.server(&names, CERT_TTL, SystemClock.now())?.save(&this.0, "server")?;
                Ok(this)
            })
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn authority(&self) -> Result<Authority, CliError> {
        if self.file("ca.pem").exists() {
            return Ok(Authority::load(&self.0)?);
        }
        let authority = Authority::create(SystemClock.now())?;
        authority.save(&self.0)?;
        Ok(authority)
    }

    /// `admin.pem` or `workload.pem`: the last segment of its SPIFFE ID is `dev`.
    fn client(&self, authority: &Authority, name: &str) -> Result<(), CliError> {
        if self.file(&format!("{name}.pem")).exists() {
            return Ok(());
        }
        let subject = Subject {
            uri: Some(format!("spiffe://{TRUST_DOMAIN}/{name}/dev")),
            common_name: Some(format!("{name}.dev")),
            ..Subject::default()
        };
        Ok(authority.client(&subject, CERT_TTL, SystemClock.now())?.save(&self.0, name)?)
    }

    /// The storage that is asked for, or that of the start before, or SQLite.
    pub(super) fn storage(&self, asked: Option<Storage>) -> Result<Storage, CliError> {
        let url = self.file("storage-url");
        match asked {
            Some(storage) => Ok(storage),
            None if url.exists() => std::fs::read_to_string(&url)
                .map(|text| Storage::Postgres(SecretString::new(text)))
                .map_err(CliError::system(format!("cannot read {}", url.display()))),
            None => Ok(Storage::Sqlite),
        }
    }

    /// Writes `leasehold.toml`, which `leasehold server --config` takes as well, and returns it.
    pub(super) fn configure(
        &self,
        listen: SocketAddr,
        storage: &Storage,
    ) -> Result<PathBuf, CliError> {
        let file = |name: &str| toml_string(&self.file(name).display().to_string());
        let storage = match storage {
            Storage::Sqlite => "type = \"sqlite\"".to_owned(),
            Storage::Postgres(url) => {
                // It may hold a password, which belongs in no configuration.
                write_private(&self.file("storage-url"), url.expose().as_bytes())?;
                format!("type = \"postgresql\"\nurl_file = {}", file("storage-url"))
            }
        };
        let text = format!(
            "# Written by `leasehold dev` at each start.\n\
             [server]\ndata_dir = {data}\ncluster_name = \"dev\"\nlog_level = \"warn\"\n\
             lock_memory = false\n\n\
             [[listener]]\naddress = {address}\ncertificate = {cert}\nkey = {key}\n\n\
             [[trust]]\ntrust_domain = {domain}\nbundle = {ca}\n\n\
             [storage]\n{storage}\n\n\
             [[seal]]\ntype = \"shamir\"\n\n\
             [[audit]]\ntype = \"file\"\nname = \"file\"\npath = {audit}\n",
            data = toml_string(&self.0.display().to_string()),
            address = toml_string(&listen.to_string()),
            cert = file("server.pem"),
            key = file("server.key"),
            domain = toml_string(TRUST_DOMAIN),
            ca = file("ca.pem"),
            audit = file("audit.log"),
        );
        let path = self.file("leasehold.toml");
        write_private(&path, text.as_bytes())?;
        Ok(path)
    }

    /// Whether an earlier start left the keys of a store here.
    pub(super) fn has_keys(&self) -> bool {
        self.file("unseal-keys.json").exists()
    }

    /// Keeps what initialising answered.
    pub(super) fn keep_keys(&self, init: &Value, token: &str) -> Result<(), CliError> {
        let keys = json!({ "keys": init.get("keys"), "keys_base64": init.get("keys_base64") });
        let text = SecretString::new(format!("{keys:#}\n"));
        write_private(&self.file("unseal-keys.json"), text.expose().as_bytes())?;
        Ok(write_private(&self.file("root-token"), token.as_bytes())?)
    }

    /// The unseal shares.
    pub(super) fn keys(&self) -> Result<Vec<SecretString>, CliError> {
        let path = self.file("unseal-keys.json");
        let shown = path.display();
        let text = std::fs::read_to_string(&path)
            .map(SecretString::new)
            .map_err(CliError::system(format!("cannot read {shown}")))?;
        let json: Option<Value> = serde_json::from_str(text.expose()).ok();
        let keys: Vec<_> = json
            .as_ref()
            .and_then(|json| json.get("keys"))
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(|key| SecretString::new(key.to_owned()))
            .collect();
        if keys.is_empty() {
            return Err(CliError::local(
                format!("{shown} holds no keys"),
                "put the file back, or start over with another -dir",
            ));
        }
        Ok(keys)
    }

    /// The root token of the first start.
    pub(super) fn root_token(&self) -> Result<SecretString, CliError> {
        let path = self.file("root-token");
        std::fs::read_to_string(&path)
            .map(|text| SecretString::new(text.trim().to_owned()))
            .map_err(CliError::system(format!("cannot read {}", path.display())))
    }
}

/// A TOML basic string.
fn toml_string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::server::config::Config;

    const LISTEN: &str = "127.0.0.1:8200";

    fn prepared() -> (tempfile::TempDir, Directory) {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a \"b\" \\c");
        let directory = Directory::prepare(&path, LISTEN.parse().unwrap()).unwrap();
        (temp, directory)
    }

    #[test]
    fn the_written_configuration_is_one_that_the_server_takes() {
        let (_temp, directory) = prepared();
        let url = Storage::Postgres(SecretString::new("postgres://u:hunter2@h/db".to_owned()));
        for storage in [Storage::Sqlite, url] {
            let path = directory.configure(LISTEN.parse().unwrap(), &storage).unwrap();
            let text = std::fs::read_to_string(path).unwrap();
            assert!(!text.contains("hunter2"), "{text}");
            Config::parse(&text).unwrap();
        }
    }

    #[test]
    fn storage_stays_what_it_was_unless_another_is_asked_for() {
        let (_temp, directory) = prepared();
        assert!(matches!(directory.storage(None).unwrap(), Storage::Sqlite));
        let url = Storage::Postgres(SecretString::new("postgres://h/db".to_owned()));
        directory.configure(LISTEN.parse().unwrap(), &url).unwrap();
        let Storage::Postgres(kept) = directory.storage(None).unwrap() else { panic!("forgotten") };
        assert_eq!(kept.expose(), "postgres://h/db");
        let asked = directory.storage(Some(Storage::Sqlite)).unwrap();
        assert!(matches!(asked, Storage::Sqlite));
    }

    #[test]
    fn a_second_start_keeps_the_authority_and_its_clients() {
        let (_temp, directory) = prepared();
        let all = ["ca.pem", "ca.key", "admin.pem", "admin.key", "workload.pem", "workload.key"];
        let read = || all.map(|name| std::fs::read(directory.file(name)).unwrap());
        let first = read();
        Directory::prepare(directory.path(), LISTEN.parse().unwrap()).unwrap();
        assert_eq!(first, read());
        for name in all {
            let mode = std::fs::metadata(directory.file(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn keys_come_back_as_they_were_kept() {
        let (_temp, directory) = prepared();
        assert!(!directory.has_keys());
        directory.keep_keys(&json!({"keys": ["aa", "bb"], "keys_base64": []}), "root").unwrap();
        let keys: Vec<_> =
            directory.keys().unwrap().iter().map(|key| key.expose().to_owned()).collect();
        assert_eq!(keys, ["aa", "bb"]);
        assert_eq!(directory.root_token().unwrap().expose(), "root");
    }
}
