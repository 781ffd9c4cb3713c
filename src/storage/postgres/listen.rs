//! Telling other nodes what changed, and hearing it from them.
//!
//! A committing transaction names the keys of the rows it changed on a channel; PostgreSQL passes that
//! on after the commit. Each node listens on a connection of its own. While that is lost, and after it
//! is back, a node is told to forget everything: it cannot know what it missed.

use std::time::Duration;

use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio_postgres::{AsyncMessage, Client, Config, Notification};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Change, Invalidation, Kind, RowKey, StorageError, failed};
use crate::crypto::blind::Tag;
use crate::types::id::NamespaceId;

/// The channel. One database has one, so stores in different schemas of it disturb each other's
/// caches, but nothing else.
pub(super) const CHANNEL: &str = "leasehold_changes";
/// PostgreSQL refuses payloads of 8000 bytes or more.
const PAYLOAD_BYTES_MAX: usize = 7900;
const NODE_DIGITS: usize = 16;
const KEY_BYTES: usize = 4 + 2 + 16;
const KEYS_PER_PAYLOAD: usize = (PAYLOAD_BYTES_MAX - NODE_DIGITS - 1) / (2 * KEY_BYTES);
/// Beyond this it is cheaper to forget everything than to name the rows.
const PAYLOADS_MAX: usize = 8;
/// Stands for all keys.
const EVERYTHING: &str = "*";
/// How often a silent connection is asked whether it is alive, and how long it may take to answer.
const HEARTBEAT: Duration = Duration::from_secs(10);
const HEARTBEAT_TIME_MAX: Duration = Duration::from_secs(5);
/// Pause between attempts to connect again. While it lasts, caches are emptied at each attempt.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);
const CONNECT_TIME_MAX: Duration = Duration::from_secs(15);

/// What `node` has to say about `batch`.
pub(super) fn payloads(node: u64, batch: &[Change]) -> Vec<String> {
    let keys: Vec<[u8; KEY_BYTES]> = batch
        .iter()
        .filter_map(|change| match change {
            Change::Put { row, .. } => Some(key_to_bytes(&row.key)),
            Change::Delete { key, .. } => Some(key_to_bytes(key)),
            Change::RequireRow { .. }
            | Change::RequireChildless { .. }
            | Change::RequireFewer { .. }
            | Change::PutMeta { .. }
            | Change::RaiseTermFloor { .. } => None,
        })
        .collect();
    if keys.len() > PAYLOADS_MAX * KEYS_PER_PAYLOAD {
        return vec![format!("{node:016x} {EVERYTHING}")];
    }
    keys.chunks(KEYS_PER_PAYLOAD)
        .map(|keys| format!("{node:016x} {}", data_encoding::HEXLOWER.encode(&keys.concat())))
        .collect()
}

/// What a payload means to `node`; `None` when it is the node's own. Whatever cannot be read may mean
/// anything, so it means everything.
fn parse(node: u64, payload: &str) -> Option<Invalidation> {
    let Some((sender, keys)) = payload.split_once(' ') else {
        return Some(Invalidation::Everything);
    };
    if u64::from_str_radix(sender, 16) == Ok(node) {
        return None;
    }
    let keys = data_encoding::HEXLOWER.decode(keys.as_bytes()).unwrap_or_default();
    let (keys, rest) = keys.as_chunks::<KEY_BYTES>();
    if keys.is_empty() || !rest.is_empty() {
        return Some(Invalidation::Everything);
    }
    Some(Invalidation::Rows(keys.iter().map(key_from_bytes).collect()))
}

fn key_to_bytes(key: &RowKey) -> [u8; KEY_BYTES] {
    let mut bytes = [0; KEY_BYTES];
    let (place, name) = bytes.split_at_mut(6);
    let (namespace, kind) = place.split_at_mut(4);
    namespace.copy_from_slice(&key.namespace.0.to_be_bytes());
    kind.copy_from_slice(&key.kind.0.to_be_bytes());
    name.copy_from_slice(key.name.as_bytes());
    bytes
}

fn key_from_bytes(bytes: &[u8; KEY_BYTES]) -> RowKey {
    let [n0, n1, n2, n3, k0, k1, name @ ..] = *bytes;
    RowKey {
        namespace: NamespaceId(u32::from_be_bytes([n0, n1, n2, n3])),
        kind: Kind(u16::from_be_bytes([k0, k1])),
        name: Tag::from_bytes(name),
    }
}

/// Begins to listen; returns what keeps listening for as long as it is polled.
pub(super) async fn start(
    config: Config,
    tls: MakeRustlsConnect,
    node: u64,
    sender: broadcast::Sender<Invalidation>,
) -> Result<impl Future<Output = ()> + Send + 'static, StorageError> {
    let first = Session::open(&config, &tls).await?;
    Ok(async move {
        // Sending fails when nobody caches anything.
        let tell = |what: Invalidation| drop(sender.send(what));
        let mut session = Some(first);
        loop {
            if let Some(session) = session.take() {
                session.serve(node, &tell).await;
                tracing::warn!("the connection that hears of other nodes' changes was lost");
            }
            tell(Invalidation::Everything);
            tokio::time::sleep(RECONNECT_PAUSE).await;
            match Session::open(&config, &tls).await {
                Ok(opened) => {
                    tracing::info!("other nodes' changes are heard of again");
                    session = Some(opened);
                    // What changed before the channel was open has not been heard of.
                    tell(Invalidation::Everything);
                }
                Err(error) => {
                    tracing::debug!(%error, "still not hearing of other nodes' changes");
                }
            }
        }
    })
}

struct Session {
    client: Client,
    heard: mpsc::UnboundedReceiver<Notification>,
    /// Owns the task that drives the connection, and ends it.
    _driver: JoinSet<()>,
}

impl Session {
    async fn open(config: &Config, tls: &MakeRustlsConnect) -> Result<Self, StorageError> {
        tokio::time::timeout(CONNECT_TIME_MAX, async {
            let (client, mut connection) = config.connect(tls.clone()).await?;
            let (hear, heard) = mpsc::unbounded_channel();
            let mut driver = JoinSet::new();
            driver.spawn(async move {
                // Ends, and with it the channel, when the connection does.
                while let Some(Ok(message)) =
                    std::future::poll_fn(|context| connection.poll_message(context)).await
                {
                    if let AsyncMessage::Notification(notification) = message {
                        let _ = hear.send(notification);
                    }
                }
            });
            client.batch_execute(&format!("LISTEN {CHANNEL}")).await?;
            Ok(Self { client, heard, _driver: driver })
        })
        .await
        .map_err(|elapsed| StorageError::Unavailable(Box::new(elapsed)))?
        .map_err(failed)
    }

    /// Until the connection is lost.
    async fn serve(mut self, node: u64, tell: &(impl Fn(Invalidation) + Sync)) {
        loop {
            match tokio::time::timeout(HEARTBEAT, self.heard.recv()).await {
                Ok(Some(notification)) => {
                    if let Some(invalidation) = parse(node, notification.payload()) {
                        tell(invalidation);
                    }
                }
                Ok(None) => return,
                Err(_silence) => {
                    let beat = self.client.simple_query("");
                    if !matches!(tokio::time::timeout(HEARTBEAT_TIME_MAX, beat).await, Ok(Ok(_))) {
                        return;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u32) -> RowKey {
        let mut name = [0xab; 16];
        name[..4].copy_from_slice(&number.to_be_bytes());
        RowKey { namespace: NamespaceId(number), kind: Kind(0xfffe), name: Tag::from_bytes(name) }
    }

    fn delete(number: u32) -> Change {
        Change::Delete { key: key(number), rev: 1 }
    }

    #[test]
    fn keys_arrive_as_they_were_sent_in_payloads_that_fit() {
        let batch: Vec<Change> = (0..1000).map(delete).collect();
        let payloads = payloads(7, &batch);
        assert!(payloads.len() > 1);
        assert!(payloads.iter().all(|payload| payload.len() < 8000));
        let heard: Vec<RowKey> = payloads
            .iter()
            .flat_map(|payload| match parse(8, payload) {
                Some(Invalidation::Rows(rows)) => rows,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(heard, (0..1000).map(key).collect::<Vec<_>>());
        assert!(payloads.iter().all(|payload| parse(7, payload).is_none()), "our own");
        assert!(super::payloads(7, &[]).is_empty());
    }

    #[test]
    fn very_large_batches_and_senseless_payloads_mean_everything() {
        let batch: Vec<Change> = (0..100_000).map(delete).collect();
        let large = payloads(7, &batch);
        assert_eq!(large.len(), 1);
        for payload in [large[0].as_str(), "", "x", "7", "8 abc", "8 zz", "8 00", "- *"] {
            assert!(matches!(parse(9, payload), Some(Invalidation::Everything)), "{payload:?}");
        }
    }
}
