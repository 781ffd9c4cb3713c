use std::collections::BTreeMap;
use std::sync::Mutex as StdMutex;
use std::time::Duration;

use super::*;
use crate::core::scratch::{NOW, Scratch};
use crate::types::id::{EntityId, MountAccessor};
use crate::types::time::ManualClock;
use proptest::prelude::*;

const HOUR: Ttl = Ttl::from_secs(3600);

/// Notes which tokens it was told about.
#[derive(Default)]
struct Gone(StdMutex<Vec<String>>);

#[async_trait]
impl TokenGone for Gone {
    async fn token_gone(&self, hash: &str, _: &TokenEntry) -> Result<(), CoreError> {
        self.0.lock().unwrap().push(hash.to_owned());
        Ok(())
    }
}

impl Gone {
    fn told(&self, hash: &str) -> bool {
        self.0.lock().unwrap().iter().any(|known| known == hash)
    }
}

struct Node {
    tokens: Arc<TokenStore>,
    gone: Arc<Gone>,
}

impl Node {
    fn new(records: Arc<Records>, clock: &Arc<ManualClock>) -> Self {
        let tokens = Arc::new(TokenStore::new(records, clock.clone()));
        let gone = Arc::new(Gone::default());
        tokens.on_gone(gone.clone());
        Self { tokens, gone }
    }

    async fn make(&self, parent: Option<&IssuedToken>, ttl: Ttl) -> IssuedToken {
        self.tokens.create(new(parent, ttl)).await.unwrap()
    }

    async fn lives(&self, token: &IssuedToken) -> bool {
        self.tokens.lookup(token.plain.expose()).await.unwrap().is_some()
    }

    async fn rows(&self) -> usize {
        self.tokens.view().list("").await.unwrap().len()
    }

    async fn sweep(&self) -> TokenSweep {
        self.tokens.sweep_due(1, 100).await.unwrap()
    }
}

fn fixture() -> (Scratch, Node, Arc<ManualClock>) {
    let scratch = Scratch::new();
    let clock = Arc::new(ManualClock::new(NOW));
    let node = Node::new(scratch.records.clone(), &clock);
    (scratch, node, clock)
}

fn hash(token: &IssuedToken) -> &str {
    token.token.stored_name().unwrap()
}

fn new(parent: Option<&IssuedToken>, ttl: Ttl) -> NewToken {
    NewToken {
        kind: TokenKind::Service,
        chosen: None,
        parent: parent.map(|token| hash(token).to_owned()),
        policies: vec!["a".into()],
        inherits_identity: false,
        scopes: Vec::new(),
        entity_id: None,
        meta: BTreeMap::new(),
        display_name: "token".into(),
        path: "auth/token/create".into(),
        role: None,
        mount: None,
        auth_role: None,
        auth_alias: None,
        groups: Vec::new(),
        lifetime: Some(NewLifetime {
            wanted: ttl,
            default_ttl: HOUR,
            mount_max: Ttl::from_secs(30 * 86_400),
            ..NewLifetime::default()
        }),
        num_uses: 0,
        renewable: true,
        bound_cidrs: Vec::new(),
        bound_certificate: None,
        lease_owner: LeaseOwner::Token,
    }
}

fn bounds() -> RenewalBounds {
    RenewalBounds {
        default_ttl: HOUR,
        mount_max: Ttl::from_secs(30 * 86_400),
        ..RenewalBounds::default()
    }
}

fn is_denied<T: std::fmt::Debug>(result: &Result<T, CoreError>) -> bool {
    matches!(result, Err(CoreError::Denied { .. }))
}

#[tokio::test]
async fn a_token_is_found_by_itself_and_by_its_accessor_until_it_expires() {
    let (_scratch, node, clock) = fixture();
    let token = node.make(None, HOUR).await;
    let found = node.tokens.lookup(token.plain.expose()).await.unwrap().unwrap();
    assert_eq!(
        (found.entry.ttl(NOW), found.entry.policies.as_slice()),
        (HOUR, &["a".to_owned()][..])
    );
    let accessor = found.entry.accessor.clone().unwrap();
    assert!(node.tokens.lookup_accessor(accessor.as_str()).await.unwrap().is_some());
    assert_eq!(node.tokens.accessors().await.unwrap(), [accessor.as_str()]);
    // Neither the accessor nor the hash is a token.
    assert!(node.tokens.lookup(accessor.as_str()).await.unwrap().is_none());
    assert!(node.tokens.lookup(hash(&token)).await.unwrap().is_none());
    assert_eq!(node.tokens.count().await.unwrap(), 1);
    clock.advance(Duration::from_secs(3600));
    assert!(!node.lives(&token).await);
    assert_eq!(node.tokens.count().await.unwrap(), 0, "ended, though still stored");
    assert!(node.tokens.lookup_accessor(accessor.as_str()).await.unwrap().is_none());
    let swept = node.sweep().await;
    assert_eq!((swept.ended, swept.failed), (1, 0));
    assert!(node.gone.told(hash(&token)));
    assert_eq!((node.rows().await, node.tokens.accessors().await.unwrap().len()), (0, 0));
}

#[tokio::test]
async fn nothing_of_a_token_is_in_the_store_in_clear() {
    let (scratch, node, _clock) = fixture();
    let token = node.make(None, HOUR).await;
    let page = scratch
        .storage
        .labelled(
            NamespaceId::ROOT,
            kinds::TOKEN,
            scratch.records.label_tag(NamespaceId::ROOT, kinds::TOKEN, "none"),
            None,
            10,
        )
        .await
        .unwrap();
    assert!(page.rows.is_empty());
    let row = scratch.storage.get(node.tokens.row_key(hash(&token))).await.unwrap().unwrap();
    let text = format!("{row:?}");
    for secret in [token.plain.expose(), hash(&token), "auth/token/create"] {
        assert!(!text.contains(secret));
    }
}

#[tokio::test]
async fn a_chosen_token_works_once_and_has_a_bounded_form() {
    let (_scratch, node, _clock) = fixture();
    let chosen = |text: &str| NewToken {
        chosen: Some(crate::types::secret::SecretString::new(text.to_owned())),
        ..new(None, HOUR)
    };
    node.tokens.create(chosen("my-token")).await.unwrap();
    assert!(node.tokens.lookup("my-token").await.unwrap().is_some());
    assert!(node.tokens.lookup("My-Token").await.unwrap().is_none());
    for text in ["my-token", "with.dot", "with space", ""] {
        let error = node.tokens.create(chosen(text)).await.unwrap_err();
        assert!(matches!(error, CoreError::Field(ref e) if e.field == "id"), "{text}: {error}");
    }
}

#[tokio::test]
async fn revoking_a_token_ends_its_descendants_and_nothing_else() {
    let (_scratch, node, _clock) = fixture();
    let root = node.tokens.create_root().await.unwrap();
    let a = node.make(Some(&root), HOUR).await;
    let b = node.make(Some(&a), HOUR).await;
    let c = node.make(Some(&b), HOUR).await;
    let sibling = node.make(Some(&root), HOUR).await;
    node.tokens.revoke_tree(hash(&a)).await.unwrap();
    for dead in [&a, &b, &c] {
        assert!(!node.lives(dead).await);
        assert!(node.gone.told(hash(dead)));
    }
    assert!(node.lives(&root).await && node.lives(&sibling).await);
    assert_eq!(node.rows().await, 2);
    // Again is no error, and tells nobody twice.
    node.tokens.revoke_tree(hash(&a)).await.unwrap();
    assert_eq!(node.gone.0.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn more_children_than_one_page_end_with_their_parent() {
    let (_scratch, node, _clock) = fixture();
    let parent = node.make(None, HOUR).await;
    for _ in 0..300 {
        node.make(Some(&parent), HOUR).await;
    }
    node.tokens.revoke_tree(hash(&parent)).await.unwrap();
    assert_eq!(node.rows().await, 0);
}

#[tokio::test]
async fn revoke_orphan_lets_the_children_live() {
    let (_scratch, node, _clock) = fixture();
    let a = node.make(None, HOUR).await;
    let b = node.make(Some(&a), HOUR).await;
    let c = node.make(Some(&b), HOUR).await;
    node.tokens.revoke_orphan(hash(&a)).await.unwrap();
    assert!(!node.lives(&a).await);
    assert!(node.lives(&b).await && node.lives(&c).await);
    let found = node.tokens.lookup(b.plain.expose()).await.unwrap().unwrap();
    assert_eq!(found.entry.parent, None);
    node.tokens.revoke_tree(hash(&b)).await.unwrap();
    assert_eq!(node.rows().await, 0);
}

#[tokio::test]
async fn tokens_of_an_entity_or_a_mount_can_be_ended_together() {
    let (_scratch, node, _clock) = fixture();
    let (entity, mount) = (EntityId::new("e"), MountAccessor::new("m"));
    let of_both =
        NewToken { entity_id: Some(entity.clone()), mount: Some(mount.clone()), ..new(None, HOUR) };
    node.tokens.create(of_both).await.unwrap();
    let of_entity = NewToken { entity_id: Some(entity.clone()), ..new(None, HOUR) };
    node.tokens.create(of_entity).await.unwrap();
    node.make(None, HOUR).await;
    assert_eq!(node.tokens.revoke_all(&TokenSelector::Mount(mount)).await.unwrap(), 1);
    assert_eq!(node.tokens.revoke_all(&TokenSelector::Entity(entity)).await.unwrap(), 1);
    assert_eq!(node.rows().await, 1);
}

#[tokio::test]
async fn generations_are_bounded() {
    let (_scratch, node, _clock) = fixture();
    let mut token = node.make(None, HOUR).await;
    for _ in 0..TOKEN_DEPTH_MAX {
        token = node.make(Some(&token), HOUR).await;
        assert!(node.lives(&token).await);
    }
    let error = node.tokens.create(new(Some(&token), HOUR)).await.unwrap_err();
    assert!(matches!(error, CoreError::Invalid(_)), "{error}");
}

#[tokio::test]
async fn root_tokens_live_for_ever_and_others_do_not() {
    let (_scratch, node, clock) = fixture();
    let root = node.tokens.create_root().await.unwrap();
    clock.advance(Duration::from_secs(90 * 365 * 86_400));
    assert!(node.lives(&root).await);
    assert_eq!(node.sweep().await, TokenSweep::default());
    let endless = |parent, policy: &str| NewToken {
        lifetime: None,
        policies: vec![policy.into()],
        ..new(parent, HOUR)
    };
    assert!(node.tokens.create(endless(Some(&root), "a")).await.is_err());
    node.tokens.create(endless(Some(&root), "root")).await.unwrap();
    let ending = NewToken { policies: vec!["root".into()], ..new(Some(&root), HOUR) };
    let ending = node.tokens.create(ending).await.unwrap();
    let error = node.tokens.create(endless(Some(&ending), "root")).await.unwrap_err();
    assert!(matches!(error, CoreError::Invalid(_)), "{error}");
}

#[tokio::test]
async fn a_dead_token_is_neither_renewed_nor_a_parent() {
    let (_scratch, node, clock) = fixture();
    let a = node.make(None, HOUR).await;
    let b = node.make(Some(&a), HOUR).await;
    clock.advance(Duration::from_secs(3600));
    for dead in [&a, &b] {
        assert!(is_denied(&node.tokens.renew(hash(dead), HOUR, &bounds()).await));
        assert!(is_denied(&node.tokens.create(new(Some(dead), HOUR)).await));
    }
    let fixed = NewToken { renewable: false, ..new(None, HOUR) };
    let fixed = node.tokens.create(fixed).await.unwrap();
    let error = node.tokens.renew(hash(&fixed), HOUR, &bounds()).await.unwrap_err();
    assert!(matches!(error, CoreError::Invalid(_)), "{error}");
}

#[tokio::test]
async fn a_renewal_never_shortens() {
    let (_scratch, node, _clock) = fixture();
    let token = node.make(None, HOUR).await;
    let minute = Ttl::from_secs(60);
    let (renewed, span) = node.tokens.renew(hash(&token), minute, &bounds()).await.unwrap();
    assert_eq!((span.ttl, renewed.entry.expires_at), (HOUR, Some(NOW.plus(HOUR))));
}

#[tokio::test]
async fn a_certificate_ends_all_that_was_asked_for_with_it() {
    let (_scratch, node, clock) = fixture();
    let mut on_certificate = new(None, Ttl::from_secs(86_400));
    let end = NOW.plus(HOUR);
    if let Some(lifetime) = &mut on_certificate.lifetime {
        lifetime.not_after = Some(end);
        lifetime.period = Ttl::from_secs(1200);
    }
    let token = node.tokens.create(on_certificate).await.unwrap();
    clock.advance(Duration::from_secs(1000));
    let (renewed, _) = node.tokens.renew(hash(&token), Ttl::ZERO, &bounds()).await.unwrap();
    assert_eq!(renewed.entry.expires_at, Some(NOW.plus(Ttl::from_secs(2200))));
    clock.advance(Duration::from_secs(1100));
    clock.advance(Duration::from_secs(99));
    node.tokens.renew(hash(&token), Ttl::ZERO, &bounds()).await.unwrap();
    clock.advance(Duration::from_secs(1100));
    let (renewed, span) = node.tokens.renew(hash(&token), Ttl::ZERO, &bounds()).await.unwrap();
    assert_eq!(renewed.entry.expires_at, Some(end));
    assert!(span.warning().unwrap().contains("certificate"));
    // A new certificate of the same identity, where the role allows it.
    let later = RenewalBounds { not_after: Some(end.plus(HOUR)), ..bounds() };
    let (renewed, _) = node.tokens.renew(hash(&token), Ttl::ZERO, &later).await.unwrap();
    assert!(renewed.entry.expires_at > Some(end));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_parallel_uses_exactly_as_many_succeed_as_are_left() {
    for uses in [1u64, 5] {
        let (scratch, node, clock) = fixture();
        // Two nodes on one store, which know nothing of each other's caches.
        let other = Node::new(scratch.reopened(scratch.storage.clone()), &clock);
        let token = NewToken { num_uses: uses, ..new(None, HOUR) };
        let token = node.tokens.create(token).await.unwrap();
        let mut tries = tokio::task::JoinSet::new();
        for number in 0..24 {
            let tokens = if number % 2 == 0 { &node.tokens } else { &other.tokens }.clone();
            let found = token.token.clone();
            tries.spawn(async move { tokens.consume_use(&found).await });
        }
        let (mut last, mut more) = (0, 0);
        for outcome in tries.join_all().await {
            match outcome {
                Ok(Use::Last) => last += 1,
                Ok(Use::More) => more += 1,
                other => assert!(is_denied(&other), "{other:?}"),
            }
        }
        assert_eq!((last, more), (1, uses - 1));
        assert!(!node.lives(&token).await);
    }
}

#[tokio::test]
async fn a_last_use_whose_request_was_cut_short_is_swept() {
    let (_scratch, node, clock) = fixture();
    let token = NewToken { num_uses: 1, ..new(None, HOUR) };
    let token = node.tokens.create(token).await.unwrap();
    assert_eq!(node.tokens.consume_use(&token.token).await.unwrap(), Use::Last);
    // The request has time to finish.
    assert_eq!(node.sweep().await.ended, 0);
    clock.advance(Duration::from_secs(120));
    assert_eq!(node.sweep().await.ended, 1);
    assert_eq!(node.rows().await, 0);
}

#[tokio::test]
async fn batch_tokens_carry_their_facts_and_die_with_their_parent() {
    let (_scratch, node, clock) = fixture();
    let parent = node.make(None, HOUR).await;
    let batch = |parent| NewToken { kind: TokenKind::Batch, ..new(parent, Ttl::from_secs(600)) };
    let child = node.tokens.create(batch(Some(&parent))).await.unwrap();
    let orphan = node.tokens.create(batch(None)).await.unwrap();
    assert_eq!(node.rows().await, 1);
    let found = node.tokens.lookup(child.plain.expose()).await.unwrap().unwrap();
    assert_eq!((found.entry.policies.as_slice(), found.hash), (&["a".to_owned()][..], None));
    assert_eq!(found.private_key(), child.token.private_key());
    assert!(node.tokens.revoke(&found).await.is_err());
    node.tokens.revoke_tree(hash(&parent)).await.unwrap();
    assert!(!node.lives(&child).await && node.lives(&orphan).await);
    clock.advance(Duration::from_secs(600));
    assert!(!node.lives(&orphan).await);
    for refused in [
        NewToken { num_uses: 1, ..batch(None) },
        NewToken { policies: vec!["root".into()], ..batch(None) },
    ] {
        assert!(node.tokens.create(refused).await.is_err());
    }
}

#[tokio::test]
async fn batch_tokens_of_another_server_do_not_open() {
    let (_scratch, node, _clock) = fixture();
    let (_scratch2, other, _clock2) = fixture();
    let foreign = NewToken { kind: TokenKind::Batch, ..new(None, HOUR) };
    let foreign = other.tokens.create(foreign).await.unwrap();
    assert!(other.lives(&foreign).await && !node.lives(&foreign).await);
}

/// One token that cannot be ended must not hold up the others, and is tried again.
#[tokio::test]
async fn a_token_that_cannot_be_ended_holds_up_no_other() {
    struct Stubborn(StdMutex<Option<String>>);

    #[async_trait]
    impl TokenGone for Stubborn {
        async fn token_gone(&self, hash: &str, _: &TokenEntry) -> Result<(), CoreError> {
            match self.0.lock().unwrap().as_deref() {
                Some(stuck) if stuck == hash => Err(CoreError::internal("stuck")),
                _ => Ok(()),
            }
        }
    }

    let scratch = Scratch::new();
    let clock = Arc::new(ManualClock::new(NOW));
    let tokens = TokenStore::new(scratch.records.clone(), clock.clone());
    let stubborn = Arc::new(Stubborn(StdMutex::new(None)));
    tokens.on_gone(stubborn.clone());
    let stuck = tokens.create(new(None, Ttl::from_secs(60))).await.unwrap();
    for _ in 0..3 {
        tokens.create(new(None, HOUR)).await.unwrap();
    }
    *stubborn.0.lock().unwrap() = Some(hash(&stuck).to_owned());
    clock.advance(Duration::from_secs(3600));
    let swept = tokens.sweep_due(1, 100).await.unwrap();
    assert_eq!((swept.ended, swept.failed), (3, 1));
    // Not at once again, but again.
    assert_eq!(tokens.sweep_due(1, 100).await.unwrap(), TokenSweep::default());
    *stubborn.0.lock().unwrap() = None;
    clock.advance(Duration::from_secs(31));
    assert_eq!(tokens.sweep_due(1, 100).await.unwrap().ended, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_child_made_while_its_parent_is_revoked_does_not_survive() {
    let (_scratch, node, _clock) = fixture();
    for _ in 0..20 {
        let parent = node.make(None, HOUR).await;
        let (tokens, child) = (node.tokens.clone(), new(Some(&parent), HOUR));
        let making = tokio::spawn(async move { tokens.create(child).await });
        node.tokens.revoke_tree(hash(&parent)).await.unwrap();
        if let Ok(child) = making.await.unwrap() {
            assert!(!node.lives(&child).await);
        }
        assert_eq!(node.rows().await, 0, "a row that no revocation finds");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Make { parent: usize, ttl: u64 },
    Pass(u64),
    Renew { token: usize, increment: u64 },
    Revoke(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0usize..8, 1u64..5000).prop_map(|(parent, ttl)| Step::Make { parent, ttl }),
        2 => (1u64..2000).prop_map(Step::Pass),
        3 => (0usize..8, 1u64..9000).prop_map(|(token, increment)| Step::Renew { token, increment }),
        1 => (0usize..8).prop_map(Step::Revoke),
    ];
    proptest::collection::vec(step, 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Whatever is made, renewed and revoked: a living token's ancestors live, and end no earlier.
    #[test]
    fn no_token_outlives_its_parent(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (_scratch, node, clock) = fixture();
            let mut all: Vec<IssuedToken> = Vec::new();
            for step in steps {
                match step {
                    Step::Make { parent, ttl } => {
                        let made = node.tokens.create(new(all.get(parent), Ttl::from_secs(ttl))).await;
                        all.extend(made);
                    }
                    Step::Pass(secs) => clock.advance(Duration::from_secs(secs)),
                    Step::Renew { token, increment } => {
                        if let Some(token) = all.get(token) {
                            let increment = Ttl::from_secs(increment);
                            let _ = node.tokens.renew(hash(token), increment, &bounds()).await;
                        }
                    }
                    Step::Revoke(token) => {
                        if let Some(token) = all.get(token) {
                            node.tokens.revoke_tree(hash(token)).await.unwrap();
                        }
                    }
                }
                for token in &all {
                    let Some(found) = node.tokens.lookup(token.plain.expose()).await.unwrap() else {
                        continue;
                    };
                    let Some(parent) = &found.entry.parent else { continue };
                    let parent = node.tokens.lookup_stored(parent).await.unwrap();
                    let parent = parent.expect("a living token has a living parent");
                    assert!(found.entry.expires_at <= parent.entry.expires_at);
                }
            }
        });
    }
}

#[cfg(feature = "failpoints")]
mod faults {
    use super::*;
    use crate::storage::fault::{FaultyStorage, Moment, Reach};

    struct Family {
        top: IssuedToken,
        below: Vec<IssuedToken>,
        others: Vec<IssuedToken>,
    }

    async fn family(node: &Node) -> Family {
        let root = node.tokens.create_root().await.unwrap();
        let top = node.make(Some(&root), HOUR).await;
        let b = node.make(Some(&top), HOUR).await;
        let c = node.make(Some(&b), HOUR).await;
        let d = node.make(Some(&top), HOUR).await;
        let others = vec![node.make(Some(&root), HOUR).await, root];
        Family { top, below: vec![b, c, d], others }
    }

    /// Breaks off `revoke_tree` at every write of it, before and after the write is done, as a crash
    /// or a lost connection would. Nothing that should be dead works, and the next process's sweep
    /// finishes.
    #[tokio::test]
    async fn a_revocation_broken_off_anywhere_is_finished_by_the_sweep() {
        for moment in [Moment::Before, Moment::After] {
            for number in 1.. {
                let scratch = Scratch::new();
                let clock = Arc::new(ManualClock::new(NOW));
                let faulty = FaultyStorage::new(scratch.storage.clone());
                let node = Node::new(scratch.reopened(faulty.clone()), &clock);
                let family = family(&node).await;
                faulty.fail_writes(Reach::From(number), moment);
                let outcome = node.tokens.revoke_tree(hash(&family.top)).await;
                let happened = number > 1 || moment == Moment::After;
                let restarted = Node::new(scratch.reopened(scratch.storage.clone()), &clock);
                for token in family.below.iter().chain([&family.top]) {
                    assert_eq!(restarted.lives(token).await, !happened, "write {number}");
                    assert_eq!(node.lives(token).await, !happened, "write {number}");
                }
                clock.advance(Duration::from_secs(30));
                restarted.sweep().await;
                for token in &family.others {
                    assert!(restarted.lives(token).await);
                }
                if happened {
                    for token in family.below.iter().chain([&family.top]) {
                        let told = node.gone.told(hash(token)) || restarted.gone.told(hash(token));
                        assert!(told, "write {number}");
                    }
                    assert_eq!(restarted.rows().await, 2, "write {number}");
                    assert_eq!(restarted.tokens.accessors().await.unwrap().len(), 2);
                }
                if outcome.is_ok() {
                    assert!(number > 4, "a revocation of four tokens writes more than that");
                    break;
                }
            }
        }
    }

    #[tokio::test]
    async fn a_sweep_broken_off_anywhere_is_finished_by_the_next() {
        for number in 1..8 {
            let scratch = Scratch::new();
            let clock = Arc::new(ManualClock::new(NOW));
            let faulty = FaultyStorage::new(scratch.storage.clone());
            let node = Node::new(scratch.reopened(faulty.clone()), &clock);
            let family = family(&node).await;
            clock.advance(Duration::from_secs(3600));
            faulty.fail_writes(Reach::From(number), Moment::Before);
            let _ = node.tokens.sweep_due(1, 100).await.unwrap();
            faulty.fail_writes(Reach::Nothing, Moment::Before);
            clock.advance(Duration::from_secs(31));
            let _ = node.tokens.sweep_due(2, 100).await.unwrap();
            for token in family.below.iter().chain([&family.top]) {
                assert!(node.gone.told(hash(token)), "write {number}");
            }
            assert_eq!(node.rows().await, 1, "write {number}");
        }
    }

    #[tokio::test]
    async fn a_token_whose_making_failed_is_all_there_or_not_at_all() {
        for moment in [Moment::Before, Moment::After] {
            let scratch = Scratch::new();
            let clock = Arc::new(ManualClock::new(NOW));
            let faulty = FaultyStorage::new(scratch.storage.clone());
            let node = Node::new(scratch.reopened(faulty.clone()), &clock);
            faulty.fail_writes(Reach::Only(1), moment);
            assert!(node.tokens.create(new(None, HOUR)).await.is_err());
            let rows = if moment == Moment::After { 1 } else { 0 };
            assert_eq!(node.rows().await, rows);
            let accessors = node.tokens.accessors().await.unwrap();
            assert_eq!(accessors.len(), rows);
            clock.advance(Duration::from_secs(3600));
            node.sweep().await;
            assert_eq!(node.rows().await, 0);
        }
    }

    #[tokio::test]
    async fn garbage_is_refused_without_asking_the_store() {
        let scratch = Scratch::new();
        let clock = Arc::new(ManualClock::new(NOW));
        let faulty = FaultyStorage::new(scratch.storage.clone());
        let node = Node::new(scratch.reopened(faulty.clone()), &clock);
        let token = node.make(None, HOUR).await;
        faulty.fail_reads(Reach::From(1));
        for text in ["", "lhs.x", "hvs.CAESIJ", "lhb.AAAAAAAAAA", "a.b.c", &"x".repeat(9000)] {
            assert!(node.tokens.lookup(text).await.unwrap().is_none());
        }
        assert_eq!(faulty.reads(), 0);
        // The control: a token that could be one is asked for.
        assert!(node.tokens.lookup("could-be-chosen").await.is_err());
        drop(token);
    }
}
