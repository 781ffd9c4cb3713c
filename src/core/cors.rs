//! Which web pages may talk to the server from a browser. Stored, and off until it is written.
//!
//! A browser presents the user's certificate for any page that makes it send a request, so pages of
//! other origins are a way to act as somebody else. Only those named here may, and those that are let
//! in by `*` only with a token, which no browser adds by itself.

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use crate::types::id::NamespaceId;

use super::error::CoreError;
use super::records::{Precondition, Records, kinds};
use super::view::View;

/// Name of the one record.
const NAME: &str = "cors";
/// Most origins, and most headers.
pub const NAMES_MAX: usize = 64;
/// Longest origin or header, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// The settings, as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorsSettings {
    /// Whether pages of other origins may ask anything.
    pub enabled: bool,
    /// Origins such as `https://console.example.com`, or `*` for all.
    pub allowed_origins: Vec<String>,
    /// Request headers beside those that clients always send.
    pub allowed_headers: Vec<String>,
}

/// What an origin may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginAccess {
    /// Ask whatever its user may.
    Named,
    /// Ask with a token.
    Any,
    /// Nothing.
    None,
}

impl CorsSettings {
    /// Checks and tidies what an administrator wrote.
    ///
    /// # Errors
    /// `Invalid`, naming the field.
    pub fn checked(mut self) -> Result<Self, CoreError> {
        for (field, list) in [
            ("allowed_origins", &mut self.allowed_origins),
            ("allowed_headers", &mut self.allowed_headers),
        ] {
            list.iter_mut().for_each(|name| name.make_ascii_lowercase());
            list.sort_unstable();
            list.dedup();
            if list.len() > NAMES_MAX || list.iter().any(|name| name.len() > NAME_BYTES_MAX) {
                return Err(CoreError::field(field, "is too long"));
            }
        }
        if self.enabled && self.allowed_origins.is_empty() {
            return Err(CoreError::field("allowed_origins", "is required"));
        }
        if !self.allowed_origins.iter().all(|origin| is_origin(origin)) {
            let problem = "must hold origins such as https://console.example.com, or *";
            return Err(CoreError::field("allowed_origins", problem));
        }
        let is_header = |name: &String| {
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        if !self.allowed_headers.iter().all(is_header) {
            return Err(CoreError::field("allowed_headers", "must hold names of headers"));
        }
        Ok(self)
    }

    /// What pages of `origin` may; it is compared as browsers send it.
    pub fn access(&self, origin: &str) -> OriginAccess {
        let has =
            |name: &str| self.allowed_origins.iter().any(|one| one.eq_ignore_ascii_case(name));
        match () {
            () if !self.enabled => OriginAccess::None,
            () if origin != "*" && has(origin) => OriginAccess::Named,
            () if has("*") => OriginAccess::Any,
            () => OriginAccess::None,
        }
    }
}

/// RFC 6454 §6.2: scheme, host and perhaps a port; never a path, never `null`.
fn is_origin(text: &str) -> bool {
    if text == "*" {
        return true;
    }
    let Some(host) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return false;
    };
    !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:[]".contains(&b))
}

/// The settings of an unsealed server.
pub struct Cors {
    view: View,
    current: ArcSwap<CorsSettings>,
}

impl Cors {
    /// Reads the settings in `records`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn load(records: Arc<Records>) -> Result<Self, CoreError> {
        let view = View::new(records, NamespaceId::ROOT, kinds::SETTING, String::new());
        let cors = Self { view, current: ArcSwap::default() };
        cors.reload().await?;
        Ok(cors)
    }

    /// Reads them again: another node changed them.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn reload(&self) -> Result<(), CoreError> {
        let stored = self.view.get_fresh::<CorsSettings>(NAME).await?;
        self.current.store(Arc::new(stored.map(|entry| entry.value).unwrap_or_default()));
        Ok(())
    }

    /// The settings in force.
    pub fn current(&self) -> Arc<CorsSettings> {
        self.current.load_full()
    }

    /// Puts settings in force that were [checked](CorsSettings::checked).
    ///
    /// # Errors
    /// When the store fails.
    pub async fn set(&self, settings: CorsSettings) -> Result<(), CoreError> {
        self.view.write(NAME, &settings, Precondition::Any).await?;
        self.reload().await
    }

    /// Lets no page of another origin ask anything.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn remove(&self) -> Result<(), CoreError> {
        self.view.remove(NAME).await?;
        self.reload().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(origins: &[&str]) -> CorsSettings {
        let allowed_origins = origins.iter().map(|origin| (*origin).to_owned()).collect();
        CorsSettings { enabled: true, allowed_origins, allowed_headers: Vec::new() }
    }

    #[test]
    fn only_origins_are_taken() {
        for good in ["https://a.example", "http://localhost:3000", "https://[::1]:8200", "*"] {
            assert!(settings(&[good]).checked().is_ok(), "{good}");
        }
        for bad in
            ["", "a.example", "https://", "https://a/b", "null", "https://*.example", "ftp://a"]
        {
            assert!(settings(&[bad]).checked().is_err(), "{bad}");
        }
        assert!(settings(&[]).checked().is_err());
        assert!(CorsSettings::default().checked().is_ok());
        let headers = |name: &str| CorsSettings {
            allowed_headers: vec![name.to_owned()],
            ..settings(&["*"])
        };
        assert!(headers("X-Custom").checked().is_ok());
        assert!(headers("x\r\ny").checked().is_err());
    }

    #[test]
    fn an_origin_is_matched_whole() {
        let named = settings(&["https://A.example:8443"]).checked().unwrap();
        assert_eq!(named.access("https://a.example:8443"), OriginAccess::Named);
        for other in [
            "https://a.example",
            "http://a.example:8443",
            "https://a.example:84430",
            "null",
            "",
            "https://a.example:8443.evil.example",
            "*",
        ] {
            assert_eq!(named.access(other), OriginAccess::None, "{other}");
        }
        let open = settings(&["*", "https://a.example"]).checked().unwrap();
        assert_eq!(open.access("https://a.example"), OriginAccess::Named);
        assert_eq!(open.access("https://b.example"), OriginAccess::Any);
        assert_eq!(open.access("*"), OriginAccess::Any);
        let off = CorsSettings { enabled: false, ..open };
        assert_eq!(off.access("https://a.example"), OriginAccess::None);
    }
}
