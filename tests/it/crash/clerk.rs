//! A client that works one request at a time and writes down what it was promised.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{CREATE, Dice, World, text};
use crate::support::broker::{Broker, Caller};
use crate::support::postgres::TestPostgres;
use crate::support::wire::Answer;

/// Longest wait for an answer. Longer than a session of the dead can be in the way on PostgreSQL.
const PATIENCE: Duration = Duration::from_secs(15);
/// The same where a target is waited for until that is given up.
pub const LONG_PATIENCE: Duration = Duration::from_secs(55);

/// What PostgreSQL is doing, for whoever looks for the cause of a standstill.
fn activity() -> String {
    let sql = "SELECT pid, datname, state, wait_event_type, wait_event, pg_blocking_pids(pid), \
         now() - state_change, left(query, 300) FROM pg_stat_activity WHERE datname LIKE 'test%'";
    TestPostgres::shared().sql("postgres", sql)
}

/// The connection broke, or the server said that it failed: nobody knows whether it happened.
#[derive(Debug)]
pub struct Lost;

/// Lifetimes of credentials, in seconds: one that outlives the test, one that ends during it.
pub const LONG: i64 = 24 * 3600;
pub const BRIEF: i64 = 2;
/// Lifetimes of tokens, in seconds.
const TOKENS: [i64; 2] = [160 * 3600, 20 * 3600];
/// What a renewal asks for, in seconds.
const RENEWED: i64 = 30 * 3600;
/// Acts for each rotation of the keys, on average.
const KEYS_ROTATED_ONE_IN: usize = 100;
/// Names that one clerk writes to.
const SLOTS: usize = 4;
/// Credentials that one clerk holds; then it gives some back.
const HELD_MAX: usize = 8;

/// What was written under a name. Values only ever grow.
#[derive(Debug, Default)]
pub struct Kept {
    /// What it was last acknowledged, or seen, to be.
    pub known: Option<u64>,
    /// What was written since, without an answer.
    pub tried: Vec<u64>,
}

/// How a token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Live,
    /// It was to be revoked, and nobody knows whether it was.
    Unclear,
    Revoked,
}

#[derive(Debug)]
pub struct Token {
    pub token: String,
    pub standing: Standing,
    /// Whether anything happened to it since it was last looked at.
    pub touched: bool,
    /// In the servers' milliseconds: until when it lives at least, and at most.
    pub lives_until: i64,
    pub over_at: i64,
}

/// What was promised about a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was asked for, and nothing was answered: it is named by a lease or it does not exist.
    Asked,
    /// It works.
    Live,
    /// It was to be revoked, and nobody knows whether it was.
    Ending,
    /// It is on its way out: its token was revoked.
    Doomed,
    /// It is dead.
    Dead,
}

/// One request for a credential. Each has a database role of its own, so that everything that came of
/// it can be told apart on the target, among the leases and here.
#[derive(Debug)]
pub struct Credential {
    pub role: String,
    pub fate: Fate,
    pub lease: String,
    pub user: String,
    pub password: String,
    /// In the servers' milliseconds: until when it lives at least, and at most.
    pub lives_until: i64,
    pub over_at: i64,
    /// When its role ends it at the latest, however often it is renewed.
    pub max_at: i64,
    /// What a renewal that nobody heard of may have told the target.
    pub told_at_most: Option<i64>,
    /// When it was answered.
    pub answered_at: Option<Instant>,
    /// Whether the audit was seen to say so.
    pub recorded: bool,
    /// Whether the power was cut so soon after it was given that its entry may be gone, for ever.
    pub entry_unsure: bool,
    /// The token that it was asked for with, when it ends with that.
    pub owner: Option<usize>,
    /// Whether anything happened to it since it was last tried.
    pub touched: bool,
}

/// A request that was answered.
#[derive(Debug)]
pub struct Answered {
    pub at: Instant,
    pub id: String,
    pub path: String,
}

/// A connection to a server, and the token that may do everything.
pub struct Desk {
    caller: Caller,
    root: String,
}

impl Desk {
    pub fn at(broker: &Broker) -> Self {
        Self { caller: broker.admin(), root: broker.root_token() }
    }
}

/// One client.
pub struct Clerk {
    name: String,
    serial: u64,
    /// How long it waits for an answer.
    pub patience: Duration,
    pub secrets: BTreeMap<String, Kept>,
    pub policies: BTreeMap<String, Kept>,
    pub tokens: Vec<Token>,
    pub credentials: Vec<Credential>,
    /// The requests that were answered since this was last looked at.
    pub answered: Vec<Answered>,
    /// What the server failed with.
    pub failures: Vec<String>,
}

impl Clerk {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            serial: 0,
            patience: PATIENCE,
            secrets: BTreeMap::new(),
            policies: BTreeMap::new(),
            tokens: Vec::new(),
            credentials: Vec::new(),
            answered: Vec::new(),
            failures: Vec::new(),
        }
    }

    async fn send(
        &mut self,
        desk: &Desk,
        (method, path): (&str, &str),
        headers: &[(&str, &str)],
        body: Value,
    ) -> Result<Answer, Lost> {
        let own = [("x-vault-token", desk.root.as_str())];
        let given = headers.iter().any(|(name, _)| *name == "x-vault-token");
        let all = if given { headers.to_vec() } else { [&own, headers].concat() };
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let asked = desk.caller.try_request(method, path, &all, body.as_bytes());
        let Ok(outcome) = tokio::time::timeout(self.patience, asked).await else {
            panic!("{method} {path} hangs:\n{}", activity());
        };
        let answer = outcome.map_err(|_| Lost)?;
        // Where the audit takes no entry, the answer is this one, and without.
        if answer.status != 503 {
            let id = answer.header("x-request-id").unwrap().to_owned();
            self.answered.push(Answered { at: Instant::now(), id, path: path.to_owned() });
        }
        if answer.status >= 500 {
            self.failures.push(format!("{method} {path}: {} {}", answer.status, answer.body));
            return Err(Lost);
        }
        assert!(answer.status < 400, "{method} {path}: {} {}", answer.status, answer.body);
        Ok(answer)
    }

    fn next(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// Writes a secret that holds its value twice.
    pub async fn write_secret(&mut self, desk: &Desk, slot: usize) -> Result<(), Lost> {
        let (value, path) = (self.next(), format!("secret/data/{}-{slot}", self.name));
        self.secrets.entry(path.clone()).or_default().tried.push(value);
        let pad = "p".repeat(usize::try_from(value % 5).unwrap() * 700);
        let body = json!({ "data": { "value": value, "pad": pad, "twin": value } });
        self.send(desk, ("POST", &path), &[], body).await?;
        self.secrets.insert(path, Kept { known: Some(value), tried: Vec::new() });
        Ok(())
    }

    /// Writes a policy that holds its value in its text.
    pub async fn write_policy(&mut self, desk: &Desk, slot: usize) -> Result<(), Lost> {
        let (value, path) = (self.next(), format!("sys/policies/acl/{}-{slot}", self.name));
        self.policies.entry(path.clone()).or_default().tried.push(value);
        let policy = format!("path \"number/{value}\" {{ capabilities = [\"read\"] }}");
        self.send(desk, ("POST", &path), &[], json!({ "policy": policy })).await?;
        self.policies.insert(path, Kept { known: Some(value), tried: Vec::new() });
        Ok(())
    }

    /// Makes a token that may do everything. Every other one ends before what is leased with it
    /// otherwise would.
    pub async fn make_token(&mut self, world: &World, desk: &Desk) -> Result<(), Lost> {
        let lifetime = TOKENS[self.tokens.len() % TOKENS.len()];
        let body = json!({ "policies": ["root"], "ttl": lifetime });
        let asked_at = world.now();
        let made = self.send(desk, ("POST", "auth/token/create"), &[], body).await?.ok();
        self.tokens.push(Token {
            token: text(&made["auth"]["client_token"]),
            standing: Standing::Live,
            touched: true,
            lives_until: asked_at + lifetime * 1000 - 1000,
            over_at: world.now() + lifetime * 1000 + 1000,
        });
        Ok(())
    }

    /// Revokes one of its tokens; what was leased with it is to end.
    pub async fn revoke_token(&mut self, desk: &Desk, index: usize) -> Result<(), Lost> {
        let token = &mut self.tokens[index];
        (token.standing, token.touched) = (Standing::Unclear, true);
        let body = json!({ "token": token.token });
        self.owned_by(index, Fate::Ending);
        self.send(desk, ("POST", "auth/token/revoke"), &[], body).await?;
        self.tokens[index].standing = Standing::Revoked;
        self.owned_by(index, Fate::Doomed);
        Ok(())
    }

    /// Credentials that end with a token come to `fate`, unless they have ended already.
    pub fn owned_by(&mut self, token: usize, fate: Fate) {
        for one in &mut self.credentials {
            if one.owner == Some(token) && matches!(one.fate, Fate::Live | Fate::Ending) {
                (one.fate, one.touched) = (fate, true);
            }
        }
    }

    /// Leases a credential of a role of its own. With one of its tokens, it ends with that; wrapped,
    /// the answer is fetched by a second request.
    pub async fn lease(
        &mut self,
        world: &World,
        desk: &Desk,
        lifetime: i64,
        owner: Option<usize>,
        wrap: bool,
    ) -> Result<(), Lost> {
        let number = self.next();
        let role = format!("{}{}n{number}", world.prefix, self.name);
        let body = json!({
            "db_name": "pg",
            "creation_statements": CREATE,
            "default_ttl": lifetime,
            "max_ttl": 2 * lifetime,
        });
        self.send(desk, ("POST", &format!("database/roles/{role}")), &[], body).await?;
        let over_at = world.now() + (lifetime + 60) * 1000;
        let nothing = String::new;
        self.credentials.push(Credential {
            role: role.clone(),
            fate: Fate::Asked,
            lease: nothing(),
            user: nothing(),
            password: nothing(),
            lives_until: i64::MIN,
            over_at,
            max_at: over_at + lifetime * 1000,
            told_at_most: None,
            answered_at: None,
            recorded: false,
            entry_unsure: false,
            owner,
            touched: true,
        });
        let last = self.credentials.len() - 1;
        let token = owner.map(|index| self.tokens[index].token.clone());
        let mut headers = Vec::new();
        headers.extend(token.iter().map(|token| ("x-vault-token", token.as_str())));
        headers.extend(wrap.then_some(("x-vault-wrap-ttl", "100h")));
        let asked_at = world.now();
        let path = format!("database/creds/{role}");
        let mut answer = self.send(desk, ("GET", &path), &headers, Value::Null).await?.ok();
        if wrap {
            let body = json!({ "token": answer["wrap_info"]["token"] });
            answer = self.send(desk, ("POST", "sys/wrapping/unwrap"), &[], body).await?.ok();
        }
        let max_at = world.now() + 2 * lifetime * 1000 + 1000;
        let lifetime = answer["lease_duration"].as_i64().unwrap() * 1000;
        let one = &mut self.credentials[last];
        one.fate = Fate::Live;
        (one.answered_at, one.max_at) = (Some(Instant::now()), max_at);
        one.lease = text(&answer["lease_id"]);
        one.user = text(&answer["data"]["username"]);
        one.password = text(&answer["data"]["password"]);
        one.lives_until = asked_at + lifetime - 1000;
        one.over_at = world.now() + lifetime + 1000;
        Ok(())
    }

    /// Renews a credential.
    pub async fn renew(&mut self, world: &World, desk: &Desk, index: usize) -> Result<(), Lost> {
        let one = &mut self.credentials[index];
        let body = json!({ "lease_id": one.lease, "increment": RENEWED });
        // It may be prolonged without anybody hearing of it.
        one.over_at = one.over_at.max(world.now() + (RENEWED + 60) * 1000);
        one.told_at_most = Some(one.over_at);
        let asked_at = world.now();
        let answer = self.send(desk, ("POST", "sys/leases/renew"), &[], body).await?.ok();
        let lifetime = answer["lease_duration"].as_i64().unwrap() * 1000;
        let one = &mut self.credentials[index];
        one.lives_until = one.lives_until.max(asked_at + lifetime - 1000);
        (one.over_at, one.told_at_most) = (world.now() + lifetime + 1000, None);
        one.touched = true;
        Ok(())
    }

    /// Revokes a credential, alone or as everything of its role.
    pub async fn revoke(
        &mut self,
        world: &World,
        desk: &Desk,
        index: usize,
        bulk: bool,
    ) -> Result<(), Lost> {
        let one = &mut self.credentials[index];
        (one.fate, one.touched) = (Fate::Ending, true);
        let (path, body) = if bulk {
            let path = format!("sys/leases/revoke-prefix/database/creds/{}", one.role);
            // With other nodes, one that dies may have it in hand, and then waiting takes minutes.
            (path, json!({ "sync": world.nodes.len() == 1 }))
        } else {
            ("sys/leases/revoke".to_owned(), json!({ "lease_id": one.lease }))
        };
        let answer = self.send(desk, ("POST", &path), &[], body).await?;
        // 202 says that it goes on.
        if answer.status != 202 {
            self.credentials[index].fate = Fate::Dead;
        }
        Ok(())
    }

    /// The indices of credentials that live and are not about to end by themselves.
    fn held(&self, world: &World) -> Vec<usize> {
        let soon = world.now() + 60_000;
        let of_own = self.credentials.iter().enumerate();
        of_own
            .filter(|(_, one)| one.fate == Fate::Live && one.lives_until > soon)
            .map(|(index, _)| index)
            .collect()
    }

    fn live_tokens(&self, world: &World) -> Vec<usize> {
        let soon = world.now() + 60_000;
        let live = |one: &Token| one.standing == Standing::Live && one.lives_until > soon;
        let all = self.tokens.iter().enumerate();
        all.filter(|(_, one)| live(one)).map(|(index, _)| index).collect()
    }

    /// Does something.
    pub async fn act(&mut self, world: &World, desk: &Desk, dice: &mut Dice) -> Result<(), Lost> {
        let (mut held, mut tokens) = (self.held(world), self.live_tokens(world));
        let slot = dice.below(SLOTS);
        if dice.below(KEYS_ROTATED_ONE_IN) == 0 {
            return self.send(desk, ("POST", "sys/rotate"), &[], Value::Null).await.map(|_| ());
        }
        let choice = dice.below(20);
        if held.len() >= HELD_MAX {
            let index = *dice.pick(&mut held).unwrap();
            return self.revoke(world, desk, index, choice.is_multiple_of(4)).await;
        }
        match choice {
            0..5 => self.write_secret(desk, slot).await,
            5..7 => self.write_policy(desk, slot).await,
            7..9 => self.make_token(world, desk).await,
            9 => match dice.pick(&mut tokens) {
                Some(index) => self.revoke_token(desk, *index).await,
                None => self.make_token(world, desk).await,
            },
            10..13 => self.lease(world, desk, LONG, None, false).await,
            13 => self.lease(world, desk, LONG, None, true).await,
            14 => self.lease(world, desk, BRIEF, None, false).await,
            15 => self.lease(world, desk, LONG, dice.pick(&mut tokens).copied(), false).await,
            16..18 => match dice.pick(&mut held) {
                Some(index) => self.renew(world, desk, *index).await,
                None => self.lease(world, desk, LONG, None, false).await,
            },
            _ => match dice.pick(&mut held) {
                Some(index) => self.revoke(world, desk, *index, choice == 18).await,
                None => self.lease(world, desk, LONG, None, false).await,
            },
        }
    }
}
