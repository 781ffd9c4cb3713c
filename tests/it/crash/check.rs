//! What was promised, held against the store, the audit and the target.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use chrono::DateTime;
use futures_util::stream::{self, StreamExt};
use serde_json::{Value, json};
use tokio_postgres::NoTls;

use super::clerk::{Clerk, Credential, Fate, Standing};
use super::{World, text};
use crate::support::broker::{Broker, Caller};

/// Longest wait for a sweep to have worked off what the dead left.
pub const SETTLING_MAX: Duration = Duration::from_secs(60);
/// How much longer than its lease a target lets a user in, in milliseconds: five seconds for clocks that
/// differ, rounded up to a whole one.
const EXPIRY_SLACK: i64 = 6_000;
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Logins tried at the same time.
const LOGINS: usize = 8;

/// A lease, as the API shows it.
#[derive(Debug)]
pub struct Row {
    pub id: String,
    state: String,
    /// In the servers' milliseconds.
    expires_at: i64,
}

/// A role on the target.
#[derive(Debug)]
struct User {
    name: String,
    can_log_in: bool,
    /// When PostgreSQL itself ends it, in milliseconds; `None` is never.
    valid_until: Option<i64>,
}

/// Everything there is of the world's credentials, by database role.
#[derive(Debug)]
pub struct Seen {
    pub rows: BTreeMap<String, Row>,
    users: BTreeMap<String, User>,
    from: i64,
    to: i64,
}

impl Seen {
    /// Nothing is on its way out or over any more, and target and store name the same.
    fn is_settled(&self, doomed: &BTreeSet<String>) -> bool {
        let alive = |row: &Row| row.state == "active" && row.expires_at > self.to;
        self.rows.values().all(alive)
            && self.rows.keys().eq(self.users.keys())
            && self.users.values().all(|user| user.can_log_in)
            && !self.rows.keys().any(|role| doomed.contains(role))
    }

    fn is_gone(&self, role: &str) -> bool {
        !self.rows.contains_key(role) && !self.users.contains_key(role)
    }
}

/// A moment of an answer, in milliseconds.
pub fn moment(value: &Value) -> i64 {
    DateTime::parse_from_rfc3339(&text(value)).unwrap().timestamp_millis()
}

impl World {
    /// Holds everything against each other, as `node` shows it. With `settled`, waits until the sweep
    /// has done its work, and then suffers nothing that is half done.
    pub async fn check(&self, node: usize, clerks: &mut [Clerk], settled: bool) {
        let broker = &self.nodes[node];
        let root = broker.root();
        let hold = root.read("sys/hold").await.data();
        assert_eq!(hold["held"], json!(false), "a kill looks like an old backup: {hold}");
        for clerk in clerks.iter_mut() {
            clerk.check_kept(&root).await;
            clerk.check_tokens(self, broker, settled).await;
        }
        let seen = if settled {
            let doomed = clerks.iter().flat_map(Clerk::doomed).collect();
            self.until_settled(&root, &doomed).await
        } else {
            self.look(&root).await
        };
        for (role, user) in &seen.users {
            assert!(seen.rows.contains_key(role), "no lease names {user:?}: {seen:#?}");
        }
        self.check_audit(&seen, clerks, settled);
        for clerk in clerks.iter_mut() {
            clerk.check_nesting(&seen);
            clerk.check_credentials(self, &seen, settled, &root).await;
        }
    }

    /// The rows first: what is seen on the target later and is named by none of them was named by none
    /// when it was seen, because nobody is issuing.
    pub async fn look(&self, root: &Caller) -> Seen {
        let (from, mut rows) = (self.now(), BTreeMap::new());
        let mut after = json!(null);
        loop {
            let body = json!({ "mount": "database/", "after": after });
            let page = root.write("sys/leases/search", body).await.data();
            for row in page["leases"].as_array().unwrap() {
                let found = Row {
                    id: text(&row["id"]),
                    state: text(&row["state"]),
                    expires_at: moment(&row["expire_time"]),
                };
                let twice = rows.insert(text(&row["role"]), found);
                assert!(twice.is_none(), "two leases of one request: {twice:?} and {row}");
            }
            after = page["next"].clone();
            if after.is_null() {
                break;
            }
        }
        let named = "SELECT rolname, rolcanlogin, CASE WHEN isfinite(rolvaliduntil) \
             THEN (extract(epoch FROM rolvaliduntil) * 1000)::int8 END \
             FROM pg_roles WHERE starts_with(rolname, $1)";
        let mut users = BTreeMap::new();
        for found in self.target.query(named, &[&self.prefix]).await.unwrap() {
            let user =
                User { name: found.get(0), can_log_in: found.get(1), valid_until: found.get(2) };
            let role = user.name.split('-').next().unwrap().to_owned();
            let twice = users.insert(role, user);
            assert!(twice.is_none(), "two users of one request, one is {twice:?}");
        }
        Seen { rows, users, from, to: self.now() }
    }

    async fn until_settled(&self, root: &Caller, doomed: &BTreeSet<String>) -> Seen {
        let began = Instant::now();
        loop {
            let seen = self.look(root).await;
            if seen.is_settled(doomed) {
                return seen;
            }
            assert!(
                began.elapsed() < self.settling_max,
                "not everything was taken back; doomed: {doomed:?}\n{seen:#?}"
            );
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    pub async fn lets_in(&self, one: &Credential) -> bool {
        let url = self.server.url_for(&one.user, &one.password, &self.database);
        match tokio_postgres::connect(&url, NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                client.simple_query("SELECT * FROM stock").await.is_ok()
            }
            Err(_) => false,
        }
    }
}

impl Clerk {
    /// What was acknowledged is there, or what was tried later; and it is whole.
    async fn check_kept(&mut self, root: &Caller) {
        for (path, kept) in &mut self.secrets {
            let answer = root.read(path).await;
            let found = (answer.status != 404).then(|| answer.data()["data"].clone());
            let value = found.as_ref().map(|data| data["value"].as_u64().unwrap());
            if let Some(data) = found {
                assert_eq!(data["value"], data["twin"], "{path} was written by halves");
            }
            assert!(
                value == kept.known || value.is_some_and(|value| kept.tried.contains(&value)),
                "{path} is {value:?}: {kept:?}"
            );
            (kept.known, kept.tried) = (value, Vec::new());
        }
        for (path, kept) in &mut self.policies {
            let answer = root.read(path).await;
            let found = (answer.status != 404).then(|| text(&answer.data()["policy"]));
            let value = found.map(|policy| {
                let number = policy.split("number/").nth(1).unwrap().split('"').next().unwrap();
                number.parse().unwrap()
            });
            assert!(
                value == kept.known || value.is_some_and(|value| kept.tried.contains(&value)),
                "{path} is {value:?}: {kept:?}"
            );
            (kept.known, kept.tried) = (value, Vec::new());
        }
    }

    /// Tokens that were answered work, and those whose revocation was answered do not.
    async fn check_tokens(&mut self, world: &World, broker: &Broker, all: bool) {
        let caller = broker.admin();
        for index in 0..self.tokens.len() {
            let one = &mut self.tokens[index];
            let looked_at = one.touched || all && one.standing == Standing::Live;
            if !looked_at {
                continue;
            }
            let headers = [("x-vault-token", one.token.as_str())];
            let answer = caller.request("GET", "auth/token/lookup-self", &headers, b"").await;
            let lives = answer.status == 200;
            assert!(lives || answer.status == 403, "{}", answer.body);
            one.touched = false;
            if lives {
                let ends_at = moment(&answer.data()["expire_time"]);
                assert!(ends_at >= one.lives_until, "a token ends too early: {ends_at} {one:?}");
                assert!(ends_at <= one.over_at, "a token ends too late: {ends_at} {one:?}");
            }
            match one.standing {
                Standing::Live if !lives => {
                    let is_over = world.now() >= one.lives_until;
                    assert!(is_over, "a token that was answered is lost");
                    one.standing = Standing::Revoked;
                }
                Standing::Live => {}
                Standing::Revoked => assert!(!lives, "a revoked token works"),
                Standing::Unclear if lives => one.standing = Standing::Live,
                Standing::Unclear => one.standing = Standing::Revoked,
            }
        }
    }

    /// Whether the token that a credential ends with has ended.
    fn owner_is_gone(&self, one: &Credential) -> bool {
        one.owner.is_some_and(|token| self.tokens[token].standing == Standing::Revoked)
    }

    /// The database roles whose credentials have to go, though their leases may not say so yet.
    fn doomed(&self) -> Vec<String> {
        let all = self.credentials.iter();
        let doomed = all.filter(|one| one.fate == Fate::Doomed || self.owner_is_gone(one));
        doomed.map(|one| one.role.clone()).collect()
    }

    /// A user ends with its lease, the lease when it was asked to, and both before its role's maximum
    /// and before the token that they belong to.
    fn check_nesting(&self, seen: &Seen) {
        for one in &self.credentials {
            let Some(row) = seen.rows.get(&one.role) else { continue };
            let user = seen.users.get(&one.role);
            let what = || format!("{one:#?}: {row:?}, {user:?}");
            assert!(row.expires_at <= one.over_at, "it lives longer than asked: {}", what());
            assert!(row.expires_at <= one.max_at, "it lives longer than it may: {}", what());
            let owner = one.owner.map(|token| &self.tokens[token]);
            let nests = owner.is_none_or(|token| row.expires_at <= token.over_at);
            assert!(nests, "it outlives its token: {}, {owner:?}", what());
            // A renewal tells the target first. Broken off in between, the lease ends it earlier.
            let told = one.told_at_most.unwrap_or(i64::MIN).min(one.max_at);
            let latest = row.expires_at.max(told) + EXPIRY_SLACK;
            let ends = user.is_none_or(|user| user.valid_until.is_some_and(|at| at <= latest));
            assert!(ends, "it outlives its lease on the target: {}", what());
        }
    }

    async fn check_credentials(
        &mut self,
        world: &World,
        seen: &Seen,
        settled: bool,
        root: &Caller,
    ) {
        let gone: Vec<bool> = self.credentials.iter().map(|one| self.owner_is_gone(one)).collect();
        for (one, owner_is_gone) in self.credentials.iter_mut().zip(gone) {
            let (row, user) = (seen.rows.get(&one.role), seen.users.get(&one.role));
            let what = || format!("{one:#?}: {row:?}, {user:?}");
            let is_over = seen.from > one.over_at;
            match one.fate {
                Fate::Live if owner_is_gone => {}
                Fate::Live if seen.to < one.lives_until => {
                    let row =
                        row.unwrap_or_else(|| panic!("an answered lease is lost: {}", what()));
                    assert_eq!(
                        (row.id.as_str(), row.state.as_str()),
                        (one.lease.as_str(), "active")
                    );
                    assert!(row.expires_at >= one.lives_until, "it ends too early: {}", what());
                    let works = user.is_some_and(|user| user.name == one.user && user.can_log_in);
                    assert!(works, "an answered credential does not work: {}", what());
                }
                Fate::Doomed => {
                    let active = row.is_some_and(|row| row.state == "active");
                    assert!(!active, "its token was revoked: {}", what());
                }
                Fate::Dead => {
                    assert!(seen.is_gone(&one.role), "a dead credential is there: {}", what());
                }
                Fate::Asked | Fate::Ending | Fate::Live => {}
            }
            if !settled {
                continue;
            }
            let must_be_gone = is_over || owner_is_gone || one.fate == Fate::Doomed;
            assert!(!must_be_gone || seen.is_gone(&one.role), "it was not taken back: {}", what());
            one.fate = match (one.fate, row) {
                (_, None) => Fate::Dead,
                (Fate::Asked, Some(row)) => {
                    // Nobody has its password.
                    let body = json!({ "lease_id": row.id });
                    root.write("sys/leases/revoke", body).await.ok();
                    Fate::Dead
                }
                (Fate::Ending, Some(_)) => Fate::Live,
                (fate, Some(_)) => fate,
            };
        }
        self.try_logins(world, settled).await;
    }

    /// Those that something has happened to; when all is `settled`, every one that should live.
    async fn try_logins(&mut self, world: &World, settled: bool) {
        let tried = self.credentials.iter().filter(|one| {
            let known = matches!(one.fate, Fate::Live | Fate::Dead) && !one.user.is_empty();
            known && (one.touched || settled && one.fate == Fate::Live)
        });
        let mut outcomes = stream::iter(tried)
            .map(|one| async move { (one, world.lets_in(one).await) })
            .buffer_unordered(LOGINS);
        while let Some((one, works)) = outcomes.next().await {
            let (lives, dead) = (world.now() < one.lives_until, one.fate == Fate::Dead);
            assert!(works || dead || !lives, "PostgreSQL refuses an answered credential: {one:#?}");
            assert!(!works || !dead, "PostgreSQL lets a dead credential in: {one:#?}");
        }
        drop(outcomes);
        for one in &mut self.credentials {
            one.touched &= !matches!(one.fate, Fate::Live | Fate::Dead);
        }
    }
}
