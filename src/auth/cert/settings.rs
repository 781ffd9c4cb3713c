//! Settings of the mount, and its revocation lists, as they are written and stored.

use std::sync::Arc;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::core::engine::EngineContext;
use crate::core::error::CoreError;
use crate::core::fields::Fields;
use crate::core::records::Precondition;
use crate::core::view::Entry;
use crate::crypto::x509::crl::{Crl, Crls, ExpiredCrl};

const CONFIG: &str = "config";
/// Most serial numbers shown of one list.
const SERIALS_SHOWN_MAX: usize = 10_000;

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
        Ok(ctx.view.get::<Self>(CONFIG).await?.map(|entry| entry.value).unwrap_or_default())
    }

    pub(super) async fn update(ctx: &EngineContext<'_>, fields: &Fields) -> Result<(), CoreError> {
        let before = ctx.view.get_fresh::<Self>(CONFIG).await?;
        let precondition = expected(before.as_ref());
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

/// A revocation list.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredCrl {
    pem: String,
    accept_expired: bool,
}

impl StoredCrl {
    pub(super) fn read(fields: &Fields) -> Result<Self, CoreError> {
        if fields.text("url")?.is_some_and(|url| !url.is_empty()) {
            return Err(CoreError::field(
                "url",
                "is not supported; send the list itself in \"crl\"",
            ));
        }
        let accept_expired = match fields.text("on_expiry")?.as_deref() {
            None | Some("" | "refuse") => false,
            Some("accept") => true,
            Some(_) => return Err(CoreError::field("on_expiry", "must be refuse or accept")),
        };
        let stored = Self { pem: fields.required_text("crl")?, accept_expired };
        stored.lists().map_err(|error| CoreError::field("crl", error.to_string()))?;
        Ok(stored)
    }

    fn lists(&self) -> Result<Vec<Crl>, crate::crypto::x509::crl::CrlError> {
        Crl::from_file_bytes(self.pem.as_bytes())
    }

    pub(super) fn add_to(&self, crls: &mut Crls) -> Result<(), CoreError> {
        let expired = if self.accept_expired { ExpiredCrl::Accept } else { ExpiredCrl::Refuse };
        let lists = self
            .lists()
            .map_err(|_| CoreError::internal("a stored revocation list does not parse"))?;
        for list in lists {
            crls.push(Arc::new(list), expired);
        }
        Ok(())
    }

    pub(super) fn to_json(&self) -> Result<Value, CoreError> {
        let lists = self
            .lists()
            .map_err(|_| CoreError::internal("a stored revocation list does not parse"))?;
        let serials: Map<String, Value> = lists
            .iter()
            .flat_map(Crl::revoked_serials)
            .take(SERIALS_SHOWN_MAX)
            .map(|serial| (HEXLOWER.encode(serial), json!({})))
            .collect();
        let next_update = lists.iter().filter_map(Crl::next_update).min();
        Ok(json!({
            "serials": serials,
            "revoked_count": lists.iter().map(Crl::revoked_count).sum::<usize>(),
            "next_update": next_update.map(|at| at.to_rfc3339()),
            "on_expiry": if self.accept_expired { "accept" } else { "refuse" },
        }))
    }
}

/// What a write expects to find, after what was read.
pub(super) fn expected<T>(before: Option<&Entry<T>>) -> Precondition {
    before.map_or(Precondition::Absent, |entry| Precondition::Rev(entry.rev))
}
