//! The `ldap` method of a live broker against a real directory.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::future::join_all;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::support::broker::{Broker, Caller, Setup};
use crate::support::pki::{Ca, Spec};
use crate::support::slapd::{BASE, BROKER, Slapd};
use crate::support::wire::Answer;

const REFUSAL: &str = "invalid username or password";

/// A directory, and a broker that may ask it.
struct World {
    ca: Ca,
    directory: Slapd,
    broker: Broker,
    /// Takes connections and says nothing.
    silent: TcpListener,
    /// Refuses connections.
    dead: String,
}

impl World {
    async fn new() -> Self {
        let ca = Ca::root("directories");
        let (ca, directory) = tokio::task::spawn_blocking(move || {
            let directory = Slapd::start(&ca);
            populate(&directory);
            (ca, directory)
        })
        .await
        .unwrap();
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        // Nobody listens on port 1.
        let dead = "127.0.0.9:1".to_owned();
        let hosts = [
            directory.address(),
            directory.tls_address(),
            directory.address().replace("127.0.0.1", "localhost"),
            silent.local_addr().unwrap().to_string(),
            dead.clone(),
        ];
        let tables = format!("[auth]\nldap_hosts = {hosts:?}\n");
        let broker = Broker::ready(Setup { tables, ..Setup::default() }).await;
        Self { ca, directory, broker, silent, dead }
    }

    /// What a mount needs to search people over TLS.
    fn config(&self) -> Value {
        json!({
            "url": format!("ldaps://{}", self.directory.tls_address()),
            "certificate": self.ca.pem(),
            "binddn": BROKER.0,
            "bindpass": BROKER.1,
            "userdn": format!("ou=people,{BASE}"),
            "userattr": "uid",
            "groupdn": format!("ou=groups,{BASE}"),
            "token_policies": "everybody",
        })
    }

    /// A mount of its own with that configuration changed so.
    async fn mounted(&self, changes: Value) -> Mount<'_> {
        let root = self.broker.root();
        static LAST: AtomicU32 = AtomicU32::new(0);
        let path = format!("ldap{}", LAST.fetch_add(1, Ordering::Relaxed));
        root.write(&format!("sys/auth/{path}"), json!({ "type": "ldap" })).await.ok();
        let mount = Mount { world: self, path, root };
        mount.configure(self.config()).await;
        mount.configure(changes).await;
        mount
    }
}

struct Mount<'w> {
    world: &'w World,
    path: String,
    root: Caller,
}

impl Mount<'_> {
    async fn configure(&self, mut changes: Value) {
        if changes.get("binddn").is_none() {
            // Wherever the configuration leads, it has to be given again.
            changes["bindpass"] = json!(BROKER.1);
        }
        self.write("config", changes).await.ok();
    }

    async fn write(&self, path: &str, body: Value) -> Answer {
        self.root.write(&format!("auth/{}/{path}", self.path), body).await
    }

    async fn login(&self, name: &str, password: &str) -> Answer {
        let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
        let nobody = self.world.broker.nobody();
        let body = json!({ "password": password });
        nobody.write(&format!("auth/{}/login/{name}", self.path), body).await
    }

    /// What a log-in gives.
    async fn auth(&self, name: &str, password: &str) -> Value {
        self.login(name, password).await.ok()["auth"].clone()
    }

    async fn policies(&self, name: &str) -> Value {
        self.auth(name, &format!("{name}-secret")).await["token_policies"].clone()
    }

    /// Why a log-in was refused, which only the audit knows.
    async fn reason(&self, name: &str, password: &str) -> String {
        let answer = self.login(name, password).await;
        assert_eq!(answer.error(400), REFUSAL, "{name:?}");
        let entry = self.world.broker.audited(&answer);
        entry["outcome"]["reason"].as_str().unwrap().to_owned()
    }
}

fn dn(rdn: &str) -> String {
    format!("{rdn},ou=people,{BASE}")
}

fn populate(directory: &Slapd) {
    for uid in ["ann", "bob", "locked", "gone", "leaver", "Carl", "many", "a*b", "clubber"] {
        directory.person(&format!("uid={uid}"), uid, "");
    }
    directory.person(
        "uid=mia",
        "mia",
        "mail: Mia@example.org\nuserPrincipalName: mia@corp.example",
    );
    directory.person("uid=twin", "twin", "");
    directory.person("uid=twin,ou=others", "twin", "");
    directory.person("uid=two", "two", "uid: second");
    // Names that would be something else in a filter or in the name of an entry.
    directory.person("uid=eve)(uid\\=*", "eve)(uid=*", "");
    directory.person("uid=comma\\, plus\\+", "comma, plus+", "");
    let ann = dn("uid=ann");
    directory.group("admins", &[&ann]);
    directory.group("Ops Team", &[&ann, &dn("uid=bob"), &dn("uid=leaver"), &dn("uid=mia")]);
    directory.group("club", &[&dn("uid=clubber"), &ann]);
    directory.group("odd", &[&dn("uid=eve)(uid\\=*"), &dn("uid=comma\\, plus\\+")]);
    for n in 0..50 {
        directory.group(&format!("many-{n}"), &[&dn("uid=many")]);
    }
    directory.change(&format!(
        "dn: cn=unix,ou=groups,{BASE}\nobjectClass: posixGroup\ncn: unix\ngidNumber: 1\n\
         memberUid: bob\nmemberUid: *\n"
    ));
}

static SHARED: OnceCell<Arc<World>> = OnceCell::const_new();

async fn shared() -> Arc<World> {
    SHARED.get_or_init(|| async { Arc::new(World::new().await) }).await.clone()
}

#[tokio::test]
async fn people_are_who_the_directory_says() {
    let world = shared().await;
    let mount = world.mounted(json!({ "token_ttl": "1h" })).await;
    mount.write("groups/admins", json!({ "policies": ["administer"] })).await.ok();
    mount.write("groups/ops%20team", json!({ "policies": "operate" })).await.ok();
    mount.write("groups/local", json!({ "policies": "local" })).await.ok();
    mount.write("users/bob", json!({ "policies": "own", "groups": "Local" })).await.ok();
    let ann = mount.auth("Ann", "ann-secret").await;
    assert_eq!(ann["metadata"], json!({ "username": "ann" }));
    let policies = json!(["administer", "default", "everybody", "operate"]);
    assert_eq!(ann["token_policies"], policies);
    assert_eq!((&ann["lease_duration"], &ann["renewable"]), (&json!(3600), &json!(true)));
    let policies = json!(["default", "everybody", "local", "operate", "own"]);
    assert_eq!(mount.policies("bob").await, policies);
    // One person is one identity, however the name is spelled, and another one is another.
    let id = |auth: &Value| auth["entity_id"].as_str().unwrap().to_owned();
    assert_eq!(id(&mount.auth("ANN", "ann-secret").await), id(&ann));
    assert_ne!(id(&mount.auth("bob", "bob-secret").await), id(&ann));
    let entity = mount.root.read(&format!("identity/entity/id/{}", id(&ann))).await.data();
    assert_eq!(entity["aliases"][0]["name"], json!("ann"));
    // The same answer for all that is wrong; only the audit knows more.
    assert_eq!(mount.reason("ann", "bob-secret").await, "wrong password");
    assert_eq!(mount.reason("nobody", "x").await, "there is no such entry");
    assert_eq!(mount.reason("twin", "twin-secret").await, "more than one entry has that name");
    let two = mount.reason("two", "two-secret").await;
    assert!(two.contains("several values of userattr"), "{two}");
    for body in [json!({}), json!({ "password": "" })] {
        let path = format!("auth/{}/login/ann", mount.path);
        let answer = world.broker.nobody().write(&path, body).await;
        assert!(answer.error(400).contains("password"), "{}", answer.body);
    }
}

#[tokio::test]
async fn a_name_is_a_name_whatever_is_in_it() {
    let world = shared().await;
    let mount = world.mounted(json!({})).await;
    for name in [
        "*",
        "a*",
        "ann)(uid=*",
        "*)(objectClass=*",
        "ann)(|(uid=*",
        "\\61nn",
        "ann\\",
        "ann\\00",
        "uid=ann",
        "ann,ou=people",
        "(uid=ann)",
        "{{.UserDN}}",
        "&",
        "ann*",
    ] {
        assert_eq!(mount.reason(name, "ann-secret").await, "there is no such entry", "{name}");
    }
    for name in [" ann", "ann ", "ann\0", "ann\n"] {
        let answer = mount.login(name, "ann-secret").await;
        assert_eq!(answer.status, 400, "{name:?}: {}", answer.body);
    }
    // The directory takes these for "ann" as well. They would be further guesses, and identities.
    for name in ["\u{ff41}nn", "a\u{ad}nn", "\u{200b}ann", "ann\u{a0}"] {
        let reason = mount.reason(name, "ann-secret").await;
        assert!(
            ["there is no such entry", "the directory spells the name otherwise"]
                .contains(&reason.as_str()),
            "{name:?}: {reason}"
        );
    }
    // Who is really called so logs in, and is in the groups of that entry alone.
    mount.write("groups/odd", json!({ "policies": "odd" })).await.ok();
    mount.write("groups/unix", json!({ "policies": "unix" })).await.ok();
    assert_eq!(mount.policies("a*b").await, json!(["default", "everybody"]));
    assert_eq!(mount.policies("bob").await, json!(["default", "everybody", "unix"]));
    let odd = json!(["default", "everybody", "odd"]);
    assert_eq!(mount.policies("eve)(uid=*").await, odd);
    assert_eq!(mount.policies("comma, plus+").await, odd);
    // The same without a search, where the name becomes part of an entry's name.
    let direct = world.mounted(json!({ "binddn": "", "token_policies": "everybody" })).await;
    direct.write("groups/odd", json!({ "policies": "odd" })).await.ok();
    assert_eq!(direct.policies("ann").await, json!(["default", "everybody"]));
    assert_eq!(direct.policies("eve)(uid=*").await, odd);
    assert_eq!(direct.policies("comma, plus+").await, odd);
    for (name, reason) in [
        ("ann,ou=people", "wrong password"),
        ("ann+cn=ann", "wrong password"),
        ("*", "wrong password"),
        ("\u{e4}nn", "a name outside of ASCII, which is only found by a search"),
    ] {
        assert_eq!(direct.reason(name, "ann-secret").await, reason, "{name}");
    }
}

#[tokio::test]
async fn an_identity_has_one_name() {
    let world = shared().await;
    let filter = "(|({{.UserAttr}}={{.Username}})(mail={{.Username}}))";
    let mount = world.mounted(json!({ "userfilter": filter })).await;
    let id = async |mount: &Mount<'_>, name: &str, password: &str| {
        mount.auth(name, password).await["entity_id"].as_str().unwrap().to_owned()
    };
    let carl = id(&mount, "carl", "Carl-secret").await;
    assert_eq!(id(&mount, "CARL", "Carl-secret").await, carl);
    // By either attribute it is the same person, unless the name that is typed is to be the identity.
    let mia = id(&mount, "mia", "mia-secret").await;
    assert_eq!(id(&mount, "MIA@example.org", "mia-secret").await, mia);
    mount.configure(json!({ "username_as_alias": true })).await;
    assert_eq!(id(&mount, "mia", "mia-secret").await, mia);
    assert_ne!(id(&mount, "mia@example.org", "mia-secret").await, mia);
    // Where cases are told apart, the spelling is the directory's.
    mount.configure(json!({ "case_sensitive_names": true })).await;
    let reason = mount.reason("carl", "Carl-secret").await;
    assert_eq!(reason, "the directory spells the name otherwise");
    mount.login("Carl", "Carl-secret").await.ok();
    // Active Directory's names.
    let principal = json!({ "upndomain": "corp.example" });
    let mount = world.mounted(principal).await;
    assert_eq!(mount.auth("mia", "mia-secret").await["metadata"]["username"], json!("mia"));
    assert_eq!(mount.reason("ann", "ann-secret").await, "there is no such entry");
}

#[tokio::test]
async fn groups_are_found_in_every_way() {
    let world = shared().await;
    // By an attribute of the entry itself: distinguished names.
    let mount = world
        .mounted(json!({
            "groupdn": format!("ou=people,{BASE}"), "groupattr": "memberOf",
            "groupfilter": "(&(objectClass=inetOrgPerson)(uid={{.Username}}))",
        }))
        .await;
    mount.write("groups/ops%20team", json!({ "policies": "operate" })).await.ok();
    assert_eq!(mount.policies("bob").await, json!(["default", "everybody", "operate"]));
    // More than the directory gives at once.
    let mount = world.mounted(json!({})).await;
    let answer = mount.login("many", "many-secret").await;
    assert!(answer.error(502).contains("more than is taken"), "{}", answer.body);
    mount.configure(json!({ "max_page_size": 20 })).await;
    for n in [0, 25, 49] {
        let path = format!("groups/many-{n}");
        mount.write(&path, json!({ "policies": format!("p{n}") })).await.ok();
    }
    let policies = json!(["default", "everybody", "p0", "p25", "p49"]);
    assert_eq!(mount.policies("many").await, policies);
    // Without a service account: by who logs in, or by nobody, who may not see groups here.
    let anonymous = json!({ "binddn": "", "discoverdn": true });
    let mount = world.mounted(anonymous).await;
    mount.write("groups/ops%20team", json!({ "policies": "operate" })).await.ok();
    assert_eq!(mount.policies("bob").await, json!(["default", "everybody", "operate"]));
    mount.configure(json!({ "binddn": "", "anonymous_group_search": true })).await;
    let answer = mount.login("bob", "bob-secret").await;
    assert!(answer.error(502).contains("to search for groups"), "{}", answer.body);
    mount.configure(json!({ "binddn": "", "groupdn": "" })).await;
    assert_eq!(mount.policies("bob").await, json!(["default", "everybody"]));
}

/// A security identifier, as Active Directory keeps it: of one authority, with this number in it.
fn sid(number: u32) -> String {
    let mut bytes = vec![1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0];
    bytes.extend(number.to_le_bytes());
    data_encoding::BASE64.encode(&bytes)
}

#[tokio::test]
async fn token_groups_are_those_that_the_directory_names() {
    let world = shared().await;
    let groups = format!("ou=groups,{BASE}");
    // Named by identifiers, also of groups that hold her by way of others; one is nowhere to be found,
    // and one group that names her as its member is not among them.
    let own: String = [7, 8, 42].map(|n| format!("tokenGroups:: {}\n", sid(n))).concat();
    let further = format!("objectClass: securityPrincipal\n{}", own.trim_end());
    world.directory.person("uid=tess", "tess", &further);
    for (name, number, member) in [("sid-7", 7, "ann"), ("sid-8", 8, "bob"), ("sid-9", 9, "tess")] {
        world.directory.change(&format!(
            "dn: cn={name},{groups}\nobjectClass: groupOfNames\nobjectClass: securityPrincipal\n\
             cn: {name}\nmember: {member}\nobjectSid:: {sid}\n\n",
            member = dn(&format!("uid={member}")),
            sid = sid(number),
        ));
    }
    let mount = world.mounted(json!({ "use_token_groups": true })).await;
    for name in ["sid-7", "sid-8", "sid-9"] {
        mount.write(&format!("groups/{name}"), json!({ "policies": name })).await.ok();
    }
    let policies = json!(["default", "everybody", "sid-7", "sid-8"]);
    assert_eq!(mount.policies("tess").await, policies);
    // Who has none is in none, whatever a search would find.
    assert_eq!(mount.policies("ann").await, json!(["default", "everybody"]));
    mount.configure(json!({ "use_token_groups": false })).await;
    assert_eq!(mount.policies("tess").await, json!(["default", "everybody", "sid-9"]));
    let refused = mount
        .write("config", json!({ "use_token_groups": true, "groupdn": "", "bindpass": BROKER.1 }))
        .await;
    assert!(refused.error(400).contains("groupdn"), "{}", refused.body);
}

#[tokio::test]
async fn passwords_go_to_the_right_directory_and_in_private() {
    // A directory of its own, in whose log nobody else is.
    let world = World::new().await;
    let plain = format!("ldap://{}", world.directory.address());
    let mount = world.mounted(json!({ "url": plain, "starttls": true })).await;
    mount.login("ann", "ann-secret").await.ok();
    assert!(world.directory.log().contains("STARTTLS"), "{}", world.directory.log());
    let named = plain.replace("127.0.0.1", "localhost");
    mount.configure(json!({ "url": named })).await;
    mount.login("ann", "ann-secret").await.ok();
    // Versions, and a certificate of our own.
    let own = world.ca.issue(&Spec::leaf().cn("broker"));
    for changes in [
        json!({ "tls_min_version": "tls13" }),
        json!({ "tls_min_version": "tls12", "tls_max_version": "tls12" }),
        json!({ "client_tls_cert": own.pem(), "client_tls_key": own.key_pem }),
    ] {
        mount.configure(changes).await;
        mount.login("ann", "ann-secret").await.ok();
    }
    let shown = mount.root.read(&format!("auth/{}/config", mount.path)).await;
    assert!(!shown.body.contains("PRIVATE KEY") && !shown.body.contains(BROKER.1));
    // Somebody else's certificate: nothing is sent, and nobody is to blame.
    let stranger = Ca::root("strangers").pem();
    for url in [format!("ldaps://{}", world.directory.tls_address()), plain] {
        mount.configure(json!({ "url": url, "certificate": stranger })).await;
        let before = world.directory.log().matches("BIND dn=").count();
        for _ in 0..6 {
            let answer = mount.login("ann", "ann-secret").await;
            assert!(answer.error(502).contains("cannot be reached or trusted"), "{}", answer.body);
        }
        assert_eq!(world.directory.log().matches("BIND dn=").count(), before);
    }
    mount.configure(json!({ "certificate": world.ca.pem() })).await;
    mount.login("ann", "ann-secret").await.ok();
}

#[tokio::test]
async fn a_directory_that_fails_is_nobodys_fault() {
    let world = shared().await;
    let live = world.directory.address();
    let (live, dead) = (live.as_str(), world.dead.as_str());
    let silent = world.silent.local_addr().unwrap();
    let url = |hosts: &[&str]| {
        let urls: Vec<String> = hosts.iter().map(|host| format!("ldap://{host}")).collect();
        json!({
            "url": urls.join(","), "certificate": "", "connection_timeout": 1, "request_timeout": 5,
        })
    };
    let mount = world.mounted(url(&[live])).await;
    // One after the other is tried.
    let silent = silent.to_string();
    mount.configure(url(&[dead, silent.as_str(), live])).await;
    mount.login("ann", "ann-secret").await.ok();
    for (hosts, said) in [(&[dead][..], "cannot be reached"), (&[silent.as_str()][..], "in time")] {
        mount.configure(url(hosts)).await;
        for answer in join_all((0..6).map(|_| mount.login("ann", "ann-secret"))).await {
            let text = answer.error(502);
            assert!(text.contains(said) && !text.contains("127.0.0"), "{text}");
        }
    }
    // The broker's own password is wrong.
    let mut wrong = url(&[live]);
    wrong["binddn"] = json!(BROKER.0);
    wrong["bindpass"] = json!("wrong");
    mount.configure(wrong).await;
    for _ in 0..6 {
        let answer = mount.login("ann", "ann-secret").await;
        assert!(answer.error(502).contains("binddn with result 49"), "{}", answer.body);
    }
    mount.configure(url(&[live])).await;
    mount.login("ann", "ann-secret").await.ok();
    // Hosts that the configuration does not name are not even kept.
    for url in ["ldap://127.0.0.1:1", "ldap://localhost", "ldaps://db.internal"] {
        let answer = mount.write("config", json!({ "url": url, "bindpass": "x" })).await;
        assert!(answer.error(400).contains("auth.ldap_hosts"), "{}", answer.body);
    }
}

#[tokio::test]
async fn a_directory_that_is_back_is_asked_again() {
    let world = World::new().await;
    let mount = world.mounted(json!({})).await;
    mount.login("ann", "ann-secret").await.ok();
    world.directory.stop();
    let answer = mount.login("ann", "ann-secret").await;
    assert!(answer.error(502).contains("cannot be reached"), "{}", answer.body);
    world.directory.start_again();
    mount.login("ann", "ann-secret").await.ok();
}

#[tokio::test]
async fn guessing_locks_the_name_and_asks_the_directory_no_more() {
    let world = World::new().await;
    let mount = world.mounted(json!({})).await;
    let asked =
        |dn: &str| world.directory.log().matches(&format!("BIND dn=\"{dn}\" method")).count();
    let locked = dn("uid=locked");
    for _ in 0..5 {
        assert_eq!(mount.reason("locked", "wrong").await, "wrong password");
    }
    assert_eq!(asked(&locked), 5);
    // The right password does not count any more, and is not tried; but somebody is.
    let binds = || world.directory.log().matches("BIND dn=\"uid=").count();
    let before = binds();
    for name in ["locked", "LOCKED"] {
        assert_eq!(mount.reason(name, "locked-secret").await, "locked");
    }
    assert_eq!(asked(&locked), 5);
    assert!(binds() >= before + 2);
    // Who does not exist costs a try of a password, too, and is locked in the same way.
    for _ in 0..5 {
        let before = binds();
        assert_eq!(mount.reason("nobody-at-all", "x").await, "there is no such entry");
        assert!(binds() > before);
    }
    assert_eq!(mount.reason("nobody-at-all", "x").await, "locked");
    let accessor = mount.root.read(&format!("sys/auth/{}", mount.path)).await.data();
    let accessor = accessor["accessor"].as_str().unwrap().to_owned();
    let listed = mount.root.read(&format!("sys/locked-users?mount_accessor={accessor}")).await;
    let names = &listed.data()["by_namespace"][0]["mount_accessors"][0]["alias_identifiers"];
    assert_eq!(names, &json!(["locked", "nobody-at-all"]));
    let unlock = format!("sys/locked-users/{accessor}/unlock/locked");
    mount.root.write(&unlock, json!({})).await.ok();
    mount.login("locked", "locked-secret").await.ok();
}

#[tokio::test]
async fn a_renewal_asks_the_directory_again() {
    let world = shared().await;
    let mount = world.mounted(json!({ "token_ttl": "1h" })).await;
    mount.write("groups/ops%20team", json!({ "policies": "operate" })).await.ok();
    let token = async |mount: &Mount<'_>, name: &str| {
        let auth = mount.auth(name, &format!("{name}-secret")).await;
        world.broker.nobody().with_token(auth["client_token"].as_str().unwrap())
    };
    let renew = async |caller: &Caller| caller.write("auth/token/renew-self", json!({})).await;
    let reason = |answer: &Answer| {
        assert_eq!(answer.error(403), "permission denied");
        world.broker.audited(answer)["outcome"]["reason"].as_str().unwrap().to_owned()
    };
    let leaver = token(&mount, "leaver").await;
    let gone = token(&mount, "gone").await;
    renew(&leaver).await.ok();
    renew(&gone).await.ok();
    // A policy more does no harm; one less ends it.
    mount.write("users/leaver", json!({ "policies": "more" })).await.ok();
    renew(&leaver).await.ok();
    let team = format!("dn: cn=Ops Team,ou=groups,{BASE}\nchangetype: modify\n");
    let member = dn("uid=leaver");
    world.directory.change(&format!("{team}delete: member\nmember: {member}\n"));
    let refused = renew(&leaver).await;
    assert_eq!(reason(&refused), "policy operate would not be given now");
    world.directory.change(&format!("{team}add: member\nmember: {member}\n"));
    renew(&leaver).await.ok();
    world.directory.change(&format!("dn: {}\nchangetype: delete\n", dn("uid=gone")));
    assert_eq!(reason(&renew(&gone).await), "there is no such entry");
    // A directory that cannot be asked ends nothing.
    let nowhere = json!({ "url": format!("ldap://{}", world.dead), "certificate": "" });
    mount.configure(nowhere).await;
    assert_eq!(renew(&leaver).await.status, 502);
    leaver.read("auth/token/lookup-self").await.ok();
    // Without somebody who may search, nobody can be looked up.
    let direct = world.mounted(json!({ "binddn": "" })).await;
    let bob = token(&direct, "bob").await;
    assert!(reason(&renew(&bob).await).contains("binddn or discoverdn"));
}

#[tokio::test]
async fn groups_of_a_directory_are_groups_of_identities_until_the_next_renewal() {
    let world = shared().await;
    let mount = world.mounted(json!({ "token_ttl": "1h" })).await;
    let root = &mount.root;
    let accessor = root.read(&format!("sys/auth/{}", mount.path)).await.data()["accessor"].clone();
    let policy = json!({ "policy": r#"path "sys/mounts" { capabilities = ["read"] }"# });
    root.write("sys/policies/acl/clubs", policy).await.ok();
    let group = json!({ "name": "club", "type": "external", "policies": ["clubs"] });
    let group = root.write("identity/group", group).await.data()["id"].clone();
    let alias = json!({ "name": "club", "mount_accessor": accessor, "canonical_id": group });
    root.write("identity/group-alias", alias).await.ok();
    let auth = mount.auth("clubber", "clubber-secret").await;
    assert_eq!(auth["identity_policies"], json!(["clubs"]));
    let token = auth["client_token"].as_str().unwrap();
    let clubber = world.broker.nobody().with_token(token);
    let other = mount.auth("bob", "bob-secret").await;
    assert_eq!(other["identity_policies"], Value::Null);
    clubber.read("sys/mounts").await.ok();
    // Who has left the group there leaves it here when the directory is next asked.
    let left = format!(
        "dn: cn=club,ou=groups,{BASE}\nchangetype: modify\ndelete: member\nmember: {}\n",
        dn("uid=clubber")
    );
    world.directory.change(&left);
    let renewed = clubber.write("auth/token/renew-self", json!({})).await.ok();
    assert_eq!(renewed["auth"]["identity_policies"], Value::Null);
    assert_eq!(clubber.read("sys/mounts").await.status, 403);
}

#[tokio::test]
async fn secrets_stay_out_of_logs_and_the_audit() {
    let world = shared().await;
    let mount = world.mounted(json!({})).await;
    mount.login("ann", "ann-secret").await.ok();
    mount.reason("ann", "mistyped-secret").await;
    let audit = std::fs::read_to_string(world.broker.audit_path()).unwrap();
    for (place, text) in [("audit", audit), ("log", world.broker.log())] {
        for secret in [BROKER.1, "ann-secret", "mistyped-secret"] {
            assert!(!text.contains(secret), "{secret} is in the {place}");
        }
    }
}

#[tokio::test]
async fn the_command_line_logs_in_with_a_password_from_a_file() {
    let world = shared().await;
    let mount = world.mounted(json!({})).await;
    let broker = &world.broker;
    broker.write("cli-ca.pem", &broker.pki.servers.pem());
    broker.write("cli.pem", &broker.pki.admin.pem());
    broker.write("cli.key", &broker.pki.admin.key_pem);
    broker.write("cli-password", "ann-secret\n");
    let at = |name: &str| broker.dir().join(name).display().to_string();
    let login = async |password: &str| {
        tokio::process::Command::new(env!("CARGO_BIN_EXE_leasehold"))
            .args(["login", "-method=ldap", "-token-only", "-path", &mount.path, "username=ann"])
            .arg(format!("password={password}"))
            .env("LEASEHOLD_ADDR", format!("https://{}", broker.address))
            .env("LEASEHOLD_CACERT", at("cli-ca.pem"))
            .env("LEASEHOLD_CLIENT_CERT", at("cli.pem"))
            .env("LEASEHOLD_CLIENT_KEY", at("cli.key"))
            .env("HOME", broker.dir())
            .output()
            .await
            .unwrap()
    };
    let done = login(&format!("@{}", at("cli-password"))).await;
    let token = String::from_utf8(done.stdout).unwrap();
    assert!(token.starts_with("lhs."), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(login("wrong").await.status.code(), Some(2));
}
