//! What is mounted where, and the instances that serve it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use crate::storage::RowKey;
use crate::types::id::{MountAccessor, NamespaceId, random_uuid};
use crate::types::path::ApiPath;
use crate::types::time::{Clock, Ttl};

use super::engine::{AuthMethod, Engine, EngineContext, MountFacts};
use super::error::CoreError;
use super::hold::HoldCell;
use super::lockout::LockoutConfig;
use super::records::{Batch, Precondition, Records, kinds};
use super::route::RouteSpec;
use super::token::RoleTokenType;
use super::view::{PutOptions, View};

/// Name of the one record that holds the table.
const TABLE: &str = "table";
/// Most mounts of one server.
const MOUNTS_MAX: usize = 4096;
/// Prefixes that belong to the server itself.
const RESERVED: &[&str] = &["sys/", "auth/", "identity/", "cubbyhole/"];

/// What a mount serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountClass {
    /// An auth method, below `auth/`.
    Auth,
    /// A secrets engine.
    Secret,
}

/// What can be tuned on a mount.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountConfig {
    /// Lifetime of leases and tokens that ask for none; zero for the server's.
    pub default_lease_ttl: Ttl,
    /// Longest lifetime; zero for the server's.
    pub max_lease_ttl: Ttl,
    /// Request fields that the audit shows in clear.
    pub audit_non_hmac_request_keys: Vec<String>,
    /// Response fields that the audit shows in clear.
    pub audit_non_hmac_response_keys: Vec<String>,
    /// `hidden`, or `unauth` to be listed to anybody.
    pub listing_visibility: String,
    /// Request headers that engines may see. Kept for clients that ask; no engine sees headers.
    pub passthrough_request_headers: Vec<String>,
    /// Headers that engines may answer. Kept for clients that ask; no engine answers headers.
    pub allowed_response_headers: Vec<String>,
    /// Kind of token that an auth mount makes.
    pub token_type: RoleTokenType,
    /// When an auth mount locks an identity.
    pub user_lockout_config: LockoutConfig,
}

/// One mount, as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MountEntry {
    /// Where, with a slash at the end; auth mounts include `auth/`.
    pub path: String,
    /// Secrets or log-ins.
    pub class: MountClass,
    /// The engine's or method's name in the registry.
    pub kind: String,
    /// Lasting handle.
    pub accessor: MountAccessor,
    /// What its records are stored under; survives remounting.
    pub uuid: String,
    /// For people.
    pub description: String,
    /// What the engine was given at mount time.
    pub options: BTreeMap<String, String>,
    /// What can be tuned.
    pub config: MountConfig,
    /// Being taken down: nothing new is issued, what is out is being revoked.
    #[serde(default)]
    pub disabling: bool,
    /// The last move that brought it where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<Move>,
}

/// A move of a mount, which is over when it can be seen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Move {
    /// A UUID, by which it can be asked for.
    pub id: String,
    /// Where the mount was.
    pub from: String,
}

/// The instance behind a mount.
pub enum Backend {
    /// An auth method.
    Auth(Arc<dyn AuthMethod>),
    /// A secrets engine.
    Secret(Arc<dyn Engine>),
}

/// A mount in service.
pub struct Mounted {
    /// As stored.
    pub entry: MountEntry,
    /// As its engine sees it.
    pub facts: MountFacts,
    /// Its part of the store.
    pub view: View,
    /// What serves it.
    pub backend: Backend,
    /// The row that stands while the mount takes something on. Whatever is issued requires it in the
    /// commit that makes it durable, so that nothing is begun on a mount that is being taken down,
    /// however old the table is that a node still has.
    pub gate: RowKey,
    clock: Arc<dyn Clock>,
    hold: HoldCell,
}

impl Mounted {
    /// What the backend works with.
    pub fn context(&self) -> EngineContext<'_> {
        let Self { facts, view, clock, hold, .. } = self;
        EngineContext { mount: facts, view, clock, hold }
    }

    /// The secrets engine.
    ///
    /// # Errors
    /// When it is an auth mount.
    pub fn engine(&self) -> Result<&Arc<dyn Engine>, CoreError> {
        match &self.backend {
            Backend::Secret(engine) => Ok(engine),
            Backend::Auth(_) => Err(CoreError::Unsupported),
        }
    }

    /// The table of its paths.
    pub fn routes(&self) -> &'static [RouteSpec] {
        match &self.backend {
            Backend::Auth(method) => method.routes(),
            Backend::Secret(engine) => engine.routes(),
        }
    }

    /// Why it takes nothing on any more.
    pub(super) fn closing(&self) -> CoreError {
        CoreError::invalid(match self.entry.class {
            MountClass::Auth => {
                "the mount is being disabled and lets nobody in and takes nothing any more"
            }
            MountClass::Secret => {
                "the mount is being disabled and issues and takes nothing any more"
            }
        })
    }

    /// The auth method.
    ///
    /// # Errors
    /// When it is a secrets mount.
    pub fn method(&self) -> Result<&Arc<dyn AuthMethod>, CoreError> {
        match &self.backend {
            Backend::Auth(method) => Ok(method),
            Backend::Secret(_) => Err(CoreError::Unsupported),
        }
    }
}

/// Makes an engine for a mount.
pub type BuildEngine = Box<dyn Fn(&MountFacts) -> Result<Arc<dyn Engine>, CoreError> + Send + Sync>;
/// Makes an auth method for a mount.
pub type BuildMethod =
    Box<dyn Fn(&MountFacts) -> Result<Arc<dyn AuthMethod>, CoreError> + Send + Sync>;

/// What can be mounted, by name.
#[derive(Default)]
pub struct Registry {
    /// Secrets engines.
    pub engines: BTreeMap<&'static str, BuildEngine>,
    /// Auth methods.
    pub methods: BTreeMap<&'static str, BuildMethod>,
    /// What the `database` engine connects to, as its configuration names it.
    pub databases: &'static [&'static str],
}

type Table = HashMap<String, Arc<Mounted>>;

/// The mounts in service.
pub struct MountTable {
    records: Arc<Records>,
    registry: Arc<Registry>,
    clock: Arc<dyn Clock>,
    hold: HoldCell,
    default_ttl: Ttl,
    max_ttl: Ttl,
    mounted: ArcSwap<Table>,
    changing: tokio::sync::Mutex<()>,
}

impl MountTable {
    /// Loads the table and builds every mount. Their engines heed `hold`.
    ///
    /// # Errors
    /// When the store fails or names a kind that this build does not know.
    pub async fn load(
        records: Arc<Records>,
        registry: Arc<Registry>,
        clock: Arc<dyn Clock>,
        hold: HoldCell,
        default_ttl: Ttl,
        max_ttl: Ttl,
    ) -> Result<Self, CoreError> {
        let table = Self {
            records,
            registry,
            clock,
            hold,
            default_ttl,
            max_ttl,
            mounted: ArcSwap::default(),
            changing: tokio::sync::Mutex::new(()),
        };
        table.reload().await?;
        Ok(table)
    }

    fn store(&self) -> View {
        View::new(self.records.clone(), NamespaceId::ROOT, kinds::MOUNTS, String::new())
    }

    async fn stored(&self) -> Result<(Vec<MountEntry>, Precondition), CoreError> {
        Ok(match self.store().get_fresh(TABLE).await? {
            Some(entry) => (entry.value, Precondition::Rev(entry.rev)),
            None => (Vec::new(), Precondition::Absent),
        })
    }

    /// Brings the mounts in service in line with the stored table: after unseal, and when another
    /// node changed it. Instances whose entry did not change are kept.
    ///
    /// # Errors
    /// As [`MountTable::load`].
    pub async fn reload(&self) -> Result<(), CoreError> {
        let _changing = self.changing.lock().await;
        let (entries, _) = self.stored().await?;
        self.put_in_service(entries).await
    }

    async fn put_in_service(&self, entries: Vec<MountEntry>) -> Result<(), CoreError> {
        let before = self.mounted.load_full();
        let mut table = Table::new();
        for entry in entries {
            let kept = before.values().find(|m| m.entry.uuid == entry.uuid);
            let backend = match kept {
                Some(kept) if kept.entry.options == entry.options => match &kept.backend {
                    Backend::Auth(method) => Some(Backend::Auth(method.clone())),
                    Backend::Secret(engine) => Some(Backend::Secret(engine.clone())),
                },
                Some(_) | None => None,
            };
            let mounted = Arc::new(self.instance(entry, backend)?);
            table.insert(mounted.entry.path.clone(), mounted);
        }
        for gone in
            before.values().filter(|m| !table.values().any(|n| n.entry.uuid == m.entry.uuid))
        {
            if let Backend::Auth(method) = &gone.backend {
                method.unload();
            }
        }
        for mounted in table.values() {
            if let Backend::Auth(method) = &mounted.backend {
                method.load(&mounted.context()).await?;
            }
        }
        self.mounted.store(Arc::new(table));
        Ok(())
    }

    fn instance(&self, entry: MountEntry, kept: Option<Backend>) -> Result<Mounted, CoreError> {
        let facts = MountFacts {
            path: entry.path.clone(),
            accessor: entry.accessor.clone(),
            options: entry.options.clone(),
            default_ttl: entry.config.default_lease_ttl.or(self.default_ttl),
            max_ttl: entry.config.max_lease_ttl.or(self.max_ttl),
        };
        let unknown = || CoreError::invalid(format!("there is no \"{}\" to mount", entry.kind));
        let backend = match (kept, entry.class) {
            (Some(backend), _) => backend,
            (None, MountClass::Secret) => {
                let build = self.registry.engines.get(entry.kind.as_str()).ok_or_else(unknown)?;
                Backend::Secret(build(&facts)?)
            }
            (None, MountClass::Auth) => {
                let build = self.registry.methods.get(entry.kind.as_str()).ok_or_else(unknown)?;
                Backend::Auth(build(&facts)?)
            }
        };
        let kind = match entry.class {
            MountClass::Auth => kinds::AUTH_DATA,
            MountClass::Secret => kinds::MOUNT_DATA,
        };
        let base = format!("{}/", entry.uuid);
        let view = View::new(self.records.clone(), NamespaceId::ROOT, kind, base);
        let gate = self.records.key(&self.store().full_name(&gate_name(&entry)));
        let (clock, hold) = (self.clock.clone(), self.hold.clone());
        Ok(Mounted { entry, facts, view, backend, gate, clock, hold })
    }

    /// All mounts, by path.
    pub fn all(&self) -> Vec<Arc<Mounted>> {
        let mut all: Vec<_> = self.mounted.load().values().cloned().collect();
        all.sort_by(|a, b| a.entry.path.cmp(&b.entry.path));
        all
    }

    /// The mount that serves `path`, and what is left of the path below it.
    pub fn route<'p>(&self, path: &'p ApiPath) -> Option<(Arc<Mounted>, &'p str)> {
        let mounted = self.mounted.load();
        let text = path.as_str();
        // Mounts never nest, so the first prefix that is one is the only one.
        let found = text.match_indices('/').find_map(|(slash, _)| {
            let prefix = text.get(..=slash)?;
            Some((mounted.get(prefix)?.clone(), text.get(slash + 1..)?))
        });
        found.or_else(|| Some((mounted.get(path.to_dir().as_str())?.clone(), "")))
    }

    /// The mount at exactly `path` (with its slash).
    pub fn at(&self, path: &str) -> Option<Arc<Mounted>> {
        self.mounted.load().get(path).cloned()
    }

    /// Whether the mount still takes something on, as the store says.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn is_open(&self, mounted: &Mounted) -> Result<bool, CoreError> {
        Ok(self.records.storage().get(mounted.gate).await?.is_some())
    }

    /// The mount with that accessor.
    pub fn by_accessor(&self, accessor: &MountAccessor) -> Option<Arc<Mounted>> {
        self.mounted.load().values().find(|m| m.entry.accessor == *accessor).cloned()
    }

    /// Mounts `kind` at `path`.
    ///
    /// # Errors
    /// When the path is taken, reserved or nested in another, or the kind is unknown.
    pub async fn enable(&self, new: NewMount) -> Result<(), CoreError> {
        let path = mount_path(&new.path, new.class)?;
        let entry = MountEntry {
            accessor: MountAccessor::new(format!("{}_{}", new.accessor_stem(), short_hex()?)),
            uuid: random_uuid()?,
            path,
            class: new.class,
            kind: new.kind,
            description: new.description,
            options: new.options,
            config: new.config,
            disabling: false,
            moved: None,
        };
        self.check_config(&entry.config)?;
        self.change(|entries| {
            if entries.len() >= MOUNTS_MAX {
                return Err(CoreError::invalid("there are too many mounts"));
            }
            refuse_overlap(entries, &entry.path)?;
            // Built once to refuse unknown kinds and bad options before anything is stored.
            self.instance(entry.clone(), None)?;
            entries.push(entry);
            Ok(())
        })
        .await
    }

    /// Changes what can be tuned, and the options.
    ///
    /// # Errors
    /// When there is no such mount, or `tune` or the engine refuses.
    pub async fn tune(
        &self,
        path: &str,
        tune: impl FnOnce(&mut MountEntry) -> Result<(), CoreError>,
    ) -> Result<(), CoreError> {
        self.change(|entries| {
            let entry = entries
                .iter_mut()
                .find(|entry| entry.path == path)
                .ok_or_else(|| CoreError::invalid(format!("there is no mount at \"{path}\"")))?;
            let options = entry.options.clone();
            tune(entry)?;
            if entry.options != options
                && let Some(mounted) = self.at(path)
                && let Backend::Secret(engine) = &mounted.backend
            {
                engine.accept_options(&entry.options)?;
            }
            self.check_config(&entry.config)
        })
        .await
    }

    /// Moves a mount; its records, accessor and identities stay. Answers the id of the move.
    ///
    /// # Errors
    /// When the source is not there or the target is taken or of the other class.
    pub async fn rename(&self, from: &str, to: &str) -> Result<String, CoreError> {
        let id = random_uuid()?;
        self.change(|entries| {
            let index = entries
                .iter()
                .position(|entry| entry.path == from)
                .ok_or_else(|| CoreError::invalid(format!("there is no mount at \"{from}\"")))?;
            let mut moved = entries.swap_remove(index);
            if RESERVED.contains(&from) || from == "auth/token/" {
                return Err(CoreError::invalid("that mount cannot be moved"));
            }
            moved.path = mount_path(to, moved.class)?;
            refuse_overlap(entries, &moved.path)?;
            moved.moved = Some(Move { id: id.clone(), from: from.to_owned() });
            entries.push(moved);
            Ok(())
        })
        .await?;
        Ok(id)
    }

    /// Takes the entry out of the table and wipes what it stored. Its leases must be gone by now.
    ///
    /// # Errors
    /// When the store fails. What was begun is finished by calling again.
    pub async fn remove(&self, path: &str) -> Result<(), CoreError> {
        let Some(mounted) = self.at(path) else {
            return Ok(());
        };
        mounted.view.remove_tree("").await?;
        self.change(|entries| {
            entries.retain(|entry| entry.path != path);
            Ok(())
        })
        .await
    }

    async fn change(
        &self,
        edit: impl FnOnce(&mut Vec<MountEntry>) -> Result<(), CoreError>,
    ) -> Result<(), CoreError> {
        let _changing = self.changing.lock().await;
        let (mut entries, precondition) = self.stored().await?;
        let before = gates(&entries);
        edit(&mut entries)?;
        let after = gates(&entries);
        let (store, mut batch) = (self.store(), Batch::new());
        store.put(&mut batch, TABLE, &entries, precondition, PutOptions::default())?;
        for opened in after.difference(&before) {
            put_gate(&store, &mut batch, opened)?;
        }
        for closed in before.difference(&after) {
            store.delete(&mut batch, closed, Precondition::Any);
        }
        store.commit(&batch).await?;
        self.put_in_service(entries).await
    }

    fn check_config(&self, config: &MountConfig) -> Result<(), CoreError> {
        let max = config.max_lease_ttl.or(self.max_ttl);
        if config.default_lease_ttl > max {
            return Err(CoreError::field("default_lease_ttl", "is longer than max_lease_ttl"));
        }
        if config.user_lockout_config.threshold == 0 {
            return Err(CoreError::field("lockout_threshold", "must be at least 1"));
        }
        if !matches!(config.listing_visibility.as_str(), "" | "hidden" | "unauth") {
            return Err(CoreError::field("listing_visibility", "must be \"hidden\" or \"unauth\""));
        }
        Ok(())
    }

    /// Adds the table that every server begins with to `batch`: at initialisation.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn stage_defaults(records: &Arc<Records>, batch: &mut Batch) -> Result<(), CoreError> {
        let cubbyhole = MountEntry {
            path: "cubbyhole/".into(),
            class: MountClass::Secret,
            kind: "cubbyhole".into(),
            accessor: MountAccessor::new(format!("cubbyhole_{}", short_hex()?)),
            uuid: random_uuid()?,
            description: "per-token private secret storage".into(),
            options: BTreeMap::new(),
            config: MountConfig::default(),
            disabling: false,
            moved: None,
        };
        let store = View::new(records.clone(), NamespaceId::ROOT, kinds::MOUNTS, String::new());
        put_gate(&store, batch, &gate_name(&cubbyhole))?;
        store.put(batch, TABLE, &[cubbyhole], Precondition::Absent, PutOptions::default())
    }

    /// Withdraws what the mounts contributed elsewhere: the server is being sealed.
    pub fn unload(&self) {
        for mounted in self.mounted.swap(Arc::default()).values() {
            if let Backend::Auth(method) = &mounted.backend {
                method.unload();
            }
        }
    }
}

/// What to mount.
#[derive(Debug)]
pub struct NewMount {
    /// Where; auth mounts without `auth/`.
    pub path: String,
    /// Secrets or log-ins.
    pub class: MountClass,
    /// The engine's or method's name.
    pub kind: String,
    /// For people.
    pub description: String,
    /// For the engine.
    pub options: BTreeMap<String, String>,
    /// What can be tuned.
    pub config: MountConfig,
}

impl NewMount {
    fn accessor_stem(&self) -> String {
        match self.class {
            MountClass::Auth => format!("auth_{}", self.kind),
            MountClass::Secret => self.kind.clone(),
        }
    }
}

fn mount_path(path: &str, class: MountClass) -> Result<String, CoreError> {
    let path = ApiPath::parse(path)?.to_dir();
    match class {
        MountClass::Auth => {
            let path = format!("auth/{path}");
            if path == "auth/token/" {
                return Err(CoreError::invalid("\"auth/token/\" is always mounted"));
            }
            Ok(path)
        }
        MountClass::Secret
            if RESERVED.iter().any(|reserved| path.as_str().starts_with(reserved)) =>
        {
            Err(CoreError::invalid(format!("\"{path}\" belongs to the server itself")))
        }
        MountClass::Secret => Ok(path.as_str().to_owned()),
    }
}

fn gate_name(entry: &MountEntry) -> String {
    format!("open:{}", entry.uuid)
}

/// The names of the gates that belong to a table: one for each mount that is not being taken down.
fn gates(entries: &[MountEntry]) -> BTreeSet<String> {
    entries.iter().filter(|entry| !entry.disabling).map(gate_name).collect()
}

fn put_gate(store: &View, batch: &mut Batch, name: &str) -> Result<(), CoreError> {
    store.put(batch, name, &(), Precondition::Absent, PutOptions::default())
}

fn refuse_overlap(entries: &[MountEntry], path: &str) -> Result<(), CoreError> {
    match entries.iter().find(|e| e.path.starts_with(path) || path.starts_with(&e.path)) {
        Some(taken) => Err(CoreError::invalid(format!("path is already in use at {}", taken.path))),
        None => Ok(()),
    }
}

fn short_hex() -> Result<String, CoreError> {
    Ok(random_uuid()?.get(..8).unwrap_or_default().to_owned())
}
