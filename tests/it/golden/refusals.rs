//! The refusals that every route has: no identity, sealed, a method it does not serve, a body that is
//! none.

use std::collections::BTreeSet;

use leasehold::core::route::RouteSpec;
use leasehold::core::seal::endpoints;
use serde_json::json;

use super::alike::{Alike, send};
use super::stage::Stage;
use crate::access::method;
use crate::access::routes::{EXPECTED, Expected};
use crate::support::wire::soon;

const METHODS: &[&str] = &["DELETE", "GET", "LIST", "PATCH", "POST"];
/// What is sent when it should be refused: not an object, broken off, twice the same key.
const BAD_BODIES: &[&str] = &["[1]", "{\"a\":", "{\"a\":1,\"a\":2}"];

fn methods(one: &Expected) -> BTreeSet<&'static str> {
    one.operations.split(' ').map(method).collect()
}

fn operations(spec: &RouteSpec) -> BTreeSet<&'static str> {
    spec.operations.iter().map(|operation| method(operation.as_str())).collect()
}

#[tokio::test]
async fn refusals_answer_as_recorded() {
    let mut stage = Stage::open("refusals").await;
    let (root, nobody) = (stage.root.clone(), stage.broker.nobody());

    let mut refusals = Alike::new(&mut stage, "nobody asks");
    for one in EXPECTED.iter().filter(|one| !["anybody", "public"].contains(&one.access)) {
        for method in methods(one) {
            let answer = send(&nobody, method, one.path, "").await;
            assert_eq!(answer.status, 403, "{method} {}", one.pattern);
            refusals.add(format!("{method} {}", one.pattern), &answer);
        }
    }
    refusals.finish();

    let mut refusals = Alike::new(&mut stage, "the method is not served");
    for one in EXPECTED {
        for method in METHODS.iter().filter(|method| !methods(one).contains(**method)) {
            // Where another route has the same path, it is that one's answer.
            if super::stage::route_of(method, one.path) != Some(one.pattern) {
                continue;
            }
            let answer = send(&root, method, one.path, "").await;
            assert_eq!(answer.status, 405, "{method} {}", one.pattern);
            refusals.add(format!("{method} {}", one.pattern), &answer);
        }
    }
    for spec in endpoints::specs() {
        let served = operations(spec);
        for method in METHODS.iter().filter(|method| !served.contains(**method)) {
            let answer = send(&root, method, spec.pattern, "").await;
            assert_eq!(answer.status, 405, "{method} {}", spec.pattern);
            refusals.add(format!("{method} {}", spec.pattern), &answer);
        }
    }
    refusals.finish();

    for bad in BAD_BODIES {
        let mut refusals = Alike::new(&mut stage, bad);
        for spec in endpoints::specs().filter(|spec| operations(spec).contains("POST")) {
            let answer = send(&root, "POST", spec.pattern, bad).await;
            assert_eq!(answer.status, 400, "{}", spec.pattern);
            refusals.add(format!("POST {}", spec.pattern), &answer);
        }
        for one in EXPECTED {
            for method in methods(one).intersection(&BTreeSet::from(["PATCH", "POST"])) {
                let answer = send(&root, method, one.path, bad).await;
                assert_eq!(answer.status, 400, "{method} {}", one.pattern);
                refusals.add(format!("{method} {}", one.pattern), &answer);
            }
        }
        refusals.finish();
    }

    root.write("sys/seal", json!({})).await.ok();
    soon(async {
        while stage.broker.admin().read("sys/seal-status").await.ok()["sealed"] != json!(true) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    let root = stage.broker.root();
    let mut refusals = Alike::new(&mut stage, "the server is sealed");
    for one in EXPECTED {
        for method in methods(one) {
            let answer = send(&root, method, one.path, "").await;
            assert_eq!(answer.status, 503, "{method} {}", one.pattern);
            refusals.add(format!("{method} {}", one.pattern), &answer);
        }
    }
    refusals.finish();
    stage.finish();
}
