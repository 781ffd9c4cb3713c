use super::*;
use crate::core::operation::Operation::{Create, Delete, List, Patch, Read, Update};
use crate::core::route::{Answer, FieldKind, FieldSpec, field, route};

const FIELDS: &[FieldSpec] = &[
    field("name", FieldKind::Text, "Whose."),
    field("version", FieldKind::Integer, "Which.").in_query(),
    field("ttl", FieldKind::Duration, "How long."),
    field("period", FieldKind::Duration, "Older name of ttl."),
    field("password", FieldKind::Secret, "The password."),
];

static TABLE: &[RouteSpec] = &[
    route("role", "roles/:name", "One.", &[Create, Read, Update, Delete, Patch], FIELDS)
        .sudo()
        .reads(Answer::Data(&[
            field("ttl", FieldKind::Duration, "How long."),
            field("note", FieldKind::Text, "A note.").or_null().if_any(),
        ])),
    route("roles", "roles", "All.", &[List], &[]),
    route("secret", "*path", "Anything.", &[Read, List], &[]).reads(Answer::Bare(&[])),
    route("login", "login", "In.", &[Update], FIELDS).public().writes(Answer::Token),
];

fn mount(path: &str) -> Place {
    Place::mount(path, "kind", &BTreeMap::new(), TABLE)
}

fn ids(document: &Value) -> Vec<String> {
    let items = document["paths"].as_object().unwrap().values();
    let operations = items.flat_map(|item| item.as_object().unwrap().values());
    operations.filter_map(|one| Some(one.get("operationId")?.as_str()?.to_owned())).collect()
}

#[test]
fn ids_come_from_paths_and_are_never_shared() {
    let document = document(&[mount("a-b/"), mount("a/b/")]);
    let all = ids(&document);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    for id in ["a-b-roles-name-read", "a-b-roles-name-read-2", "a-b-roles-list"] {
        assert!(all.iter().any(|other| other == id), "{id} in {all:?}");
    }
}

#[test]
fn a_list_has_a_path_of_its_own_beside_a_read() {
    let document = document(&[mount("m/")]);
    let paths = &document["paths"];
    assert_eq!(paths["/m/roles"]["get"]["x-leasehold-list"], true);
    assert_eq!(paths["/m/{path}"]["get"]["operationId"], "m-path-read");
    assert_eq!(paths["/m/{path}/"]["get"]["operationId"], "m-path-list");
    let top = &paths["/m/"];
    assert_eq!(top["get"]["operationId"], "m-path-top-list");
    assert!(top.get("parameters").is_none(), "{top}");
}

#[test]
fn fields_are_where_the_server_reads_them() {
    let document = document(&[mount("m/")]);
    let role = &document["paths"]["/m/roles/{name}"];
    assert_eq!(role["parameters"][0]["name"], "name");
    let named = |method: &str| -> Vec<&str> {
        let all = role[method]["parameters"].as_array().unwrap();
        all.iter().filter_map(|parameter| parameter["name"].as_str()).collect()
    };
    assert_eq!(named("get"), ["version"]);
    assert_eq!(named("delete"), ["version"]);
    assert_eq!(named("post"), [""; 0]);
    assert!(role["post"]["requestBody"]["content"].get("application/json").is_some());
    assert!(role["patch"]["requestBody"]["content"].get("application/merge-patch+json").is_some());
    let body = &document["components"]["schemas"]["KindRolesNameRequest"]["properties"];
    let names: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(names, ["password", "period", "ttl"]);
    assert_eq!(body["ttl"]["type"], json!(["integer", "string"]));
    assert_eq!(body["period"]["deprecated"], true);
}

#[test]
fn who_may_ask_is_marked_as_generators_for_stock_clients_look_for_it() {
    let document = document(&[mount("m/")]);
    let paths = &document["paths"];
    assert_eq!(paths["/m/roles/{name}"]["x-vault-sudo"], true);
    assert_eq!(paths["/m/roles/{name}"]["x-vault-create-supported"], true);
    assert_eq!(paths["/m/login"]["x-vault-unauthenticated"], true);
    assert!(paths["/m/roles"].get("x-vault-sudo").is_none());
    assert_eq!(paths["/m/login"]["post"]["security"][0], json!({}));
    assert_eq!(paths["/m/roles"]["get"]["security"].as_array().unwrap().len(), 2);
}

#[test]
fn answers_are_exact() {
    let document = document(&[mount("m/")]);
    let whole = &document["components"]["schemas"]["KindRolesNameReadResponse"];
    assert_eq!(whole["additionalProperties"], false);
    assert_eq!(whole["required"].as_array().unwrap().len(), 9);
    assert_eq!(whole["then"]["properties"]["data"]["type"], "object");
    let data = &whole["properties"]["data"]["anyOf"][0];
    assert_eq!(data["additionalProperties"], false);
    assert_eq!(data["required"], json!(["ttl"]));
    assert_eq!(data["properties"]["note"]["type"], json!(["string", "null"]));
    assert_eq!(data["properties"]["ttl"]["type"], "integer");
}

#[test]
fn a_generic_place_has_its_path_as_a_parameter() {
    let options = BTreeMap::from([("version".to_owned(), "2".to_owned())]);
    let place = Place::mount("team/secrets/", "kv", &options, TABLE).anywhere();
    let document = document(&[place, Place::mount("auth/x/", "kind", &options, TABLE).anywhere()]);
    let paths = document["paths"].as_object().unwrap();
    let role = &paths["/{kv_v2_mount_path}/roles/{name}"];
    assert_eq!(role["parameters"][0]["schema"]["default"], "kv-v2");
    assert_eq!(role["get"]["operationId"], "kv-v2-roles-name-read");
    assert!(paths.contains_key("/auth/{kind_v2_mount_path}/login"));
    assert!(!document.to_string().contains("team"), "no mount is named");
    let fixed = Place::mount("cubbyhole/", "cubbyhole", &BTreeMap::new(), TABLE).anywhere();
    assert_eq!(fixed.at(), "cubbyhole/");
}
