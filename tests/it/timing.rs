//! How long a refusal takes says nothing about the secret: neither how much of a guess is right nor
//! whether there is anything that it could be a guess of.
//!
//! Two kinds of guesses are made in turns, in an order that is drawn, and the quick ones of both are
//! compared: what a busy machine adds, it adds to the slow ones, and to both kinds alike. That this
//! would find what it is for is shown by the same comparison of checks that do leak.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use leasehold::api::sys::wrapping::WrappingRoutes;
use leasehold::auth::approle::ApproleMethod;
use leasehold::auth::userpass::{PasswordWork, UserpassMethod};
use leasehold::core::acl::permit::Permit;
use leasehold::core::engine::{
    AuthMethod, AuthOutcome, AuthRequest, Claim, EngineContext, Grant, Renewal,
};
use leasehold::core::error::CoreError;
use leasehold::core::mount::Registry;
use leasehold::core::peer::ConnectionInfo;
use leasehold::core::request::{Request, Verb};
use leasehold::core::route::RouteSpec;
use leasehold::crypto::blind::{TokenHash, TokenHashKey};
use leasehold::crypto::password::PasswordHash;
use leasehold::types::id::RequestId;
use leasehold::types::path::ApiPath;
use leasehold::types::secret::{SecretArray, SecretBytes, SecretString};
use leasehold::types::time::Ttl;
use serde_json::{Value, json};

use crate::support::core::{TestCore, TestSetup};
use crate::support::target::Targets;

/// The share of the samples that counts: the quickest.
const QUICK: f64 = 0.2;

/// Pairs of samples.
const PAIRS: usize = 600;
/// What two kinds may lie apart, as a share.
const ALIKE: f64 = 0.1;
/// The same where one kind is about what is there, and the other about what is not.
const ABOUT: f64 = 0.25;
/// The same where all is one long hash, of which few samples can be had: what skips it takes a
/// hundredth of the time.
const HASHED: f64 = 3.0;
/// What a leak as they are planted here sets them apart at least.
const PLAIN: f64 = 0.5;

/// The samples of two kinds, in nanoseconds.
#[derive(Default)]
struct Samples([Vec<u64>; 2]);

impl Samples {
    /// How much longer the one takes than the other, as a share of the shorter.
    fn gap(mut self) -> f64 {
        let [one, other] = &mut self.0;
        let mean = |samples: &mut Vec<u64>| {
            samples.sort_unstable();
            let quick = &samples[..(samples.len() as f64 * QUICK).ceil() as usize];
            quick.iter().sum::<u64>() as f64 / quick.len() as f64
        };
        let (one, other) = (mean(one), mean(other));
        (one - other).abs() / one.min(other)
    }
}

/// Which kinds to ask in which order: each once in each pair.
struct Turns(u64);

impl Turns {
    fn pair(&mut self) -> [usize; 2] {
        // A generator of numbers that need not be good: Knuth's, of 64 bits.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if self.0 >> 63 == 0 { [0, 1] } else { [1, 0] }
    }
}

/// The gap between `check` of the first kind and of the second. A sample is as many checks in a row as
/// take some microseconds, and short against what a scheduler gives.
fn gap(pairs: usize, in_a_row: usize, mut check: impl FnMut(usize) -> bool) -> f64 {
    let mut samples = Samples::default();
    let mut turns = Turns(1);
    for _ in 0..pairs {
        for kind in turns.pair() {
            let began = Instant::now();
            for _ in 0..in_a_row {
                black_box(check(black_box(kind)));
            }
            samples.0[kind].push(began.elapsed().as_nanos() as u64);
        }
    }
    samples.gap()
}

/// What such a check must not do: stop at the first difference.
fn leaky(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one == other)
}

/// Two wrong ones: one differs in its first byte, one in its last.
fn near(right: &[u8]) -> [Vec<u8>; 2] {
    let (mut first, mut last) = (right.to_vec(), right.to_vec());
    first[0] ^= 1;
    *last.last_mut().unwrap() ^= 1;
    [first, last]
}

#[test]
fn comparisons_take_as_long_wherever_the_difference_is() {
    let right = b"correct horse battery staple....";
    let wrong = near(right);
    let texts = wrong.each_ref().map(|wrong| String::from_utf8(wrong.clone()).unwrap());
    let array = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).unwrap();

    let hash = TokenHash::from_bytes(array(right));
    let hashes = wrong.each_ref().map(|wrong| TokenHash::from_bytes(array(wrong)));
    let secret = SecretBytes::new(right.to_vec());
    let secret_array = SecretArray::from_slice(right).unwrap();
    let arrays = wrong.each_ref().map(|wrong| array(wrong));
    let text = SecretString::new(String::from_utf8(right.to_vec()).unwrap());
    let key = TokenHashKey::new(&secret_array);
    let keyed = key.hash(&texts[0]);
    for (what, found) in [
        ("hashes", gap(PAIRS, 50, |kind| hash == hashes[kind])),
        ("bytes", gap(PAIRS, 50, |kind| secret.ct_eq(&wrong[kind]))),
        ("arrays", gap(PAIRS, 50, |kind| secret_array.ct_eq(&arrays[kind]))),
        ("texts", gap(PAIRS, 50, |kind| text.ct_eq(&texts[kind]))),
        ("tokens", gap(PAIRS, 4, |kind| key.hash(&texts[kind]) == keyed)),
    ] {
        assert!(found < ALIKE, "{what}: {found:.3}");
    }
    let found = gap(PAIRS, 50, |kind| leaky(right, &wrong[kind]));
    assert!(found > PLAIN, "this would not find anything: {found:.3}");
}

#[test]
fn passwords_take_as_long_wherever_the_difference_is() {
    let right = "correct horse battery staple";
    let stored = PasswordHash::of(&SecretString::new(right.to_owned())).unwrap();
    // At the least cost that there is, so that there can be many samples; the code is the same.
    let mut stored = serde_json::to_value(stored).unwrap();
    (stored["memory_kib"], stored["passes"]) = (json!(8), json!(1));
    let stored: PasswordHash = serde_json::from_value(stored).unwrap();
    let wrong = near(right.as_bytes()).map(|wrong| String::from_utf8(wrong).unwrap());
    let wrong = wrong.map(SecretString::new);
    let check = |kind: usize| PasswordHash::verify(Some(&stored), &wrong[kind]).unwrap();
    let found = gap(PAIRS, 1, check);
    assert!(found < ALIKE, "{found:.3}");
}

/// A method that knows too soon that a role is not there.
struct Leaky(ApproleMethod);

#[async_trait]
impl AuthMethod for Leaky {
    fn routes(&self) -> &'static [RouteSpec] {
        self.0.routes()
    }

    fn claim(&self, request: &AuthRequest<'_>) -> Option<Claim> {
        self.0.claim(request)
    }

    async fn handle(
        &self,
        ctx: &EngineContext<'_>,
        permit: &Permit,
        request: AuthRequest<'_>,
    ) -> Result<AuthOutcome, CoreError> {
        if request.fields.text("role_id")?.as_deref() == Some("other") {
            return Err(CoreError::denied("there is no such role"));
        }
        self.0.handle(ctx, permit, request).await
    }

    async fn renewal(
        &self,
        ctx: &EngineContext<'_>,
        renewal: Renewal<'_>,
    ) -> Result<Grant, CoreError> {
        self.0.renewal(ctx, renewal).await
    }
}

/// A server that is asked in its own process: the whole path of a request, without sockets.
struct Asked {
    test: TestCore,
    asked: u32,
}

impl Asked {
    async fn start() -> Self {
        let mut registry: Registry = Targets::new().registry();
        let approle = |_: &_| Ok(Arc::new(ApproleMethod::default()) as Arc<dyn AuthMethod>);
        let work = Arc::new(PasswordWork::default());
        let userpass =
            move |_: &_| Ok(Arc::new(UserpassMethod::new(work.clone())) as Arc<dyn AuthMethod>);
        let leaky = |_: &_| Ok(Arc::new(Leaky(ApproleMethod::default())) as Arc<dyn AuthMethod>);
        registry.methods.insert("approle", Box::new(approle));
        registry.methods.insert("leaky", Box::new(leaky));
        registry.methods.insert("userpass", Box::new(userpass));
        let test = TestCore::start(TestSetup { registry, ..TestSetup::new() }).await;
        test.core.install(vec![Box::new(WrappingRoutes)]);
        test.mount_method("approle", "approle/").await;
        test.mount_method("leaky", "leaky/").await;
        test.mount_method("userpass", "userpass/").await;
        Self { test, asked: 0 }
    }

    /// Asks, from an address of its own, so that nobody is locked; the status of the answer.
    async fn ask(&mut self, token: Option<&str>, path: &str, body: Value) -> u16 {
        self.asked += 1;
        let request = Request {
            id: RequestId::random().unwrap(),
            received_at: self.test.core.clock.now(),
            verb: Verb::Write,
            path: ApiPath::parse(path).unwrap(),
            fields: body.as_object().unwrap().clone(),
            token: token.map(|token| SecretString::new(token.to_owned())),
            connection: ConnectionInfo {
                peer: None,
                remote: SocketAddr::from((self.asked.to_be_bytes(), 4)),
                listener: "test".into(),
                id: 7,
            },
            wrap_ttl: path.ends_with("/wrap").then_some(Ttl::from_secs(3600)),
            codes: Vec::new(),
            idempotency_key: None,
        };
        let answered = self.test.core.handle(request).await.unwrap().result;
        match &answered {
            Ok(reply) => reply.http_status(),
            Err(error) => error.status(),
        }
    }

    /// How long it takes to be refused, in nanoseconds.
    async fn time(&mut self, token: Option<&str>, path: &str, body: &Value) -> u64 {
        let body = body.clone();
        let began = Instant::now();
        let status = self.ask(token, path, body).await;
        let taken = began.elapsed();
        assert!([400, 403].contains(&status), "{path}: {status}");
        taken.as_nanos() as u64
    }

    /// The gap between what two tokens, or two bodies, take to be refused.
    async fn gap(&mut self, path: &str, asks: [(Option<String>, Value); 2]) -> f64 {
        let mut samples = Samples::default();
        let mut turns = Turns(1);
        for _ in 0..PAIRS {
            for kind in turns.pair() {
                let (token, body) = &asks[kind];
                samples.0[kind].push(self.time(token.as_deref(), path, body).await);
            }
        }
        samples.gap()
    }
}

/// A token of this server's form, for which its last characters are a checksum.
fn token_of(content: &str) -> String {
    const DIGITS: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let body = format!("lhs.{content}");
    let mut crc = !0u32;
    for byte in body.bytes() {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    let (mut rest, mut sum) = (!crc, Vec::new());
    for _ in 0..6 {
        sum.insert(0, char::from(DIGITS[(rest % 62) as usize]));
        rest /= 62;
    }
    body + &sum.iter().collect::<String>()
}

#[tokio::test]
async fn tokens_take_as_long_to_be_refused_wherever_they_differ() {
    let mut asked = Asked::start().await;
    let root = asked.test.root_token.clone();
    let content = root.strip_prefix("lhs.").unwrap();
    let content = content[..content.len() - 6].to_owned();
    assert_eq!(token_of(&content), root);
    let mut near = [content.clone().into_bytes(), content.clone().into_bytes()];
    for (content, at) in near.iter_mut().zip([0, content.len() - 1]) {
        content[at] = if content[at] == b'a' { b'b' } else { b'a' };
    }
    let near = near.map(|content| token_of(&String::from_utf8(content).unwrap()));
    let (path, by) = ("sys/wrapping/wrap", |token: &'_ str| (Some(token.to_owned()), json!({})));
    let found = asked.gap(path, [by(&near[0]), by(&near[1])]).await;
    assert!(found < ALIKE, "{found:.3}");
    // What is no token by its form is not looked for.
    let found = asked.gap(path, [by(&near[0]), by("lhs.none")]).await;
    assert!(found > PLAIN, "this would not find anything: {found:.3}");
    let path = "sys/wrapping/lookup";
    let wrapped = |token: &str| (None, json!({ "token": token }));
    let found = asked.gap(path, [wrapped(&near[0]), wrapped(&near[1])]).await;
    assert!(found < ALIKE, "{found:.3}");
}

#[tokio::test]
async fn log_ins_take_as_long_to_be_refused_whoever_is_there() {
    let mut asked = Asked::start().await;
    let root = asked.test.root_token.clone();
    let root = Some(root.as_str());
    let right = "correct horse battery staple";
    let near = near(right.as_bytes()).map(|wrong| String::from_utf8(wrong).unwrap());
    let by = |role: &str, secret: &str| (None, json!({ "role_id": role, "secret_id": secret }));
    for mount in ["approle", "leaky"] {
        let role = json!({ "role_id": "known" });
        assert_eq!(asked.ask(root, &format!("auth/{mount}/role/known"), role).await, 204);
        let path = format!("auth/{mount}/role/known/custom-secret-id");
        assert_eq!(asked.ask(root, &path, json!({ "secret_id": right })).await, 200);
        let role = json!({ "role_id": "elsewhere", "secret_id_bound_cidrs": "255.0.0.0/8" });
        assert_eq!(asked.ask(root, &format!("auth/{mount}/role/elsewhere"), role).await, 204);
    }
    let path = "auth/approle/login";
    for (other, most) in [
        (by("known", &near[1]), ALIKE),
        (by("elsewhere", &near[0]), ALIKE),
        (by("other", &near[0]), ABOUT),
    ] {
        let what = other.1.clone();
        let found = asked.gap(path, [by("known", &near[0]), other]).await;
        assert!(found < most, "{what}: {found:.3}");
    }
    let found = asked.gap("auth/leaky/login", [by("known", &near[0]), by("other", &near[0])]).await;
    assert!(found > PLAIN, "this would not find anything: {found:.3}");
}

/// Hashing takes so much longer than all else that what is looked for here is whether it is done.
#[tokio::test]
async fn a_password_is_hashed_whether_there_is_a_user_or_not() {
    let mut asked = Asked::start().await;
    let root = asked.test.root_token.clone();
    let right = json!({ "password": "correct horse battery staple" });
    let path = "auth/userpass/users/known";
    assert_eq!(asked.ask(Some(&root), path, right).await, 204);
    let wrong = json!({ "password": "wrong" });
    let mut samples = Samples::default();
    let mut turns = Turns(1);
    for _ in 0..12 {
        for kind in turns.pair() {
            let name = ["known", "other"][kind];
            samples.0[kind]
                .push(asked.time(None, &format!("auth/userpass/login/{name}"), &wrong).await);
        }
    }
    let found = samples.gap();
    assert!(found < HASHED, "{found:.3}");
}
