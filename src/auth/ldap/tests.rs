use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::auth::scratch::{Call, answered, granted};
use crate::core::scratch::{Scratch, ScratchMount};

struct Mount {
    method: LdapMethod,
    mount: ScratchMount,
    _scratch: Scratch,
}

impl Mount {
    fn new(hosts: &[String]) -> Self {
        let scratch = Scratch::new();
        Self {
            method: LdapMethod::new(DirectoryHosts::new(hosts)),
            mount: ScratchMount::new(&scratch, "auth/ldap/"),
            _scratch: scratch,
        }
    }

    /// With a directory at this address that is searched by nobody.
    async fn at(address: SocketAddr) -> Self {
        let mount = Self::new(&[address.to_string()]);
        let url = format!("ldap://{address}");
        let config = json!({
            "url": url, "userdn": "dc=x", "userattr": "uid", "discoverdn": true,
            "connection_timeout": 1, "request_timeout": 1,
        });
        mount.write("config", config).await.unwrap();
        mount
    }

    async fn call(
        &self,
        operation: Operation,
        path: &str,
        body: Value,
    ) -> Result<AuthOutcome, CoreError> {
        Call::new(operation, path, body).to(&self.method, &self.mount).await
    }

    async fn write(&self, path: &str, body: Value) -> Result<(), CoreError> {
        self.call(Operation::Update, path, body).await.map(|_| ())
    }

    async fn read(&self, path: &str) -> Result<Value, CoreError> {
        Ok(answered(self.call(Operation::Read, path, json!({})).await?))
    }

    async fn login(&self, name: &str) -> Result<Grant, CoreError> {
        let body = json!({ "password": "secret" });
        Ok(granted(self.call(Operation::Update, &format!("login/{name}"), body).await?))
    }
}

fn hosts() -> Vec<String> {
    vec!["dc.example.org".to_owned(), "127.0.0.1".to_owned()]
}

fn config() -> Value {
    json!({
        "url": "ldap://127.0.0.1", "userdn": "ou=people,dc=example", "userattr": "uid",
        "binddn": "cn=broker", "bindpass": "very secret", "token_policies": "b,a",
    })
}

fn with(field: &str, value: Value) -> Value {
    let mut config = config();
    config[field] = value;
    config
}

#[tokio::test]
async fn a_configuration_is_read_back_without_its_secrets() {
    let mount = Mount::new(&hosts());
    assert!(matches!(mount.read("config").await, Err(CoreError::NotFound)));
    mount.write("config", config()).await.unwrap();
    let shown = mount.read("config").await.unwrap();
    assert_eq!(shown["userfilter"], json!("({{.UserAttr}}={{.Username}})"));
    assert_eq!(shown["token_policies"], json!(["a", "b"]));
    assert_eq!(shown["deny_null_bind"], json!(true));
    assert_eq!((&shown["connection_timeout"], &shown["request_timeout"]), (&json!(10), &json!(30)));
    assert!(!shown.to_string().contains("very secret") && shown.get("bindpass").is_none());
    // What is left out stays, and nothing stands for what is usual.
    let body = json!({ "groupdn": "ou=groups", "userattr": "", "token_ttl": 60 });
    mount.write("config", body).await.unwrap();
    let shown = mount.read("config").await.unwrap();
    assert_eq!((&shown["userattr"], &shown["binddn"]), (&json!("cn"), &json!("cn=broker")));
    // Every field that is shown is in the table, and the other way round, but for secrets.
    let route = routes::ROUTES.iter().find(|route| route.name == "ldap-config").unwrap();
    let shown: BTreeSet<&str> = shown.as_object().unwrap().keys().map(String::as_str).collect();
    let crate::core::route::Answer::Data(fields) = route.answers.read else { panic!() };
    assert_eq!(shown, fields.iter().map(|field| field.name).collect());
    assert!(shown.iter().all(|name| route.knows_field(name)));
}

#[tokio::test]
async fn what_is_unsafe_or_makes_no_sense_is_refused_by_field() {
    let mount = Mount::new(&hosts());
    let tls = "ldaps://127.0.0.1";
    for (field, value) in [
        ("url", json!("")),
        ("url", json!("ldap://evil.example")),
        // In clear, but not to this machine.
        ("url", json!("ldap://dc.example.org")),
        ("insecure_tls", json!(true)),
        ("deny_null_bind", json!(false)),
        ("bindpass", json!("")),
        ("userdn", json!("")),
        ("userdn", json!("dc=\n")),
        ("userattr", json!("uid)(x")),
        ("groupattr", json!("c n")),
        ("userfilter", json!("(uid=x)")),
        ("userfilter", json!("(uid={{.Password}})")),
        ("groupdn", json!("x".repeat(1025))),
        ("upndomain", json!("example.org)")),
        ("certificate", json!("-----BEGIN CERTIFICATE-----")),
        ("client_tls_key", json!("x")),
        ("tls_min_version", json!("tls11")),
        ("tls_max_version", json!("tls10")),
        ("dereference_aliases", json!("sometimes")),
        ("request_timeout", json!("1h")),
        ("connection_timeout", json!(301)),
        ("max_page_size", json!(10_001)),
        ("token_policies", json!("root")),
    ] {
        let error = mount.write("config", with(field, value.clone())).await.unwrap_err();
        assert!(matches!(&error, CoreError::Field(e) if e.field == field), "{field}: {error}");
    }
    let filter = json!("(x");
    let body = json!({ "groupdn": "dc=x", "groupfilter": filter });
    let mut wrong = config();
    wrong.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    let error = mount.write("config", wrong).await.unwrap_err();
    assert!(matches!(&error, CoreError::Field(e) if e.field == "groupfilter"), "{error}");
    for (url, extra, field) in [
        (tls, json!({}), "certificate"),
        (tls, json!({ "certificate": "no PEM" }), "certificate"),
        ("ldap://dc.example.org", json!({ "starttls": true }), "certificate"),
        ("ldap://127.0.0.1,ldaps://127.0.0.1", json!({}), "url"),
    ] {
        let mut body = with("url", json!(url));
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let error = mount.write("config", body).await.unwrap_err();
        assert!(matches!(&error, CoreError::Field(e) if e.field == field), "{url}: {error}");
    }
    assert!(matches!(mount.read("config").await, Err(CoreError::NotFound)));
}

#[tokio::test]
async fn the_stored_password_is_not_sent_to_another_place() {
    let mount = Mount::new(&hosts());
    mount.write("config", config()).await.unwrap();
    for body in
        [json!({ "url": "ldap://127.0.0.1:389" }), json!({ "starttls": true, "certificate": "x" })]
    {
        let error = mount.write("config", body).await.unwrap_err();
        assert!(matches!(&error, CoreError::Field(e) if e.field == "bindpass"), "{error}");
    }
    let again = json!({ "url": "ldap://127.0.0.1:389", "bindpass": "very secret" });
    mount.write("config", again).await.unwrap();
    mount.write("config", json!({ "url": "ldap://127.0.0.1:389" })).await.unwrap();
}

#[tokio::test]
async fn names_have_one_spelling() {
    let mount = Mount::new(&hosts());
    let body = json!({ "policies": "p", "groups": "Ops Team,admins" });
    mount.write("users/ann", body.clone()).await.unwrap();
    mount.write("groups/ops team", json!({ "policies": ["b", "a", "b"] })).await.unwrap();
    assert_eq!(mount.read("groups/ops team").await.unwrap(), json!({ "policies": ["a", "b"] }));
    let user = json!({ "policies": ["p"], "groups": "Ops Team,admins" });
    assert_eq!(mount.read("users/ann").await.unwrap(), user);
    for path in ["users/Ann", "groups/Ops Team", "users/ann ", "users/a  b", "groups/\u{130}"] {
        let error = mount.write(path, json!({ "policies": "p" })).await.unwrap_err();
        assert!(matches!(&error, CoreError::Field(e) if e.field == "name"), "{path}: {error}");
    }
    for (body, field) in [
        (json!({ "policies": "root" }), "policies"),
        (json!({ "policies": "a b" }), "policies"),
        (json!({ "groups": ["x\n"] }), "groups"),
    ] {
        let error = mount.write("users/ann", body).await.unwrap_err();
        assert!(matches!(&error, CoreError::Field(e) if e.field == field), "{error}");
    }
    assert_eq!(mount.read("users/ann").await.unwrap(), user);
    mount.write("config", with("case_sensitive_names", json!(true))).await.unwrap();
    mount.write("users/Ann", body).await.unwrap();
    mount.call(Operation::Delete, "users/Ann", json!({})).await.unwrap();
    assert!(matches!(mount.read("users/Ann").await, Err(CoreError::NotFound)));
    // Failures count against one spelling all the same.
    for (path, claimed) in [("login/ÄNN", Some("änn")), ("users/ann", None)] {
        let call = Call::new(Operation::Update, path, json!({}));
        let claim = mount.method.claim(&call.request(&mount.method)).map(|claim| claim.alias);
        assert_eq!(claim.as_deref(), claimed);
    }
}

#[tokio::test]
async fn nothing_is_asked_for_what_cannot_be_right() {
    // Nobody listens there: whoever asked would fail otherwise.
    let mount = Mount::new(&["127.0.0.1:1".to_owned()]);
    let error = mount.login("ann").await.unwrap_err();
    assert!(matches!(error, CoreError::Invalid(_)), "{error}");
    mount.write("config", with("url", json!("ldap://127.0.0.1:1"))).await.unwrap();
    assert!(matches!(mount.login("ann").await, Err(CoreError::Upstream { .. })));
    for password in [json!(""), Value::Null, json!("x".repeat(1025))] {
        let error = mount.write("login/ann", json!({ "password": password })).await.unwrap_err();
        assert!(matches!(&error, CoreError::Field(e) if e.field == "password"), "{error}");
    }
    for name in [" ann", "ann ", "a  b", &"x".repeat(257)] {
        let error = mount.login(name).await.unwrap_err();
        assert!(matches!(error, CoreError::Denied { .. }), "{name:?}: {error}");
    }
    // What the configuration of the server allows counts when somebody logs in, too.
    let narrower = LdapMethod::new(DirectoryHosts::new(&[]));
    let call = Call::new(Operation::Update, "login/ann", json!({ "password": "x" }));
    let error = call.to(&narrower, &mount.mount).await.unwrap_err();
    assert!(error.to_string().contains("url"), "{error}");
}

/// A directory that answers everything with these bytes, again and again where `endless`.
async fn hostile(bytes: Vec<u8>, endless: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let bytes = bytes.clone();
            tokio::spawn(async move {
                let mut request = [0u8; 4096];
                while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                    while stream.write_all(&bytes).await.is_ok() && endless {}
                }
            });
        }
    });
    address
}

/// A message in answer to the first request.
fn message(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut writer = ber::Writer::default();
    writer.nested(ber::SEQUENCE, |message| {
        message.number(ber::INTEGER, 1);
        message.element(tag, content);
    });
    writer.finish().to_vec()
}

fn entry() -> Vec<u8> {
    let mut writer = ber::Writer::default();
    writer.octets(b"uid=ann,dc=x");
    writer.nested(ber::SEQUENCE, |_| {});
    message(0x64, &writer.finish())
}

#[tokio::test]
async fn a_directory_can_break_nothing_but_its_own_log_ins() {
    let deep = [0x30, 0x80].repeat(100_000);
    let nested = (0..400).fold(vec![4, 0], |inner, _| {
        let mut writer = ber::Writer::default();
        writer.element(0x30, &inner);
        writer.finish().to_vec()
    });
    for (what, bytes, endless, said) in [
        ("nothing", vec![], false, "in time"),
        ("text", b"220 mail.example.org ESMTP\r\n".to_vec(), false, "in LDAP"),
        ("zeros", vec![0; 4096], true, "in LDAP"),
        ("no end of levels", deep, true, "in LDAP"),
        ("levels", message(0x65, &nested), false, "in LDAP"),
        ("four gigabytes", vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff], true, "more than"),
        ("an indefinite length", vec![0x30, 0x80, 0, 0], false, "in LDAP"),
        ("half a message", vec![0x30, 0x10, 2, 1], false, "in time"),
        ("another's answer", vec![0x30, 5, 2, 1, 7, 0x65, 0], false, "in LDAP"),
        ("a notice", vec![0x30, 5, 2, 1, 0, 0x78, 0], false, "in LDAP"),
        ("an empty answer", message(0x65, &[]), false, "in LDAP"),
        ("another kind of answer", message(0x61, &[0x0a, 1, 0]), false, "in LDAP"),
        ("an entry of nothing", message(0x64, &[]), false, "in LDAP"),
        ("an entry that is no text", message(0x64, &[4, 1, 0xff, 0x30, 0]), false, "in LDAP"),
        ("entries without end", entry(), true, "more than"),
        ("references without end", message(0x73, &[4, 0]), true, "more than"),
        ("a referral", message(0x65, &[0x0a, 1, 10, 4, 0, 4, 0]), false, "result 10"),
        ("busy", message(0x65, &[0x0a, 1, 51, 4, 0, 4, 0]), false, "result 51"),
    ] {
        let mount = Mount::at(hostile(bytes, endless).await).await;
        let error = mount.login("ann").await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, CoreError::Upstream { .. }), "{what}: {text}");
        assert!(text.contains(said), "{what}: {text}");
    }
}
