//! What an entry says, and its text.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::ser::Formatter;

use super::redact::{Hmac, RedactedData};
use crate::types::id::{EntityId, LeaseId, MountAccessor, RequestId};
use crate::types::time::Timestamp;

/// Longest text of one field, in bytes; the rest is cut off and counted.
const FIELD_BYTES_MAX: usize = 2048;
/// Longest name in a list of names, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// Most policies and scopes listed in one entry; the rest is counted.
const NAMES_MAX: usize = 128;

/// What is known of an operation before anything is decided about it.
#[derive(Clone, Debug)]
pub struct OperationSummary {
    /// The request; for work of our own, the run.
    pub request_id: RequestId,
    /// When it arrived.
    pub time: Timestamp,
    /// `read`, `update` and so on; for work of our own, its verb.
    pub operation: &'static str,
    /// The path as asked for, even where it was refused for its form.
    pub path: String,
    /// Where the connection comes from; `None` for work of our own.
    pub remote: Option<SocketAddr>,
    /// The listener it arrived on; for work of our own, its name.
    pub listener: Arc<str>,
    /// The certificate on the connection.
    pub peer: Option<PeerSummary>,
}

/// The certificate a peer proved possession of.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PeerSummary {
    /// The SPIFFE id, when there is exactly one URI SAN and it is one.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "clipped_option")]
    pub spiffe_id: Option<String>,
    /// The subject's common name.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "clipped_option")]
    pub common_name: Option<String>,
    /// Serial number, hex.
    #[serde(serialize_with = "clipped")]
    pub serial: String,
    /// SHA-256 of the DER, hex.
    #[serde(serialize_with = "clipped")]
    pub fingerprint: String,
}

/// Who the caller turned out to be.
#[derive(Clone, Debug, Default)]
pub struct CallerSummary {
    /// The entity that leases and policies hang on.
    pub entity_id: Option<EntityId>,
    /// Name for people.
    pub display_name: String,
    /// Policies in force.
    pub policies: Vec<String>,
    /// Scopes that narrow them.
    pub scopes: Vec<String>,
    /// Keyed hash of the token's accessor, when the caller came with a token.
    pub accessor: Option<Hmac>,
    /// `service`, `batch`, `certificate`.
    pub token_type: &'static str,
    /// The role that admitted the certificate, when one did.
    pub role: Option<String>,
}

/// The mount that the path led to.
#[derive(Clone, Debug)]
pub struct MountSummary {
    /// Type of the engine or method.
    pub kind: String,
    /// The mount's accessor.
    pub accessor: MountAccessor,
    /// Where it is mounted.
    pub path: String,
}

/// How an operation ended.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The HTTP status; zero for work of our own that has none.
    pub status: u16,
    /// What the caller is told, when it is an error.
    pub error: Option<String>,
    /// The lease that was issued, renewed or ended.
    pub lease_id: Option<LeaseId>,
    /// The accessor of the wrapping token, when the answer is wrapped.
    pub wrapping_accessor: Option<Hmac>,
    /// The store's sequence after the operation's last commit.
    pub store_sequence: Option<u64>,
}

/// The text of an entry, between its number and its chain.
#[derive(Debug)]
pub struct EntryBody(Vec<u8>);

impl EntryBody {
    /// The bytes: `,"time":…` up to the last field, without the closing brace.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// From a type that serializes as a non-empty object.
    fn of(object: &impl Serialize) -> Self {
        let mut out = Vec::with_capacity(1024);
        // Plain structs, texts and numbers always serialize.
        let _ = write_json(object, &mut out);
        out.pop();
        if let Some(brace) = out.first_mut() {
            *brace = b',';
        }
        Self(out)
    }

    fn push_field(&mut self, name: &str, json: &[u8]) {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
        self.0.extend_from_slice(json);
    }
}

/// The entry of something that happened to the server or to the audit itself. `detail` is written in
/// clear.
pub fn event_body(time: Timestamp, event: &'static str, detail: &Value) -> EntryBody {
    #[derive(Serialize)]
    struct Event<'a> {
        time: String,
        r#type: &'static str,
        event: &'static str,
        detail: &'a Value,
    }
    EntryBody::of(&Event { time: time.to_rfc3339(), r#type: "event", event, detail })
}

/// Everything a ticket has gathered.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) summary: OperationSummary,
    pub(super) mount: Option<MountSummary>,
    pub(super) caller: Option<CallerSummary>,
    pub(super) reason: Option<String>,
    pub(super) request: Option<RedactedData>,
    pub(super) response: Option<RedactedData>,
}

impl Draft {
    /// The entry's text; without an outcome the operation was aborted.
    pub(super) fn body(&self, outcome: Option<&Outcome>) -> EntryBody {
        let caller = self.caller.as_ref();
        let mut body = EntryBody::of(&OperationLine {
            time: self.summary.time.to_rfc3339(),
            r#type: "operation",
            request_id: &self.summary.request_id,
            operation: self.summary.operation,
            path: Clipped(&self.summary.path),
            mount: self.mount.as_ref().map(|mount| MountLine {
                r#type: Clipped(&mount.kind),
                accessor: &mount.accessor,
                path: Clipped(&mount.path),
            }),
            remote: self.summary.remote,
            listener: Clipped(&self.summary.listener),
            caller: CallerLine {
                cert: self.summary.peer.as_ref(),
                entity_id: caller.and_then(|caller| caller.entity_id.as_ref()),
                display_name: caller.map(|caller| Clipped(&caller.display_name)),
                policies: caller.map(|caller| Names(&caller.policies)),
                scopes: caller
                    .filter(|caller| !caller.scopes.is_empty())
                    .map(|caller| Names(&caller.scopes)),
                accessor: caller.and_then(|caller| caller.accessor.as_ref()),
                token_type: caller.map(|caller| caller.token_type),
                role: caller.and_then(|caller| caller.role.as_deref()).map(Clipped),
            },
            outcome: OutcomeLine {
                status: outcome.map(|outcome| outcome.status).filter(|status| *status != 0),
                aborted: outcome.is_none(),
                error: outcome.and_then(|outcome| outcome.error.as_deref()).map(Clipped),
                reason: self.reason.as_deref().map(Clipped),
                wrapping_accessor: outcome.and_then(|outcome| outcome.wrapping_accessor.as_ref()),
            },
            lease_id: outcome
                .and_then(|outcome| outcome.lease_id.as_ref())
                .map(|lease| Clipped(lease.as_str())),
        });
        if let Some(request) = &self.request {
            body.push_field("request", request.as_bytes());
        }
        if let Some(response) = &self.response {
            body.push_field("response", response.as_bytes());
        }
        body
    }
}

#[derive(Serialize)]
struct OperationLine<'a> {
    time: String,
    r#type: &'static str,
    request_id: &'a RequestId,
    operation: &'static str,
    path: Clipped<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mount: Option<MountLine<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote: Option<SocketAddr>,
    listener: Clipped<'a>,
    caller: CallerLine<'a>,
    outcome: OutcomeLine<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_id: Option<Clipped<'a>>,
}

#[derive(Serialize)]
struct MountLine<'a> {
    r#type: Clipped<'a>,
    accessor: &'a MountAccessor,
    path: Clipped<'a>,
}

#[derive(Serialize)]
struct CallerLine<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    entity_id: Option<&'a EntityId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<Clipped<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policies: Option<Names<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<Names<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accessor: Option<&'a Hmac>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<Clipped<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cert: Option<&'a PeerSummary>,
}

#[derive(Serialize)]
struct OutcomeLine<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    aborted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Clipped<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Clipped<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wrapping_accessor: Option<&'a Hmac>,
}

/// A text that others chose, cut to [`FIELD_BYTES_MAX`].
struct Clipped<'a>(&'a str);

impl Serialize for Clipped<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&cut(self.0, FIELD_BYTES_MAX))
    }
}

fn cut(text: &str, bytes_max: usize) -> Cow<'_, str> {
    match text.get(..text.floor_char_boundary(bytes_max)) {
        Some(kept) if kept.len() < text.len() => {
            Cow::Owned(format!("{kept}… ({} bytes)", text.len()))
        }
        Some(_) | None => Cow::Borrowed(text),
    }
}

fn clipped<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    Clipped(text).serialize(serializer)
}

#[expect(clippy::ref_option, reason = "the signature that serde calls")]
fn clipped_option<S: Serializer>(text: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    text.as_deref().map(Clipped).serialize(serializer)
}

/// A list of names, cut to [`NAMES_MAX`].
struct Names<'a>(&'a [String]);

impl Serialize for Names<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let left = self.0.len().saturating_sub(NAMES_MAX);
        let more = (left > 0).then(|| Cow::Owned(format!("… ({left} more)")));
        let names = self.0.iter().take(NAMES_MAX).map(|name| cut(name, NAME_BYTES_MAX));
        serializer.collect_seq(names.chain(more))
    }
}

/// Serializes as JSON in which no text can steer a terminal or split a line.
pub(super) fn write_json(
    value: &impl Serialize,
    out: &mut Vec<u8>,
) -> Result<(), serde_json::Error> {
    value.serialize(&mut serde_json::Serializer::with_formatter(out, SafeText))
}

/// JSON already escapes the C0 controls; this also escapes DEL, the C1 controls (CSI among them), and
/// what reorders or breaks lines on a screen.
struct SafeText;

impl Formatter for SafeText {
    fn write_string_fragment<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> std::io::Result<()> {
        // Nearly always.
        if fragment.bytes().all(|byte| byte < 0x7f) {
            return writer.write_all(fragment.as_bytes());
        }
        let mut rest = fragment;
        while let Some((at, found)) = rest.char_indices().find(|(_, c)| steers(*c)) {
            let (before, after) = rest.split_at(at);
            writer.write_all(before.as_bytes())?;
            // All of these are in the basic plane: four digits suffice.
            write!(writer, "\\u{:04x}", u32::from(found))?;
            rest = after.get(found.len_utf8()..).unwrap_or_default();
        }
        writer.write_all(rest.as_bytes())
    }
}

const fn steers(c: char) -> bool {
    matches!(c,
        '\u{7f}'..='\u{9f}'
        | '\u{61c}'
        | '\u{200b}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}')
}
