//! What each route refuses of its own, asked of every route of the tables: a path that names what is
//! not there, a body without what is needed, and each of its fields in a form that it cannot have.
//!
//! A route that is new is asked too, and fails here until its answers are recorded and read.

use std::collections::BTreeSet;

use leasehold::core::operation::Operation;
use leasehold::core::route::{FieldKind, FieldSpec, RouteSpec};
use leasehold::core::seal::endpoints;
use serde_json::{Map, Value, json};

use super::alike::{Alike, send};
use super::engines::Target;
use super::stage::{Stage, answers_in, directory};
use crate::access;
use crate::access::routes::EXPECTED;
use crate::support::wire::Answer;

/// What is sent where it makes no sense, and must not come back in a refusal.
const MARK: &str = "hunter2";

const SSH_KEY: &str = "ssh-ed25519 \
     AAAAC3NzaC1lZDI1NTE5AAAAIO/Aais0XaIz+jIdE8H0gXV8Q2pNtIgEdMTfzh0QyjFs x";

/// A route, a path on which there is something, and a body that it takes.
struct Probe {
    pattern: String,
    spec: &'static RouteSpec,
    path: String,
    body: Map<String, Value>,
}

impl Probe {
    fn methods(&self) -> BTreeSet<&'static str> {
        self.spec.operations.iter().map(|one| access::method(one.as_str())).collect()
    }

    fn writes(&self) -> impl Iterator<Item = &'static str> {
        self.methods().into_iter().filter(|method| ["PATCH", "POST"].contains(method))
    }

    fn parameters(&self) -> impl Iterator<Item = &str> {
        self.pattern.split('/').filter(|part| part.starts_with([':', '*']))
    }

    /// The fields of a body.
    fn fields(&self) -> impl Iterator<Item = &'static FieldSpec> {
        self.spec.fields.iter().filter(|field| !field.in_query && field.name != "*")
    }

    /// The body, with that field set to that.
    fn sent(&self, field: Option<(&str, Value)>) -> String {
        let mut body = self.body.clone();
        body.extend(field.map(|(name, value)| (name.to_owned(), value)));
        Value::Object(body).to_string()
    }

    /// The fields of a query.
    fn asked(&self) -> impl Iterator<Item = &'static FieldSpec> {
        let written = self.spec.serves(Operation::Update);
        self.spec.fields.iter().filter(move |field| field.in_query || !written)
    }

    fn makes(&self) -> bool {
        [Operation::Create, Operation::Delete].iter().all(|one| self.spec.operations.contains(one))
    }

    /// A path that names nothing.
    fn nowhere(&self, name: &str) -> String {
        let part = |part: &'_ str| match part.starts_with([':', '*']) {
            true => name.to_owned(),
            false => part.to_owned(),
        };
        self.pattern.split('/').map(part).collect::<Vec<_>>().join("/")
    }
}

/// All routes.
fn probes() -> Vec<Probe> {
    let tables = access::tables().into_iter().flat_map(|(prefix, table)| {
        table.iter().map(move |spec| (format!("{prefix}{}", spec.pattern), spec))
    });
    let own = endpoints::specs().map(|spec| (spec.pattern.to_owned(), spec));
    tables
        .chain(own)
        .map(|(pattern, spec)| {
            let listed = EXPECTED.iter().find(|one| one.pattern == pattern);
            let path = listed.map_or(pattern.as_str(), |one| one.path).to_owned();
            let body = listed.map_or("{}", |one| one.body);
            Probe { pattern, spec, path, body: serde_json::from_str(body).unwrap() }
        })
        .collect()
}

/// A value that a field of that kind cannot have; nothing when it may have any.
fn malformed(kind: FieldKind) -> Option<Value> {
    match kind {
        FieldKind::Any => None,
        FieldKind::Boolean | FieldKind::Duration | FieldKind::Time => Some(json!(MARK)),
        FieldKind::Integer | FieldKind::Number => Some(json!(MARK)),
        FieldKind::Integers => Some(json!([MARK])),
        FieldKind::List => Some(json!([{ MARK: MARK }])),
        FieldKind::Map | FieldKind::Object(_) | FieldKind::Objects(_) => Some(json!(7)),
        FieldKind::Secret | FieldKind::Text => Some(json!({ MARK: MARK })),
    }
}

/// Fields that a request may have and that are not looked at as it is asked here, and why.
#[rustfmt::skip]
const OTHERWISE: &[(&str, &str, &str)] = &[
    ("auth/approle/role/:name/local-secret-ids", "local_secret_ids", "is told here, not set"),
    ("auth/kubernetes/config", "disable_local_ca_jwt", "there is no configuration to add it to"),
    ("auth/token/renew", "increment", "there is no such token"),
    ("auth/token/renew-accessor", "increment", "there is no such token"),
    ("identity/entity-alias", "entity_id", "another name of what is there"),
    ("identity/entity-alias/id/:id", "id", "the path says it"),
    ("identity/entity/id/:id", "id", "the path says it"),
    ("identity/entity/name/:name", "id", "the path says who"),
    ("identity/group-alias/id/:id", "id", "the path says it"),
    ("identity/group/id/:id", "id", "the path says it"),
    ("identity/group/name/:name", "id", "the path says which"),
    ("identity/mfa/method/totp/generate", "method_id", "root is nobody who could have a secret"),
    ("ssh/config/ca", "key_bits key_type", "there is a key already"),
    ("ssh/roles/:name", "cidr_list exclude_cidr_list port", "are for one-time passwords"),
    ("sys/audit/*path", "description local", "without effect"),
    ("sys/auth/*path", "external_entropy_access local plugin_name seal_wrap", "without effect"),
    ("sys/capabilities", "path", "another name, and there is no such token"),
    ("sys/capabilities-accessor", "path", "another name, and there is no such token"),
    ("sys/generate-root-token/attempt", "nonce", "there is an attempt already"),
    ("sys/generate-root/attempt", "nonce", "there is an attempt already"),
    ("sys/health", "perfstandbyok standbycode standbyok", "without effect"),
    ("sys/init", "stored_shares", "without effect"),
    ("sys/internal/counters/activity", "limit_namespaces", "without effect"),
    ("sys/leases/renew", "increment", "there is no such lease"),
    ("sys/leases/renew/*lease_id", "increment", "there is no such lease"),
    ("sys/leases/revoke", "sync", "without effect: one lease is always waited for"),
    ("sys/leases/revoke/*lease_id", "sync", "without effect: one lease is always waited for"),
    ("sys/mounts/*path", "external_entropy_access local plugin_name seal_wrap", "without effect"),
    ("sys/policies/acl/*name", "rules", "another name of what is there"),
    ("sys/policy/*name", "rules", "another name of what is there"),
    ("sys/quotas/lease-count/:name", "inheritable type", "without effect"),
    ("sys/quotas/rate-limit/:name", "inheritable type", "without effect"),
    ("sys/rekey/init", "nonce", "is for giving it up"),
    ("sys/rotate/root/init", "nonce", "is for giving it up"),
    ("sys/tools/hash/:urlalgorithm", "algorithm", "the path says it"),
    ("sys/tools/random/:source/:urlbytes", "bytes source", "the path says it"),
    ("sys/tools/random/:urlbytes", "bytes", "the path says it"),
    ("transit/encrypt/:name", "convergent_encryption type", "there is a key by now"),
    ("transit/hash/:urlalgorithm", "algorithm", "the path says it"),
    ("transit/hmac/:name/:urlalgorithm", "algorithm hash_algorithm", "the path says it"),
    ("transit/keys/:name/import", "ciphertext hash_function", "there is a key of that name"),
    ("transit/keys/:name/import_version", "ciphertext hash_function", "the key was made here"),
    ("transit/random/:source/:urlbytes", "bytes source", "the path says it"),
    ("transit/random/:urlbytes", "bytes", "the path says it"),
    ("transit/sign/:name", "context", "the key is not derived"),
    ("transit/sign/:name/:urlalgorithm", "algorithm context hash_algorithm", "the path says it, or it is not derived"),
    ("transit/verify/:name", "context", "the key is not derived"),
    ("transit/verify/:name/:urlalgorithm", "algorithm context hash_algorithm", "the path says it, or it is not derived"),
];

/// What was not as it has to be.
#[derive(Default)]
struct Faults {
    found: Vec<String>,
    excused: BTreeSet<(&'static str, &'static str)>,
}

impl Faults {
    /// Nothing is answered with an error of the server, or with what was sent.
    fn look(&mut self, request: &str, answer: &Answer) {
        if answer.status == 500 || answer.body.contains(MARK) {
            self.found.push(format!("{request}: {} {}", answer.status, answer.body));
        }
    }

    /// What is malformed is refused by its name.
    fn look_at(&mut self, pattern: &str, request: &str, field: &str, answer: &Answer) {
        self.look(request, answer);
        if answer.status == 400 && answer.body.contains(&format!("field \\\"{field}\\\"")) {
            return;
        }
        let excuse = OTHERWISE.iter().find_map(|(whose, fields, _)| {
            let named = fields.split(' ').find(|name| *name == field)?;
            (*whose == pattern).then_some((*whose, named))
        });
        match excuse {
            Some(excuse) => {
                self.excused.insert(excuse);
            }
            None => self.found.push(format!("{request}: {} {}", answer.status, answer.body)),
        }
    }

    fn finish(self) {
        assert!(self.found.is_empty(), "{} faults: {:#?}", self.found.len(), self.found);
    }
}

#[tokio::test]
async fn what_is_not_there_answers_as_recorded() {
    let mut stage = Stage::open("nothing").await;
    let root = stage.root.clone();
    let mut faults = Faults::default();
    let probes = probes();
    let mut names = Vec::new();
    for number in 0..probes.len() {
        let letter = |n: usize| char::from(b'a' + u8::try_from(n % 26).unwrap());
        let name = format!("none-{}{}", letter(number / 26), letter(number));
        stage.know(&name, "none");
        names.push(name);
    }
    let mut alike = Alike::new(&mut stage, "the path names nothing");
    // Writes last, since they make what they name.
    for method in ["GET", "LIST", "DELETE", "PATCH", "POST"] {
        let served = |probe: &Probe| probe.methods().contains(method);
        for (probe, name) in probes.iter().zip(&names).filter(|(probe, _)| served(probe)) {
            if probe.parameters().next().is_none() {
                continue;
            }
            let written = ["PATCH", "POST"].contains(&method);
            let body =
                if written { Value::Object(probe.body.clone()).to_string() } else { String::new() };
            let answer = send(&root, method, &probe.nowhere(name), &body).await;
            let request = format!("{method} {}", probe.pattern);
            faults.look(&request, &answer);
            alike.add(request, &answer);
        }
    }
    alike.finish();
    stage.finish();
    faults.finish();
}

/// Bodies for what the list of routes has none for that would be of use here.
fn body_of(pattern: &str, target: &Target) -> Option<Value> {
    Some(match pattern {
        "auth/token/renew" => json!({ "token": "x" }),
        "auth/token/renew-accessor" => json!({ "accessor": "x" }),
        "database/config/:name" => target.config.clone(),
        "database/roles/:name" => {
            json!({ "db_name": "x", "creation_statements": super::engines::CREATE })
        }
        "database/static-roles/:name" => {
            json!({ "db_name": "x", "username": target.user, "rotation_period": "24h" })
        }
        "identity/entity" | "identity/group" => json!({ "name": "y" }),
        "identity/entity-alias" | "identity/group-alias" => {
            json!({ "name": "x", "mount_accessor": "y", "canonical_id": "z" })
        }
        "identity/entity/merge" => json!({ "from_entity_ids": ["x"], "to_entity_id": "y" }),
        "identity/mfa/method/totp" => json!({ "issuer": "x" }),
        "identity/mfa/method/totp/admin-destroy" | "identity/mfa/method/totp/admin-generate" => {
            json!({ "method_id": "x", "entity_id": "y" })
        }
        "ssh/issue/:name" => json!({ "valid_principals": "x" }),
        "ssh/roles/:name" => json!({
            "key_type": "ca", "allow_user_certificates": true, "allowed_users": "*",
            "allow_user_key_ids": true,
        }),
        "ssh/sign/:name" => json!({ "valid_principals": "x", "public_key": SSH_KEY }),
        "sys/auth/*path" => json!({ "type": "approle" }),
        "sys/capabilities" => json!({ "paths": ["a"], "token": "x" }),
        "sys/capabilities-accessor" => json!({ "paths": ["a"], "accessor": "x" }),
        "sys/leases/renew" | "sys/leases/revoke" => json!({ "lease_id": "x" }),
        "sys/mfa/validate" => json!({ "mfa_request_id": "x", "mfa_payload": {} }),
        "sys/mounts/*path" => json!({ "type": "kv" }),
        "sys/rekey/init" | "sys/rotate/root/init" => {
            json!({ "secret_shares": 1, "secret_threshold": 1 })
        }
        "sys/generate-root-token/update"
        | "sys/generate-root/update"
        | "sys/rekey/update"
        | "sys/rekey/verify"
        | "sys/rotate/root/update"
        | "sys/rotate/root/verify" => json!({ "key": "00", "nonce": "y" }),
        "sys/remount" => json!({ "from": "none/", "to": "elsewhere/" }),
        "totp/keys/:name" => json!({ "generate": true, "issuer": "x", "account_name": "y" }),
        _ => return None,
    })
}

/// Paths other than those of the list of routes: where the list has none on which there is something, or
/// one on which there is too much.
fn path_of(pattern: &str) -> Option<&'static str> {
    Some(match pattern {
        "ssh/creds/:name" => "ssh/creds/otp",
        "transit/encrypt/:name" => "transit/encrypt/new",
        "transit/sign/:name" => "transit/sign/signs",
        "transit/sign/:name/:urlalgorithm" => "transit/sign/signs/sha2-512",
        _ => return None,
    })
}

/// Fills the broker, and finds what is to be sent where.
async fn furnish(stage: &mut Stage, probes: &mut [Probe]) {
    let root = stage.root.clone();
    let target = Target::of(stage, "own");
    for probe in probes.iter_mut() {
        if let Some(body) = body_of(&probe.pattern, &target) {
            probe.body = body.as_object().unwrap().clone();
        }
        if let Some(path) = path_of(&probe.pattern) {
            probe.path = path.to_owned();
        }
    }
    let made = ["transit/keys/:name", "ssh/config/ca", "sys/config/ui/headers/:header"];
    for probe in probes.iter().filter(|probe| probe.makes() || made.contains(&&*probe.pattern)) {
        let answer = send(&root, "POST", &probe.path, &probe.sent(None)).await;
        // What needs more than is here: a list of revoked certificates, a second factor.
        let wanting = ["auth/cert/crls/:name", "identity/mfa/login-enforcement/:name"];
        assert!(answer.status < 300 || wanting.contains(&&*probe.pattern), "{}", answer.body);
    }
    let otp = json!({ "key_type": "otp", "default_user": "x", "cidr_list": "10.0.0.0/8" });
    root.write("ssh/roles/otp", otp).await.ok();
    root.write("transit/keys/signs", json!({ "type": "ed25519" })).await.ok();

    let id = |made: Value, name: &str| made["data"][name].as_str().unwrap().to_owned();
    let entity = id(root.read("identity/entity/name/x").await.ok(), "id");
    let group = id(root.read("identity/group/name/x").await.ok(), "id");
    let method = json!({ "issuer": "x", "method_name": "x" });
    let method = id(root.write("identity/mfa/method/totp", method).await.ok(), "method_id");
    let both = json!({ "method_id": method, "entity_id": entity });
    let accessor = root.read("sys/auth").await.data()["userpass/"]["accessor"].clone();
    let alias = json!({ "name": "x", "mount_accessor": accessor, "canonical_id": entity });
    let alias = id(root.write("identity/entity-alias", alias).await.ok(), "id");
    let external = json!({ "name": "external", "type": "external" });
    let external = id(root.write("identity/group", external).await.ok(), "id");
    let theirs = json!({ "name": "x", "mount_accessor": accessor, "canonical_id": external });
    let theirs = id(root.write("identity/group-alias", theirs).await.ok(), "id");
    for probe in probes.iter_mut() {
        match probe.pattern.as_str() {
            "identity/entity-alias" | "identity/group-alias" => {
                probe.body.insert("mount_accessor".into(), accessor.clone());
            }
            "identity/mfa/method/totp/admin-destroy"
            | "identity/mfa/method/totp/admin-generate" => {
                probe.body = both.as_object().unwrap().clone();
            }
            _ => {}
        }
    }
    for (pattern, id) in [
        ("identity/entity/id/:id", entity),
        ("identity/entity-alias/id/:id", alias),
        ("identity/group/id/:id", group),
        ("identity/group-alias/id/:id", theirs),
        ("identity/mfa/method/totp/:id", method),
    ] {
        let probe = probes.iter_mut().find(|probe| probe.pattern == pattern).unwrap();
        probe.path = pattern.replace(":id", &id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_requests_answer_as_recorded() {
    let mut stage = Stage::open("malformed").await;
    let mut probes = probes();
    furnish(&mut stage, &mut probes).await;
    let mut faults = Faults::default();
    wanting(&mut stage, &probes, &mut faults).await;
    malformed_fields(&mut stage, &probes, &mut faults).await;
    malformed_queries(&mut stage, &probes, &mut faults).await;
    stage.finish();
    let excused = faults.excused.clone();
    faults.finish();
    let excuses = OTHERWISE
        .iter()
        .flat_map(|(pattern, fields, _)| fields.split(' ').map(move |field| (*pattern, field)));
    let stale: Vec<_> = excuses.filter(|excuse| !excused.contains(excuse)).collect();
    assert!(stale.is_empty(), "looked at after all: {stale:#?}");
}

/// Bodies that lack something. What makes something is asked to make it anew.
async fn wanting(stage: &mut Stage, probes: &[Probe], faults: &mut Faults) {
    let root = stage.root.clone();
    let path_of = |probe: &Probe| match probe.makes() {
        true => probe.nowhere("wanting"),
        false => probe.path.clone(),
    };
    let clear = async |probe: &Probe, path: &str| {
        if probe.makes() {
            root.delete(path).await.ok();
        }
    };
    let mut alike = Alike::new(stage, "the body is empty");
    for probe in probes.iter().filter(|probe| probe.fields().next().is_some()) {
        for method in probe.writes() {
            let path = path_of(probe);
            let answer = send(&root, method, &path, "{}").await;
            let request = format!("{method} {}", probe.pattern);
            faults.look(&request, &answer);
            alike.add(request, &answer);
            clear(probe, &path).await;
        }
    }
    alike.finish();

    let mut alike = Alike::new(stage, "a field is left out of a body");
    for probe in probes.iter().filter(|probe| probe.body.len() > 1) {
        for (method, field) in probe.writes().flat_map(|m| probe.body.keys().map(move |f| (m, f))) {
            let path = path_of(probe);
            let mut body = probe.body.clone();
            body.remove(field);
            let answer = send(&root, method, &path, &Value::Object(body).to_string()).await;
            let request = format!("{method} {} {field}", probe.pattern);
            faults.look(&request, &answer);
            alike.add_about(request, Some(field), &answer);
            clear(probe, &path).await;
        }
    }
    alike.finish();
}

/// Bodies that are good but for one field.
async fn malformed_fields(stage: &mut Stage, probes: &[Probe], faults: &mut Faults) {
    let root = stage.root.clone();
    let mut alike = Alike::new(stage, "a field has a form that it cannot have");
    for probe in probes {
        for (method, field) in probe.writes().flat_map(|m| probe.fields().map(move |f| (m, f))) {
            let Some(value) = malformed(field.kind) else { continue };
            let body = probe.sent(Some((field.name, value)));
            let answer = send(&root, method, &probe.path, &body).await;
            let request = format!("{method} {} {}", probe.pattern, field.name);
            faults.look_at(&probe.pattern, &request, field.name, &answer);
            alike.add_about(request, Some(field.name), &answer);
        }
    }
    alike.finish();
}

/// The same in the query of what has no body.
async fn malformed_queries(stage: &mut Stage, probes: &[Probe], faults: &mut Faults) {
    let root = stage.root.clone();
    let mut alike = Alike::new(stage, "a parameter of the query has a form that it cannot have");
    for probe in probes {
        let methods = probe.methods().into_iter().filter(|m| ["GET", "LIST"].contains(m));
        for (method, field) in methods.flat_map(|m| probe.asked().map(move |f| (m, f))) {
            // Text in a query has any form.
            let Some(Value::String(value)) = malformed(field.kind) else { continue };
            let path = format!("{}?{}={value}", probe.path, field.name);
            let answer = send(&root, method, &path, "").await;
            let request = format!("{method} {} {}", probe.pattern, field.name);
            faults.look_at(&probe.pattern, &request, field.name, &answer);
            alike.add_about(request, Some(field.name), &answer);
        }
    }
    alike.finish();
}

/// The requests that a file records, each with what was answered.
fn recorded(area: &str) -> Vec<(String, u64)> {
    let answers = answers_in(&directory().join(format!("{area}.json")));
    let requests = |answer: &Value| {
        let status = answer["status"].as_u64().unwrap();
        let requests = answer["requests"].as_array().unwrap().clone();
        requests.into_iter().map(move |request| (request.as_str().unwrap().to_owned(), status))
    };
    answers.iter().flat_map(requests).collect()
}

/// Writes with fields that are refused nothing.
const NEVER_REFUSED: &[&str] = &["POST sys/leases/revoke/*lease_id"];

#[test]
fn every_route_has_its_own_refusals_recorded() {
    let (nothing, malformed) = (recorded("nothing"), recorded("malformed"));
    let has = |among: &[(String, u64)], request: &str| among.iter().any(|(one, _)| one == request);
    let mut missing = Vec::new();
    for probe in probes() {
        for method in probe.methods() {
            let request = format!("{method} {}", probe.pattern);
            if probe.parameters().next().is_some() && !has(&nothing, &request) {
                missing.push(request);
            }
        }
        for method in probe.writes() {
            let request = format!("{method} {}", probe.pattern);
            let of_field = |field: &FieldSpec| format!("{request} {}", field.name);
            let forms = probe.fields().filter(|field| self::malformed(field.kind).is_some());
            missing.extend(forms.map(of_field).filter(|one| !has(&malformed, one)));
            let own = format!("{request} ");
            let refused = |(one, status): &(String, u64)| {
                (400..500).contains(status) && (*one == request || one.starts_with(&own))
            };
            if probe.fields().next().is_some()
                && !nothing.iter().chain(&malformed).any(refused)
                && !NEVER_REFUSED.contains(&request.as_str())
            {
                missing.push(format!("{request}: no refusal"));
            }
        }
    }
    assert!(missing.is_empty(), "not recorded: {missing:#?}");
}
