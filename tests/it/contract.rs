//! What the tables of routes promise, held against the answers that are recorded.

mod validator;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use leasehold::api::openapi::{Place, document};
use leasehold::core::operation::Operation;
use leasehold::core::route::Answer;
use leasehold::core::seal::endpoints;
use serde_json::{Value, json};

use crate::access;
use validator::Validator;

#[test]
fn every_read_says_what_it_answers() {
    let tables = access::tables()
        .into_iter()
        .flat_map(|(prefix, table)| table.iter().map(move |route| (prefix, route)));
    let undescribed: Vec<String> = tables
        .chain(endpoints::specs().map(|route| ("", route)))
        .filter(|(_, route)| {
            route.serves(Operation::Read)
                && matches!(route.answers.read, Answer::Nothing | Answer::Data([]))
        })
        .map(|(prefix, route)| format!("{prefix}{}", route.pattern))
        .collect();
    assert!(undescribed.is_empty(), "no answer is described of a read of {undescribed:#?}");
}

/// The document of everything, mounted as it is for the golden answers.
fn whole() -> Value {
    let mut places = vec![Place::seal()];
    for (prefix, table) in access::tables() {
        places.push(match access::MOUNTS.iter().find(|(path, ..)| *path == prefix) {
            Some((path, kind, options)) => {
                let options = options.iter().map(|(name, value)| ((*name).into(), (*value).into()));
                Place::mount(path, kind, &options.collect(), table)
            }
            None => Place::system(prefix, table),
        });
    }
    document(&places)
}

/// The operation of the document that a recorded request is for.
fn described<'d>(whole: &'d Value, method: &str, route: &str, lists: bool) -> Option<&'d Value> {
    let segment = |part: &str| match part.strip_prefix([':', '*']) {
        Some(name) => format!("{{{name}}}"),
        None => part.to_owned(),
    };
    let path = format!("/{}", route.split('/').map(segment).collect::<Vec<_>>().join("/"));
    let paths = &whole["paths"];
    let is_list = |operation: &&Value| operation["x-leasehold-list"] == json!(true);
    let at = |path: &str, method: &str| paths.get(path)?.get(method);
    if lists {
        let slashed = at(&format!("{path}/"), "get").filter(is_list);
        return slashed.or_else(|| at(&path, "get").filter(is_list));
    }
    let method = method.to_ascii_lowercase().replace("put", "post");
    at(&path, &method).filter(|operation| !is_list(operation))
}

/// What of an answer is not as its operation says.
fn faults(validator: &Validator<'_>, operation: &Value, answer: &Value) -> Vec<String> {
    let status = answer["status"].to_string();
    let responses = &operation["responses"];
    let Some(response) = responses.get(&status).or_else(|| responses.get("default")) else {
        return vec![format!("status {status} is not described")];
    };
    let response = validator.resolved(response);
    let Some(content) = response.get("content") else {
        let empty = answer["type"].is_null() && answer["answer"].is_null();
        return if empty { Vec::new() } else { vec!["there is a body".to_owned()] };
    };
    match answer["type"].as_str().and_then(|media_type| content.get(media_type)) {
        None => vec![format!("the type {} is not described", answer["type"])],
        Some(body) => match body.get("schema") {
            Some(schema) => validator.faults(schema, &answer["answer"]),
            None => vec!["the body has no schema".to_owned()],
        },
    }
}

/// Every content has a schema, and one that says something.
fn check_content(whose: &str, content: &Value) {
    let content = content.as_object().unwrap();
    assert!(!content.is_empty(), "{whose} has no type");
    for (media_type, body) in content {
        let schema = body.get("schema").and_then(Value::as_object);
        assert!(schema.is_some_and(|schema| !schema.is_empty()), "{whose} {media_type}");
    }
}

#[test]
fn recorded_answers_are_as_the_document_says() {
    let whole = whole();
    let validator = Validator::new(&whole);
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden");
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "json") {
            continue;
        }
        let answers: Vec<Value> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        for answer in &answers {
            // Refusals that many get alike are recorded once, with all who get them.
            let alike = answer["requests"].as_array().into_iter().flatten();
            let requests: Vec<(&str, &str)> = match answer["request"].as_str() {
                Some(request) => {
                    answer["route"].as_str().map(|r| (request, r)).into_iter().collect()
                }
                None => alike
                    .filter_map(Value::as_str)
                    .map(|request| (request, request.split(' ').nth(1).unwrap()))
                    .collect(),
            };
            for (request, route) in requests {
                let method = request.split(' ').next().unwrap();
                let lists = method == "LIST" || request.contains("list=true");
                // A slash at the end of a read asks for the list, too.
                let lists = lists || (method == "GET" && request.ends_with('/'));
                let Some(operation) = described(&whole, method, route, lists) else {
                    let refused = matches!(answer["status"].as_u64(), Some(400..500 | 503));
                    if method != "HEAD" && !refused {
                        wrong.push(format!("{request} is not described"));
                    }
                    continue;
                };
                seen += 1;
                let faults = faults(&validator, operation, answer);
                wrong.extend(
                    faults
                        .iter()
                        .map(|fault| format!("{request} ({route}), {}: {fault}", answer["status"])),
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{} faults:\n{}", wrong.len(), wrong.join("\n"));
    assert!(seen > 800, "only {seen} answers were looked at");
}

#[test]
fn the_document_has_schemas_everywhere_and_no_loose_ends() {
    let whole = whole();
    let validator = Validator::new(&whole);
    let mut ids = BTreeSet::new();
    for (path, item) in whole["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if method == "parameters" || method.starts_with("x-") {
                continue;
            }
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id), "{id} is there twice");
            for part in path.split('/').filter_map(|part| part.strip_prefix('{')) {
                let name = part.trim_end_matches('}');
                let known = item["parameters"].as_array().unwrap();
                assert!(known.iter().any(|one| one["name"] == name), "{path} has no {name}");
            }
            for (status, response) in operation["responses"].as_object().unwrap() {
                let content = validator.resolved(response).get("content");
                let empty = status == "204";
                assert_eq!(content.is_none(), empty, "{id} {status}");
                if let Some(content) = content {
                    check_content(&format!("{id} {status}"), content);
                }
            }
            assert!(operation["responses"].get("431").is_some(), "{id}");
            if let Some(body) = operation.get("requestBody") {
                check_content(id, &body["content"]);
            }
            let parameters = operation.get("parameters").into_iter().chain(item.get("parameters"));
            for parameter in parameters.flat_map(|all| all.as_array().unwrap()) {
                let parameter = validator.resolved(parameter);
                assert!(parameter["schema"].is_object(), "{id} {parameter}");
            }
        }
    }
    assert!(ids.len() > 150, "{} operations", ids.len());
    assert_eq!(validator.loose_ends(), [""; 0]);
}
