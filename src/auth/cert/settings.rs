//! Settings of the mount, as they are written and stored.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::core::engine::EngineContext;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::view::Entry;

const CONFIG: &str = "config";

/// Settings of the mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Settings {
    /// Tokens are good with any certificate of the same identity.
    pub(super) disable_binding: bool,
    /// The certificate's facts are noted with the identity, where policies can ask for them.
    pub(super) enable_identity_alias_metadata: bool,
}

impl Settings {
    pub(super) async fn stored(ctx: &EngineContext<'_>) -> Result<Self, CoreError> {
        ctx.view.get_defaulted(CONFIG).await
    }

    pub(super) async fn update(ctx: &EngineContext<'_>, fields: &Fields) -> Result<(), CoreError> {
        let before = ctx.view.get_fresh::<Self>(CONFIG).await?;
        let precondition = Entry::expected(before.as_ref());
        let mut settings = before.map(|entry| entry.value).unwrap_or_default();
        if let Some(flag) = fields.boolean("disable_binding")? {
            settings.disable_binding = flag;
        }
        if let Some(flag) = fields.boolean("enable_identity_alias_metadata")? {
            settings.enable_identity_alias_metadata = flag;
        }
        ctx.view.write(CONFIG, &settings, precondition).await
    }

    pub(super) fn to_json(self) -> Value {
        json!({
            "disable_binding": self.disable_binding,
            "enable_identity_alias_metadata": self.enable_identity_alias_metadata,
        })
    }
}
