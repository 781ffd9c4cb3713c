//! What holds for all keys of a mount.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::record::SETTINGS;
use crate::core::engine::EngineContext;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::records::Precondition;
use crate::core::reply::Reply;

#[derive(Default, Serialize, Deserialize)]
pub(super) struct Settings {
    /// Whether no key is made by encrypting with one that is not there.
    pub(super) disable_upsert: bool,
}

impl Settings {
    pub(super) async fn load(ctx: &EngineContext<'_>) -> Result<Self, CoreError> {
        let stored = ctx.view.get(SETTINGS).await?;
        Ok(stored.map(|entry| entry.value).unwrap_or_default())
    }

    fn answer(&self) -> Reply {
        Reply::data(json!({ "disable_upsert": self.disable_upsert }))
    }
}

pub(super) async fn read(ctx: &EngineContext<'_>) -> Result<Reply, CoreError> {
    Ok(Settings::load(ctx).await?.answer())
}

pub(super) async fn write(ctx: &EngineContext<'_>, fields: &Fields) -> Result<Reply, CoreError> {
    let disable_upsert = fields.boolean("disable_upsert")?;
    let disable_upsert =
        disable_upsert.ok_or_else(|| CoreError::field("disable_upsert", "is required"))?;
    let settings = Settings { disable_upsert };
    ctx.view.write(SETTINGS, &settings, Precondition::Any).await?;
    Ok(settings.answer())
}
