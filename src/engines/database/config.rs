//! Configured databases: `config/:name` and `reset/:name`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::driver::DatabaseDriver;
use super::postgres::{PostgresConfig, PostgresDriver};
use super::role::RoleRecord;
use super::statement::{Statements, Variable};
use super::static_role::StaticRoleRecord;
use super::stored::StoredSecret;
use super::target::failure;
use super::username::{DEFAULT_TEMPLATE, NameTemplate};
use super::{DatabaseEngine, precondition};
use crate::core::engine::EngineContext;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::reply::Reply;
use crate::core::view::Entry;
use crate::types::id::random_base62;
use crate::types::secret::SecretString;
use crate::types::time::Ttl;

/// The only kind of target so far, by the name that stock clients know it by.
const PLUGIN: &str = "postgresql-database-plugin";
const OPEN_CONNECTIONS_DEFAULT: u64 = 4;
const SCRAM: &str = "scram-sha-256";

/// A configured database, as stored below `config/`.
#[derive(Serialize, Deserialize)]
pub(super) struct ConfigRecord {
    pub connection_url: String,
    pub username: String,
    pub password: Option<StoredSecret>,
    /// A root password that was made durable before it was set, and not yet seen to work.
    pub pending_password: Option<StoredSecret>,
    pub allowed_roles: Vec<String>,
    pub verify_connection: bool,
    pub root_rotation_statements: Vec<String>,
    pub username_template: String,
    pub max_open_connections: u64,
    pub max_idle_connections: u64,
    pub max_connection_lifetime: Ttl,
    pub tls_ca: Option<String>,
    pub tls_certificate: Option<String>,
    pub private_key: Option<StoredSecret>,
    /// Changes whenever open connections must not be used any more.
    pub generation: String,
}

impl Default for ConfigRecord {
    fn default() -> Self {
        Self {
            connection_url: String::new(),
            username: String::new(),
            password: None,
            pending_password: None,
            allowed_roles: Vec::new(),
            verify_connection: true,
            root_rotation_statements: Vec::new(),
            username_template: String::new(),
            max_open_connections: OPEN_CONNECTIONS_DEFAULT,
            max_idle_connections: OPEN_CONNECTIONS_DEFAULT,
            max_connection_lifetime: Ttl::ZERO,
            tls_ca: None,
            tls_certificate: None,
            private_key: None,
            generation: String::new(),
        }
    }
}

/// The name of the record of a configured database.
pub(super) fn record_name(name: &str) -> String {
    format!("config/{name}")
}

impl ConfigRecord {
    /// Whether the role `name` may use this database.
    pub(super) fn allows(&self, name: &str) -> bool {
        self.allowed_roles.iter().any(|allowed| match allowed.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => allowed == name,
        })
    }

    pub(super) fn name_template(&self) -> Result<NameTemplate, CoreError> {
        let text = if self.username_template.is_empty() {
            DEFAULT_TEMPLATE
        } else {
            &self.username_template
        };
        NameTemplate::parse(text)
            .map_err(|error| CoreError::field("username_template", error.to_string()))
    }

    pub(super) fn rotation(&self) -> Result<Statements, CoreError> {
        password_statements("root_rotation_statements", &self.root_rotation_statements)
    }

    /// A driver that tries the pending password too while there is one.
    pub(super) fn driver(&self, ctx: &EngineContext<'_>) -> Result<PostgresDriver, CoreError> {
        let passwords = [&self.password, &self.pending_password];
        self.driver_with(
            ctx,
            passwords.into_iter().flatten().map(|stored| stored.secret().duplicate()).collect(),
        )
    }

    /// A driver that knows these passwords only.
    pub(super) fn driver_with(
        &self,
        ctx: &EngineContext<'_>,
        passwords: Vec<SecretString>,
    ) -> Result<PostgresDriver, CoreError> {
        let config = PostgresConfig {
            connection_url: &self.connection_url,
            username: &self.username,
            passwords,
            tls_ca: self.tls_ca.as_deref(),
            tls_certificate: self.tls_certificate.as_deref(),
            private_key: self.private_key.as_ref().map(StoredSecret::secret),
            max_open_connections: usize::try_from(self.max_open_connections).unwrap_or(usize::MAX),
            max_idle_connections: usize::try_from(self.max_idle_connections).unwrap_or(usize::MAX),
            max_connection_lifetime: self.max_connection_lifetime,
        };
        PostgresDriver::new(config, Arc::clone(ctx.clock))
            .map_err(|error| CoreError::field(error.field, error.problem))
    }

    /// Takes over what the request gives; what it leaves out stays.
    fn apply(&mut self, fields: &Fields) -> Result<(), CoreError> {
        take(&mut self.connection_url, fields.text("connection_url")?);
        take(&mut self.username, fields.text("username")?);
        if let Some(password) = fields.secret("password")? {
            let given = !password.expose().is_empty();
            self.password = given.then(|| StoredSecret::new(password));
            self.pending_password = None;
        }
        take(&mut self.allowed_roles, fields.list("allowed_roles")?);
        take(&mut self.verify_connection, fields.boolean("verify_connection")?);
        take(&mut self.root_rotation_statements, fields.statements("root_rotation_statements")?);
        take(&mut self.username_template, fields.text("username_template")?);
        let open = fields.integer("max_open_connections")?;
        let idle = fields.integer("max_idle_connections")?;
        // Stock clients send zero for "as the server likes".
        take(
            &mut self.max_open_connections,
            open.map(|n| if n == 0 { OPEN_CONNECTIONS_DEFAULT } else { n }),
        );
        let all = self.max_open_connections;
        take(&mut self.max_idle_connections, idle.map(|n| if n == 0 { all } else { n }));
        take(&mut self.max_connection_lifetime, fields.duration("max_connection_lifetime")?);
        if let Some(pem) = fields.text("tls_ca")? {
            self.tls_ca = Some(pem).filter(|pem| !pem.is_empty());
        }
        if let Some(pem) = fields.text("tls_certificate")? {
            self.tls_certificate = Some(pem).filter(|pem| !pem.is_empty());
        }
        if let Some(key) = fields.secret("private_key")? {
            let given = !key.expose().is_empty();
            self.private_key = given.then(|| StoredSecret::new(key));
        }
        Ok(())
    }
}

/// Replaces a setting when a new one is given.
pub(super) fn take<T>(setting: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *setting = given;
    }
}

/// Statements that set a password: none, or some that use it.
pub(super) fn password_statements(
    field: &'static str,
    texts: &[String],
) -> Result<Statements, CoreError> {
    let statements = Statements::parse(texts, &[Variable::Name, Variable::Password])
        .map_err(|error| CoreError::field(field, error.to_string()))?;
    if !statements.is_empty() && !statements.uses(Variable::Password) {
        return Err(CoreError::field(field, "never uses {{password}}"));
    }
    Ok(statements)
}

fn refuse_unsupported(fields: &Fields) -> Result<(), CoreError> {
    if fields.text("password_policy")?.is_some_and(|policy| !policy.is_empty()) {
        return Err(CoreError::field(
            "password_policy",
            "is not supported: passwords are 24 random letters and digits",
        ));
    }
    let authentication = fields.text("password_authentication")?;
    if authentication.is_some_and(|kind| !kind.is_empty() && kind != SCRAM) {
        return Err(CoreError::field(
            "password_authentication",
            "must be scram-sha-256: clear passwords are never sent to a database",
        ));
    }
    Ok(())
}

impl DatabaseEngine {
    pub(super) async fn write_config(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
        fields: &Fields,
    ) -> Result<Reply, CoreError> {
        let before: Option<Entry<ConfigRecord>> = ctx.view.get_fresh(&record_name(name)).await?;
        let precondition = precondition(before.as_ref());
        let plugin = fields.text("plugin_name")?;
        match (plugin.as_deref(), &before) {
            (Some(PLUGIN), _) | (None, Some(_)) => {}
            (None, None) => return Err(CoreError::field("plugin_name", "is required")),
            (Some(_), _) => {
                return Err(CoreError::field(
                    "plugin_name",
                    format!("must be {PLUGIN}, the only kind of database served"),
                ));
            }
        }
        refuse_unsupported(fields)?;
        let mut config = before.map(|entry| entry.value).unwrap_or_default();
        config.apply(fields)?;
        config.generation = random_base62(16)?;
        config.rotation()?;
        config.name_template()?;
        let driver = config.driver(ctx)?;
        if config.verify_connection {
            driver.verify().await.map_err(|error| failure(name, error))?;
        }
        ctx.view.write(&record_name(name), &config, precondition).await?;
        self.forget_driver(name);
        let reply = Reply::empty();
        Ok(if driver.is_server_unverified() {
            reply.warn(
                "connections are encrypted, but to whoever answers: give tls_ca and \
                 sslmode=verify-full",
            )
        } else {
            reply
        })
    }

    pub(super) async fn read_config(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
    ) -> Result<Reply, CoreError> {
        let entry: Option<Entry<ConfigRecord>> = ctx.view.get(&record_name(name)).await?;
        let config = entry.ok_or(CoreError::NotFound)?.value;
        Ok(Reply::data(json!({
            "plugin_name": PLUGIN,
            "plugin_version": "",
            "connection_details": {
                "connection_url": config.connection_url,
                "username": config.username,
                "max_open_connections": config.max_open_connections,
                "max_idle_connections": config.max_idle_connections,
                "max_connection_lifetime": config.max_connection_lifetime.as_secs(),
                "username_template": config.username_template,
                "password_authentication": SCRAM,
                "tls_ca": config.tls_ca.unwrap_or_default(),
                "tls_certificate": config.tls_certificate.unwrap_or_default(),
            },
            "allowed_roles": config.allowed_roles,
            "password_policy": "",
            "root_credentials_rotate_statements": config.root_rotation_statements,
            "verify_connection": config.verify_connection,
        })))
    }

    pub(super) async fn delete_config(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
    ) -> Result<Reply, CoreError> {
        for (path, role) in ctx.view.entries::<RoleRecord>("roles/").await? {
            if role.value.db_name == name {
                return Err(CoreError::invalid(format!("still used by {path}")));
            }
        }
        for (path, role) in ctx.view.entries::<StaticRoleRecord>("static-roles/").await? {
            if role.value.db_name == name {
                return Err(CoreError::invalid(format!("still used by {path}")));
            }
        }
        ctx.view.remove(&record_name(name)).await?;
        self.forget_driver(name);
        Ok(Reply::empty())
    }

    /// Makes every node open new connections.
    pub(super) async fn reset(
        &self,
        ctx: &EngineContext<'_>,
        name: &str,
    ) -> Result<Reply, CoreError> {
        let entry: Option<Entry<ConfigRecord>> = ctx.view.get_fresh(&record_name(name)).await?;
        let precondition = precondition(entry.as_ref());
        let mut config = entry.ok_or(CoreError::NotFound)?.value;
        config.generation = random_base62(16)?;
        ctx.view.write(&record_name(name), &config, precondition).await?;
        self.forget_driver(name);
        Ok(Reply::empty())
    }
}
