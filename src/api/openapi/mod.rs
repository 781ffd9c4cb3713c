//! The OpenAPI 3.1 document, made from the tables that route requests: there is nothing else to keep in
//! step with them.
//!
//! OpenAPI knows neither the method LIST nor path parameters that hold slashes. Lists are given as GET
//! with `list=true`, at the path with a slash behind where the path itself can be read as well, and
//! marked `x-leasehold-list`; a parameter that holds slashes is marked `x-leasehold-slashes`.

mod answers;
mod operations;
mod schema;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::core::operation::Operation;
use crate::core::route::{Access, RouteSpec};
use crate::core::seal::endpoints;

/// A table of routes, and where it is.
#[derive(Clone, Debug)]
pub struct Place {
    /// What its paths begin with, with a slash at the end; empty for patterns that are whole paths.
    at: String,
    /// What it is, such as `kv-v2`: tables of one kind are the same.
    kind: String,
    tag: &'static str,
    /// Whether `at` is where tables of this kind usually are, and not where this one is.
    generic: bool,
    /// Whether callers, quotas and wrapping are for it: not for the seal's own paths.
    judged: bool,
    routes: Vec<&'static RouteSpec>,
}

impl Place {
    /// The seal's own paths.
    pub fn seal() -> Self {
        Self {
            at: String::new(),
            kind: String::new(),
            tag: "system",
            generic: false,
            judged: false,
            routes: endpoints::specs().collect(),
        }
    }

    /// A table of the server itself, by what its paths begin with.
    pub fn system(prefix: &str, routes: &'static [RouteSpec]) -> Self {
        let (kind, tag) = match prefix {
            "auth/token/" => ("token", "auth"),
            "identity/" => ("identity", "identity"),
            other => (other.trim_end_matches('/'), "system"),
        };
        Self::new(prefix, kind.to_owned(), tag, routes)
    }

    /// What is mounted at `path` (with its slash).
    pub fn mount(
        path: &str,
        kind: &str,
        options: &BTreeMap<String, String>,
        routes: &'static [RouteSpec],
    ) -> Self {
        let kind = match options.get("version") {
            Some(version) => format!("{kind}-v{version}"),
            None => kind.to_owned(),
        };
        let tag = if path.starts_with("auth/") { "auth" } else { "secrets" };
        Self::new(path, kind, tag, routes)
    }

    fn new(at: &str, kind: String, tag: &'static str, routes: &'static [RouteSpec]) -> Self {
        let routes = routes.iter().collect();
        Self { at: at.to_owned(), kind, tag, generic: false, judged: true, routes }
    }

    /// The same wherever it is mounted: its path is a parameter of its paths. What cannot be moved
    /// stays where it is.
    #[must_use]
    pub fn anywhere(mut self) -> Self {
        let mounted = self.tag == "secrets" || (self.tag == "auth" && self.kind != "token");
        if mounted && self.kind != "cubbyhole" {
            let below = if self.tag == "auth" { "auth/" } else { "" };
            self.at = format!("{below}{}/", self.kind);
            self.generic = true;
        }
        self
    }

    /// The same with the routes alone that serve `rest`, the path below.
    #[must_use]
    pub fn only(mut self, rest: &str) -> Self {
        self.routes.retain(|route| route.matches(rest));
        self
    }

    /// What its paths begin with.
    pub fn at(&self) -> &str {
        &self.at
    }

    /// What it is, such as `kv-v2`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Its routes.
    pub fn routes(&self) -> &[&'static RouteSpec] {
        &self.routes
    }

    /// The parameter in the paths of a generic place.
    fn mount_parameter(&self) -> String {
        format!("{}_mount_path", self.kind.replace('-', "_"))
    }

    /// What its paths begin with in the document.
    fn prefix(&self) -> String {
        match (self.generic, self.at.starts_with("auth/")) {
            (false, _) => self.at.clone(),
            (true, true) => format!("auth/{{{}}}/", self.mount_parameter()),
            (true, false) => format!("{{{}}}/", self.mount_parameter()),
        }
    }
}

/// The whole document. The same places give the same bytes.
pub fn document(places: &[Place]) -> Value {
    let mut made = Made::default();
    for place in places {
        for route in &place.routes {
            made.add(place, route);
        }
    }
    let mut components = schema::components();
    if let Some(Value::Object(schemas)) = components.get_mut("schemas") {
        schemas.extend(made.schemas);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Leasehold",
            "summary": "Every secret on a lease.",
            "description": ABOUT,
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/v1" }],
        "tags": [
            { "name": "auth", "description": "Auth methods and tokens." },
            { "name": "identity", "description": "Who callers are, however they come." },
            { "name": "secrets", "description": "Secrets engines." },
            { "name": "system", "description": "The server itself." },
        ],
        "paths": made.paths,
        "components": components,
    })
}

const ABOUT: &str = "PUT does what POST does, and LIST what GET with `list=true` does. Durations are \
    taken as seconds or as text such as `1h30m`, and answered in seconds. Fields that a path does not \
    know are ignored, with a warning. Every path answers `?help=1`.";

/// What was made so far.
#[derive(Default)]
struct Made {
    paths: BTreeMap<String, Map<String, Value>>,
    schemas: Map<String, Value>,
    ids: BTreeSet<String>,
}

impl Made {
    fn add(&mut self, place: &Place, route: &RouteSpec) {
        let path = format!("/{}{}", place.prefix(), templated(route.pattern));
        let reads = route.serves(Operation::Read);
        for operation in [Operation::Delete, Operation::Patch, Operation::Read, Operation::Update] {
            if route.serves(operation) {
                self.place(path.clone(), place, route, operation);
            }
        }
        if !route.serves(Operation::List) {
            return;
        }
        // One GET for each path: where that is the read, the list is behind the slash.
        let taken = self.paths.get(&path).is_some_and(|item| item.contains_key("get"));
        let slashed = format!("{}/", path.trim_end_matches('/'));
        let at = if reads || taken { slashed } else { path };
        self.place(at, place, route, Operation::List);
        // What takes the rest of the path can be listed from its top.
        if let Some((top, rest)) = route.pattern.rsplit_once('*').filter(|(_, r)| !r.contains('/'))
        {
            let at = format!("/{}{}", place.prefix(), templated(top));
            self.place_one(at, place, route, Operation::List, Some(rest));
        }
    }

    fn place(&mut self, path: String, place: &Place, route: &RouteSpec, operation: Operation) {
        self.place_one(path, place, route, operation, None);
    }

    /// Adds an operation; `without` is a parameter of the pattern that the path does not have.
    fn place_one(
        &mut self,
        path: String,
        place: &Place,
        route: &RouteSpec,
        operation: Operation,
        without: Option<&str>,
    ) {
        let top = if without.is_some() { "-top" } else { "" };
        let id = self.id(place, route, operation, top);
        let mut made = operations::operation(place, route, operation, &mut self.schemas);
        made.insert("operationId".into(), json!(id));
        let parameters = operations::path_parameters(place, route, without);
        let item = self.paths.entry(path).or_default();
        if !parameters.is_empty() {
            item.insert("parameters".into(), json!(parameters));
        }
        if route.access == Access::Sudo {
            item.insert("x-vault-sudo".into(), json!(true));
        }
        if matches!(route.access, Access::Anybody | Access::Public) {
            item.insert("x-vault-unauthenticated".into(), json!(true));
        }
        if route.operations.contains(&Operation::Create) {
            item.insert("x-vault-create-supported".into(), json!(true));
        }
        item.insert(operations::method(operation).into(), Value::Object(made));
    }

    /// An operation id that nothing else has: by the path, so that it stays what it is.
    fn id(&mut self, place: &Place, route: &RouteSpec, operation: Operation, top: &str) -> String {
        let at = if place.generic { &place.kind } else { &place.at };
        let stem = format!("{at}/{}", route.pattern);
        let id = format!("{}{top}-{}", words(&stem, "-"), verb(operation));
        let mut free = id.clone();
        let mut number = 2;
        // Mounts can be called so that their words are the same.
        while !self.ids.insert(free.clone()) {
            free = format!("{id}-{number}");
            number += 1;
        }
        free
    }
}

/// A pattern with its parameters in braces.
fn templated(pattern: &str) -> String {
    let segment = |part: &str| match part.strip_prefix([':', '*']) {
        Some(name) => format!("{{{name}}}"),
        None => part.to_owned(),
    };
    pattern.split('/').map(segment).collect::<Vec<_>>().join("/")
}

/// The letters and digits of a path, with `between` where there are others.
fn words(path: &str, between: &str) -> String {
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(between)
}

/// How an operation is called in ids and names.
fn verb(operation: Operation) -> &'static str {
    match operation {
        Operation::Create | Operation::Update => "write",
        Operation::Delete => "delete",
        Operation::List => "list",
        Operation::Patch => "patch",
        Operation::Read => "read",
    }
}

/// The name of a schema of a route, such as `KvV2DataPathReadResponse`.
fn schema_name(place: &Place, route: &RouteSpec, end: &str) -> String {
    let whole = words(&format!("{}/{}", place.kind, route.pattern), " ");
    whole.split(' ').map(capital).collect::<String>() + end
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests;
