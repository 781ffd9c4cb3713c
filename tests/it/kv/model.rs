//! Any sequence of requests against a model that is too simple to be wrong.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const PATHS: [&str; 3] = ["a", "a/1", "b"];

#[derive(Clone, Debug)]
enum Step {
    Write { path: usize, value: u8, cas: Option<u64> },
    Patch { path: usize, value: u8 },
    DeleteLatest { path: usize },
    Delete { path: usize, version: u64 },
    Undelete { path: usize, version: u64 },
    Destroy { path: usize, version: u64 },
    Limit { path: usize, count: u64 },
    DeleteAfter { secs: u64 },
    Remove { path: usize },
    Wait { secs: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let path = || 0..PATHS.len();
    let version = || 1..6u64;
    prop_oneof![
        4 => (path(), any::<u8>(), prop::option::weighted(0.3, 0..4u64))
            .prop_map(|(path, value, cas)| Step::Write { path, value, cas }),
        2 => (path(), any::<u8>()).prop_map(|(path, value)| Step::Patch { path, value }),
        1 => path().prop_map(|path| Step::DeleteLatest { path }),
        1 => (path(), version()).prop_map(|(path, version)| Step::Delete { path, version }),
        1 => (path(), version()).prop_map(|(path, version)| Step::Undelete { path, version }),
        1 => (path(), version()).prop_map(|(path, version)| Step::Destroy { path, version }),
        1 => (path(), 0..4u64).prop_map(|(path, count)| Step::Limit { path, count }),
        1 => (0..30u64).prop_map(|secs| Step::DeleteAfter { secs }),
        1 => path().prop_map(|path| Step::Remove { path }),
        1 => (1..20u64).prop_map(|secs| Step::Wait { secs }),
    ]
}

/// A version: its value until destroyed, and when it is hidden.
#[derive(Clone, Debug)]
struct Kept {
    data: Option<Value>,
    hidden_at: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct Secret {
    limit: u64,
    latest: u64,
    versions: BTreeMap<u64, Kept>,
}

#[derive(Default)]
struct Model {
    now: u64,
    delete_after: u64,
    secrets: BTreeMap<&'static str, Secret>,
}

impl Model {
    fn readable(&self, kept: &Kept) -> Option<Value> {
        kept.data.clone().filter(|_| kept.hidden_at.is_none_or(|at| at > self.now))
    }

    /// Applies the step and says the status of the answer.
    fn apply(&mut self, step: &Step) -> u16 {
        match *step {
            Step::Write { path, value, cas } => {
                let latest = self.secrets.get(PATHS[path]).map_or(0, |secret| secret.latest);
                if cas.is_some_and(|cas| cas != latest) {
                    return 400;
                }
                self.add(PATHS[path], json!({ "v": value }));
                200
            }
            Step::Patch { path, value } => {
                let Some(secret) = self.secrets.get(PATHS[path]) else { return 404 };
                let Some(kept) = secret.versions.get(&secret.latest) else { return 404 };
                let Some(mut data) = self.readable(kept) else { return 404 };
                data[format!("p{}", value % 4)] = json!(value);
                self.add(PATHS[path], data);
                200
            }
            Step::DeleteLatest { path } => {
                let latest = self.secrets.get(PATHS[path]).map_or(0, |secret| secret.latest);
                self.hide(PATHS[path], latest);
                204
            }
            Step::Delete { path, version } => {
                self.hide(PATHS[path], version);
                204
            }
            Step::Undelete { path, version } => {
                if let Some(kept) = self.kept(PATHS[path], version)
                    && kept.data.is_some()
                {
                    kept.hidden_at = None;
                }
                204
            }
            Step::Destroy { path, version } => {
                if let Some(kept) = self.kept(PATHS[path], version) {
                    kept.data = None;
                }
                204
            }
            Step::Limit { path, count } => {
                self.secrets.entry(PATHS[path]).or_default().limit = count;
                204
            }
            Step::DeleteAfter { secs } => {
                self.delete_after = secs;
                204
            }
            Step::Remove { path } => {
                self.secrets.remove(PATHS[path]);
                204
            }
            Step::Wait { secs } => {
                self.now += secs;
                0
            }
        }
    }

    fn kept(&mut self, path: &'static str, version: u64) -> Option<&mut Kept> {
        self.secrets.get_mut(path)?.versions.get_mut(&version)
    }

    fn hide(&mut self, path: &'static str, version: u64) {
        let now = self.now;
        if let Some(kept) = self.kept(path, version)
            && kept.data.is_some()
            && kept.hidden_at.is_none_or(|at| at > now)
        {
            kept.hidden_at = Some(now);
        }
    }

    fn add(&mut self, path: &'static str, data: Value) {
        let hidden_at = (self.delete_after > 0).then_some(self.now + self.delete_after);
        let secret = self.secrets.entry(path).or_default();
        secret.latest += 1;
        secret.versions.insert(secret.latest, Kept { data: Some(data), hidden_at });
        let limit = if secret.limit == 0 { 10 } else { secret.limit };
        while secret.versions.len() as u64 > limit {
            secret.versions.pop_first();
        }
    }
}

async fn apply(store: &Store, kv: &Mount, step: &Step) -> u16 {
    let path = |kind: &str, path: usize| format!("{kind}/{}", PATHS[path]);
    let versions = |version: u64| json!({ "versions": [version] });
    let answered = match *step {
        Step::Write { path: at, value, cas } => {
            let mut body = json!({"data": {"v": value}});
            if let Some(cas) = cas {
                body["options"] = json!({ "cas": cas });
            }
            kv.put(&path("data", at), body).await
        }
        Step::Patch { path: at, value } => {
            let key = format!("p{}", value % 4);
            kv.patch(&path("data", at), json!({"data": {key: value}})).await
        }
        Step::DeleteLatest { path: at } => kv.delete(&path("data", at)).await,
        Step::Delete { path: at, version } => kv.put(&path("delete", at), versions(version)).await,
        Step::Undelete { path: at, version } => {
            kv.put(&path("undelete", at), versions(version)).await
        }
        Step::Destroy { path: at, version } => {
            kv.put(&path("destroy", at), versions(version)).await
        }
        Step::Limit { path: at, count } => {
            kv.put(&path("metadata", at), json!({ "max_versions": count })).await
        }
        Step::DeleteAfter { secs } => {
            kv.put("config", json!({ "delete_version_after": secs })).await
        }
        Step::Remove { path: at } => kv.delete(&path("metadata", at)).await,
        Step::Wait { secs } => {
            store.advance(secs);
            return 0;
        }
    };
    match answered {
        Ok(reply) => reply.http_status(),
        Err(error) => error.status(),
    }
}

async fn assert_same(model: &Model, kv: &Mount) {
    for path in PATHS {
        let Some(secret) = model.secrets.get(path) else {
            assert_not_found(kv.get(&format!("metadata/{path}")).await);
            assert_not_found(kv.get(&format!("data/{path}")).await);
            continue;
        };
        let metadata = kv.read(&format!("metadata/{path}")).await;
        assert_eq!(metadata["current_version"], secret.latest);
        let listed: Vec<_> = metadata["versions"].as_object().unwrap().keys().cloned().collect();
        let mut numbers: Vec<_> = secret.versions.keys().map(u64::to_string).collect();
        numbers.sort();
        assert_eq!(listed, numbers);
        for version in 1..=secret.latest + 1 {
            let body = json!({ "version": version });
            let read = kv.call(Operation::Read, &format!("data/{path}"), body).await;
            let Some(kept) = secret.versions.get(&version) else {
                assert_not_found(read);
                continue;
            };
            let read = read.unwrap().data.unwrap();
            assert_eq!(read["data"], model.readable(kept).unwrap_or_default(), "{path} {version}");
            assert_eq!(read["metadata"]["destroyed"], kept.data.is_none());
        }
    }
    let contents = model.secrets.values().flat_map(|secret| secret.versions.values());
    assert_eq!(kv.contents().await, contents.filter(|kept| kept.data.is_some()).count());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_requests_does_what_the_model_does(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = Store::new();
            let kv = store.versioned();
            let mut model = Model::default();
            for step in &steps {
                let status = apply(&store, &kv, step).await;
                assert_eq!(status, model.apply(step), "{step:?}");
                assert_same(&model, &kv).await;
            }
            // What one node has cached is what another finds stored.
            assert_same(&model, &store.versioned()).await;
        });
    }
}
