//! Every answer of every route, whole, as it is recorded in `golden/*.json`: each key, the status and
//! the media type. What varies is replaced by a placeholder of its type.
//!
//! `LEASEHOLD_GOLDEN=write` writes the files anew; what changed in them is then to be read, and
//! answered for, in the commit that changes it.

mod alike;
mod callers;
mod codes;
mod engines;
mod issuers;
mod limits;
mod own;
mod people;
mod refusals;
mod seal;
mod server;
mod stage;
mod transit;

use std::collections::BTreeSet;
use std::fs;

use leasehold::core::seal::endpoints;

use crate::access;
use stage::{answers_in, directory};

/// All routes, each with each method that it serves.
fn all() -> BTreeSet<(String, &'static str)> {
    let tables = access::tables().into_iter().flat_map(|(prefix, table)| {
        table.iter().map(move |route| (format!("{prefix}{}", route.pattern), route.operations))
    });
    let own = endpoints::specs().map(|spec| (spec.pattern.to_owned(), spec.operations));
    let methods = |(pattern, operations): (String, &'static [_])| {
        let method = |operation: &leasehold::core::operation::Operation| {
            (pattern.clone(), access::method(operation.as_str()))
        };
        operations.iter().map(method).collect::<Vec<_>>()
    };
    tables.chain(own).flat_map(methods).collect()
}

/// What is refused to everybody: there is no success to record.
const REFUSED: &[(&str, &str)] = &[("sys/step-down", "POST")];

#[test]
fn every_route_has_a_recorded_success() {
    let mut recorded = BTreeSet::new();
    for entry in fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "json") {
            continue;
        }
        for answer in answers_in(&path) {
            let status = answer["status"].as_u64().unwrap();
            if let (Some(route), 200..300) = (answer["route"].as_str(), status) {
                let method = answer["request"].as_str().unwrap().split(' ').next().unwrap();
                recorded.insert((route.to_owned(), method.to_owned()));
            }
        }
    }
    let missing: Vec<_> = all()
        .into_iter()
        .filter(|(route, method)| !REFUSED.contains(&(route.as_str(), *method)))
        .filter(|(route, method)| !recorded.contains(&(route.clone(), (*method).to_owned())))
        .collect();
    assert!(missing.is_empty(), "no success is recorded of {missing:#?}");
}
