//! What a store that was put back may do to targets while it is held: nothing to what is there.

use leasehold::core::acl::{Acl, CheckRequest, CompiledPolicy};
use leasehold::core::clock_guard::GuardedClock;
use leasehold::core::engine::{CallerFacts, EngineRequest, LeasePlan, Outcome};
use leasehold::core::lease::{GivenUp, Issuing, Owner};
use leasehold::core::mount::{MountClass, MountConfig, Mounted, NewMount};
use leasehold::core::operation::Operation;
use leasehold::core::operation::Operation::{Read, Update};
use leasehold::core::policy::template::TemplateValues;
use leasehold::core::reply::Reply;
use leasehold::core::route;
use leasehold::scheduler::Scheduler;
use leasehold::types::id::{EntityId, LeaseId, RequestId, random_base62};

use super::witness::{Place, work};
use super::*;
use crate::scheduler::jobs::Counted;

const CREATE: &str = "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' \
     VALID UNTIL '{{expiration}}'";

/// A real database with the broker's own user and those of three applications.
struct Target {
    server: &'static TestPostgres,
    database: String,
    root: String,
    due: String,
    broken_off: String,
    free: String,
}

impl Target {
    fn new() -> Self {
        let server = TestPostgres::shared();
        let database = server.database().rsplit('/').next().unwrap().to_owned();
        let user = |stem: &str, options: &str| {
            let name = format!("{stem}_{}", random_base62(8).unwrap().to_lowercase());
            server.sql(&database, &format!("CREATE ROLE {name} {options} PASSWORD 'before'"));
            name
        };
        Self {
            root: user("root", "SUPERUSER LOGIN"),
            due: user("due", "LOGIN"),
            broken_off: user("broken", "LOGIN"),
            free: user("free", "LOGIN"),
            server,
            database,
        }
    }

    fn config(&self) -> Value {
        let url = format!(
            "postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{}/{}?sslmode=disable",
            self.server.port(),
            self.database
        );
        json!({
            "plugin_name": "postgresql-database-plugin",
            "connection_url": url,
            "username": self.root,
            "password": "before",
            "allowed_roles": "*",
        })
    }

    fn verifiers(&self) -> Vec<String> {
        let users = [&self.root, &self.due, &self.broken_off, &self.free];
        users.map(|user| self.verifier(user)).into()
    }

    fn verifier(&self, user: &str) -> String {
        let sql = format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{user}'");
        self.server.sql(&self.database, &sql)
    }

    fn has(&self, user: &str) -> bool {
        let sql = format!("SELECT count(*) FROM pg_authid WHERE rolname = '{user}'");
        self.server.sql(&self.database, &sql) == "1"
    }

    fn static_role(&self, user: &str, period: u64) -> Value {
        json!({"db_name": "pg", "username": user, "rotation_period": period})
    }
}

impl Node {
    fn database(&self) -> Arc<Mounted> {
        self.unsealed().mounts.at("database/").unwrap()
    }

    async fn ask(
        &self,
        operation: Operation,
        path: &str,
        body: Value,
    ) -> Result<Outcome, CoreError> {
        let mounted = self.database();
        let engine = mounted.engine().unwrap();
        let (route, params) = route::find(engine.routes(), path).expect("no such route");
        let full = ApiPath::parse(&format!("database/{path}")).unwrap();
        let acl = Acl::new(vec![CompiledPolicy::root()], &TemplateValues::default());
        let permit = acl.authorize(&CheckRequest::new(&full, operation)).unwrap();
        let caller = CallerFacts { display_name: "app".into(), ..CallerFacts::default() };
        let fields = Fields::new(body.as_object().cloned().unwrap_or_default());
        let request =
            EngineRequest { operation, route, params, fields, merge_patch: false, caller: &caller };
        engine.handle(&mounted.context(), &permit, request).await
    }

    async fn reply(&self, operation: Operation, path: &str, body: Value) -> Reply {
        match self.ask(operation, path, body).await.unwrap() {
            Outcome::Respond(reply) => reply,
            Outcome::Issue(_) => panic!("{path} issues a lease"),
        }
    }

    async fn plan(&self) -> LeasePlan {
        match self.ask(Read, "creds/reader", Value::Null).await.unwrap() {
            Outcome::Issue(plan) => plan,
            Outcome::Respond(_) => panic!("no lease"),
        }
    }

    /// A user on lease: its name, and the lease.
    async fn issue(&self) -> (String, LeaseId) {
        let plan = self.plan().await;
        let name = plan.data["username"].as_str().unwrap().to_owned();
        let issuing = Issuing {
            mounted: &self.database(),
            path: "database/creds/reader",
            owner: Owner::Entity(EntityId::new("app")),
            entity: None,
            former: &[],
            entity_row: None,
            asked_with: "",
            caller_expires_at: None,
            caller_row: None,
            idempotency_key: None,
        };
        let reply = self.unsealed().leases.issue(issuing, plan).await.unwrap();
        (name, reply.lease.unwrap().id)
    }

    /// A mount with a static role that is due soon, one whose rotation was broken off, and a trial
    /// that was. Returns the pending password, and the name of the trial's user.
    async fn set_up(&self, target: &Target) -> (String, String) {
        let new = NewMount {
            path: "database/".into(),
            class: MountClass::Secret,
            kind: "database".into(),
            description: String::new(),
            options: Default::default(),
            config: MountConfig::default(),
        };
        self.unsealed().mounts.enable(new).await.unwrap();
        let reader = json!({"db_name": "pg", "creation_statements": CREATE, "default_ttl": "10m"});
        for (path, body) in [
            ("config/pg", target.config()),
            ("roles/reader", reader),
            ("static-roles/due", target.static_role(&target.due, 20)),
            ("static-roles/broken-off", target.static_role(&target.broken_off, 86_400)),
        ] {
            self.reply(Update, path, body).await;
        }
        let view = &self.database().view;
        let pending = format!("Pending{}", random_base62(17).unwrap());
        let record = "static-roles/broken-off";
        let mut role = view.get::<Value>(record).await.unwrap().unwrap();
        role.value["pending_password"] = json!(pending);
        view.write(record, &role.value, Precondition::Rev(role.rev)).await.unwrap();
        // The record of a trial is durable before its user is made; then the process died.
        let plan = self.plan().await;
        let tried = plan.data["username"].as_str().unwrap().to_owned();
        target.server.sql(&target.database, &format!("CREATE ROLE \"{tried}\" LOGIN"));
        let trial = json!({"data": plan.data, "started_at": NOW.as_millis()});
        view.write("trials/app", &trial, Precondition::Absent).await.unwrap();
        (pending, tried)
    }

    async fn stored(&self) -> Vec<Value> {
        let mut all = Vec::new();
        let view = &self.database().view;
        for record in ["static-roles/due", "static-roles/broken-off", "config/pg", "roles/reader"] {
            all.push(view.get_fresh::<Value>(record).await.unwrap().unwrap().value);
        }
        assert_eq!(view.list("static-roles/").await.unwrap().len(), 2);
        all
    }

    /// Lets time pass until something happens.
    async fn later(&self, what: &str, mut done: impl FnMut() -> bool) {
        for _ in 0..2000 {
            if done() {
                return;
            }
            self.clock.advance(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("never happened: {what}");
    }
}

#[tokio::test]
async fn an_old_store_changes_and_ends_nothing_on_a_target_until_it_is_released() {
    let counted = Counted::from_here();
    let target = Target::new();
    let place = Place::new();
    let node = place.start().await;
    let keys = node.init(1, 1).await;
    node.unseal(&keys).await.unwrap();
    let (pending, tried) = node.set_up(&target).await;
    let (leased, lease) = node.issue().await;
    work(&node, 0..5).await;
    place.stop(node).await;
    let backup = place.back_up();

    // Life goes on: both rotations are done, and done again.
    let node = place.start().await;
    node.unseal(&keys).await.unwrap();
    for name in ["due", "broken-off"].into_iter().cycle().take(4) {
        node.reply(Update, &format!("rotate-role/{name}"), Value::Null).await;
    }
    let read = async |name: &str| {
        let reply = node.reply(Read, &format!("static-creds/{name}"), Value::Null).await;
        reply.data.unwrap()["password"].as_str().unwrap().to_owned()
    };
    let in_force =
        [(&target.due, read("due").await), (&target.broken_off, read("broken-off").await)];
    work(&node, 5..40).await;
    place.stop(node).await;
    place.restore(&backup);

    let node = place.start().await;
    node.unseal(&keys).await.unwrap();
    assert!(node.unsealed().leases.hold().is_some());
    let guard = GuardedClock::new(node.clock.clone(), HOUR);
    let scheduler = Scheduler::start(node.core.clone(), Arc::new(guard));
    let (verifiers, stored) = (target.verifiers(), node.stored().await);
    // Until all of it is long due, and has been looked at many times.
    let due = NOW.plus(Ttl::from_secs(900));
    node.later("many rounds", || counted.runs("mounts") >= 20 && node.core.clock.now() > due).await;
    let verify = json!({"verify": true});
    for (operation, path, body) in [
        (Update, "rotate-role/due", Value::Null),
        (Update, "rotate-role/broken-off", Value::Null),
        (Update, "rotate-root/pg", Value::Null),
        (Update, "static-roles/new", target.static_role(&target.free, 60)),
        (Update, "roles/reader", verify),
        (Read, "static-creds/broken-off", Value::Null),
    ] {
        let refused = node.ask(operation, path, body).await.err();
        assert_eq!(refused.map(|error| error.status()), Some(409), "{path}");
    }
    let leases = node.unsealed().leases.clone();
    assert_eq!(leases.revoke(&lease).await.unwrap_err().status(), 409);
    let decision = GivenUp { by: "root".into(), request_id: RequestId::random().unwrap() };
    assert_eq!(leases.abandon(&lease, &decision).await.unwrap_err().status(), 409);
    assert_eq!(target.verifiers(), verifiers);
    assert!(target.has(&tried) && target.has(&leased));
    assert_eq!(node.stored().await, stored, "not even planned");
    for (user, password) in &in_force {
        assert!(target.server.can_log_in(user, password, &target.database), "{user} locked out");
    }

    // What changes nothing that is there goes on: what is known is told, and new users are made.
    let known = node.reply(Read, "static-creds/due", Value::Null).await;
    assert!(known.warnings.iter().any(|warning| warning.contains("hold")), "{:?}", known.warnings);
    let (new, new_lease) = node.issue().await;
    node.clock.advance(Duration::from_secs(60));
    leases.renew(&new_lease, HOUR, None).await.unwrap();
    assert!(target.has(&new));

    node.core.release_hold(&node.unsealed(), "admin").await.unwrap();
    let (due, root) = (target.verifier(&target.due), target.verifier(&target.root));
    node.later("the rotation that is due", || target.verifier(&target.due) != due).await;
    node.later("the end of the trial's user", || !target.has(&tried)).await;
    let let_in = || target.server.can_log_in(&target.broken_off, &pending, &target.database);
    node.later("the rotation that was broken off", let_in).await;
    node.later("the end of the lease", || !target.has(&leased)).await;
    node.reply(Update, "rotate-root/pg", Value::Null).await;
    assert_ne!(target.verifier(&target.root), root);
    leases.revoke(&new_lease).await.unwrap();
    assert!(!target.has(&new));
    scheduler.shutdown().await;
    drop(leases);
    place.stop(node).await;
}
