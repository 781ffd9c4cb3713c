//! Headers that administrators add to what browsers are answered. Stored, and none until written.
//!
//! What the server says itself, and what steers a connection, a cache, cookies, other origins or where
//! a browser goes next, is not theirs to set: such a header could take back what the server promises.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use crate::types::id::NamespaceId;

use super::error::CoreError;
use super::records::{Precondition, Records, kinds};
use super::view::{Entry, View};

/// Name of the one record.
const NAME: &str = "ui-headers";
/// Most headers.
pub const HEADERS_MAX: usize = 32;
/// Most values of one header.
pub const VALUES_MAX: usize = 8;
const NAME_BYTES_MAX: usize = 64;
const VALUE_BYTES_MAX: usize = 2048;

/// Names that nobody sets.
const RESERVED: &[&str] = &[
    "alt-svc",
    "authorization",
    "cache-control",
    "connection",
    "cookie",
    "date",
    "expires",
    "host",
    "keep-alive",
    "location",
    "pragma",
    "public-key-pins",
    "refresh",
    "retry-after",
    "service-worker-allowed",
    "set-cookie",
    "set-cookie2",
    "te",
    "timing-allow-origin",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "www-authenticate",
    "x-content-type-options",
    "x-request-id",
];
/// What names begin with that nobody sets, but for [`OPEN`].
const RESERVED_PREFIXES: &[&str] =
    &["access-control-", "content-", "proxy-", "x-leasehold-", "x-ratelimit-", "x-vault-"];
/// What the server says nothing about, and what can only forbid a browser more.
const OPEN: &[&str] = &["content-security-policy", "content-security-policy-report-only"];

/// The headers, each with its values, by their names as they are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderTable {
    headers: BTreeMap<String, Vec<String>>,
}

impl HeaderTable {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.headers.iter().map(|(name, values)| (name.as_str(), values.as_slice()))
    }

    /// The values of one.
    pub fn get(&self, name: &HeaderLabel) -> Option<&[String]> {
        self.headers.get(&name.0).map(Vec::as_slice)
    }
}

/// The name of a header that administrators may set, in its usual spelling: `X-Frame-Options`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderLabel(String);

impl HeaderLabel {
    /// Checks a name.
    ///
    /// # Errors
    /// `Invalid` when it is no name of a header, or not theirs to set.
    pub fn parse(name: &str) -> Result<Self, CoreError> {
        let lower = name.to_ascii_lowercase();
        let is_name = !lower.is_empty()
            && lower.len() <= NAME_BYTES_MAX
            && lower.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !is_name {
            return Err(CoreError::field("header", "must be the name of a header"));
        }
        let reserved = RESERVED.contains(&lower.as_str())
            || RESERVED_PREFIXES.iter().any(|prefix| lower.starts_with(prefix));
        if reserved && !OPEN.contains(&lower.as_str()) {
            return Err(CoreError::field("header", "is one that only the server itself sets"));
        }
        let words: Vec<String> = lower.split('-').map(capitalised).collect();
        Ok(Self(words.join("-")))
    }
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + letters.as_str())
}

/// Checks the values of a header.
fn check_values(values: &[String]) -> Result<(), CoreError> {
    if values.is_empty() {
        return Err(CoreError::field("values", "is required"));
    }
    if values.len() > VALUES_MAX || values.iter().any(|value| value.len() > VALUE_BYTES_MAX) {
        return Err(CoreError::field("values", "is too long"));
    }
    let is_value = |value: &String| {
        value.trim() == value
            && !value.is_empty()
            && value.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
    };
    if !values.iter().all(is_value) {
        return Err(CoreError::field("values", "must be printable ASCII text on one line"));
    }
    Ok(())
}

/// The headers of an unsealed server.
pub struct UiHeaders {
    view: View,
    current: ArcSwap<HeaderTable>,
}

impl UiHeaders {
    /// Reads the headers in `records`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn load(records: Arc<Records>) -> Result<Self, CoreError> {
        let view = View::new(records, NamespaceId::ROOT, kinds::SETTING, String::new());
        let headers = Self { view, current: ArcSwap::default() };
        headers.reload().await?;
        Ok(headers)
    }

    /// Reads them again: another node changed them.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn reload(&self) -> Result<(), CoreError> {
        let stored = self.view.get_fresh::<HeaderTable>(NAME).await?;
        self.current.store(Arc::new(stored.map(|entry| entry.value).unwrap_or_default()));
        Ok(())
    }

    /// The headers in force.
    pub fn current(&self) -> Arc<HeaderTable> {
        self.current.load_full()
    }

    /// Sets a header, in place of what it was set to.
    ///
    /// # Errors
    /// `Invalid` when the values are none, or there are too many headers; `Storage(Conflict)` when
    /// another node changes them at the same time.
    pub async fn set(&self, name: HeaderLabel, values: Vec<String>) -> Result<(), CoreError> {
        check_values(&values)?;
        let stored = self.view.get_fresh::<HeaderTable>(NAME).await?;
        let precondition = Entry::expected(stored.as_ref());
        let mut table = stored.map(|entry| entry.value).unwrap_or_default();
        table.headers.insert(name.0, values);
        if table.headers.len() > HEADERS_MAX {
            return Err(CoreError::invalid(format!("there are {HEADERS_MAX} headers already")));
        }
        self.write(&table, precondition).await
    }

    /// Removes a header; one that is not set is no error.
    ///
    /// # Errors
    /// As [`UiHeaders::set`].
    pub async fn remove(&self, name: &HeaderLabel) -> Result<(), CoreError> {
        let Some(entry) = self.view.get_fresh::<HeaderTable>(NAME).await? else { return Ok(()) };
        let precondition = Entry::expected(Some(&entry));
        let mut table = entry.value;
        match table.headers.remove(&name.0) {
            Some(_) => self.write(&table, precondition).await,
            None => Ok(()),
        }
    }

    async fn write(&self, table: &HeaderTable, expected: Precondition) -> Result<(), CoreError> {
        self.view.write(NAME, table, expected).await?;
        self.reload().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::scratch::Scratch;

    fn label(name: &str) -> HeaderLabel {
        HeaderLabel::parse(name).unwrap()
    }

    #[test]
    fn names_have_one_spelling_and_those_of_the_server_are_refused() {
        for (name, shown) in [
            ("x-frame-options", "X-Frame-Options"),
            ("STRICT-TRANSPORT-SECURITY", "Strict-Transport-Security"),
            ("content-security-policy", "Content-Security-Policy"),
            ("x--a", "X--A"),
        ] {
            assert_eq!(label(name).0, shown);
        }
        for bad in [
            "",
            "a b",
            "x\r\ny",
            "x:y",
            "é",
            "X-Content-Type-Options",
            "cache-control",
            "Access-Control-Allow-Origin",
            "access-control-allow-credentials",
            "Content-Type",
            "content-length",
            "Set-Cookie",
            "X-Vault-Token",
            "X-Request-Id",
            "Transfer-Encoding",
            "Location",
        ] {
            assert!(HeaderLabel::parse(bad).is_err(), "{bad}");
        }
        assert!(HeaderLabel::parse(&"a".repeat(NAME_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn values_are_one_line_of_printable_text() {
        let check = |value: &str| check_values(&[value.to_owned()]);
        assert!(check("default-src 'self'; frame-ancestors 'none'").is_ok());
        let long = "a".repeat(VALUE_BYTES_MAX + 1);
        for bad in ["", " a", "a ", "a\r\nset-cookie: b", "a\nb", "a\tb", "\u{7f}", "é", &long] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        assert!(check_values(&[]).is_err());
        assert!(check_values(&vec!["a".to_owned(); VALUES_MAX + 1]).is_err());
    }

    #[tokio::test]
    async fn headers_are_kept_for_the_next_start_and_bounded() {
        let scratch = Scratch::new();
        let headers = UiHeaders::load(scratch.records.clone()).await.unwrap();
        headers.remove(&label("x-a")).await.unwrap();
        for number in 0..HEADERS_MAX {
            let values = vec![number.to_string(), "b".into()];
            headers.set(label(&format!("x-{number}")), values).await.unwrap();
        }
        assert!(headers.set(label("x-more"), vec!["a".into()]).await.is_err());
        headers.set(label("X-0"), vec!["c".into()]).await.unwrap();
        headers.remove(&label("x-1")).await.unwrap();
        let again = UiHeaders::load(scratch.records.clone()).await.unwrap();
        assert_eq!(again.current(), headers.current());
        assert_eq!(again.current().get(&label("x-0")), Some(["c".to_owned()].as_slice()));
        assert_eq!(again.current().get(&label("x-1")), None);
        assert_eq!(again.current().iter().count(), HEADERS_MAX - 1);
    }
}
