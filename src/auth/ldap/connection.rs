//! A connection to a directory: LDAP version 3 (RFC 4511), one request at a time.
//!
//! The other end is not trusted further than to say who is who. What it sends is bounded in size and
//! number before it is kept, and referrals are not followed, which would lead to servers that nobody
//! allowed.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use super::ber::{self, Malformed, Reader, Writer};
use super::filter::{Filter, Names};
use super::server::{Scheme, Server};
use crate::types::secret::SecretString;

/// Longest message that is taken, in bytes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Most bytes that all answers to one search may have.
const SEARCH_BYTES_MAX: usize = 8 << 20;
/// What a message counts for at least, so that there are not too many small ones either.
const MESSAGE_BYTES_MIN: usize = 1 << 10;

const BIND_REQUEST: u8 = 0x60;
const BIND_RESPONSE: u8 = 0x61;
const UNBIND_REQUEST: u8 = 0x42;
const SEARCH_REQUEST: u8 = 0x63;
const SEARCH_ENTRY: u8 = 0x64;
const SEARCH_DONE: u8 = 0x65;
const SEARCH_REFERENCE: u8 = 0x73;
const EXTENDED_REQUEST: u8 = 0x77;
const EXTENDED_RESPONSE: u8 = 0x78;
const INTERMEDIATE_RESPONSE: u8 = 0x79;
const CONTROLS: u8 = 0xa0;

const START_TLS: &[u8] = b"1.3.6.1.4.1.1466.20037";
const PAGED_RESULTS: &[u8] = b"1.2.840.113556.1.4.319";

/// What a directory answers when all is well (RFC 4511 appendix A).
pub(super) const SUCCESS: u32 = 0;
pub(super) const SIZE_LIMIT_EXCEEDED: u32 = 4;
pub(super) const NO_SUCH_OBJECT: u32 = 32;

/// Why a directory did not do its part.
#[derive(Debug, thiserror::Error)]
pub(super) enum DirectoryError {
    /// It answered more than is taken.
    #[error("answers more than is taken")]
    Excessive,
    /// It sent what is not LDAP, or not an answer.
    #[error("does not answer in LDAP")]
    Malformed(#[from] Malformed),
    /// It refuses what an administrator set up.
    #[error("refuses {what} with result {code}")]
    Refused {
        /// What it was asked for.
        what: &'static str,
        /// What it answered.
        code: u32,
    },
    /// The time is over.
    #[error("does not answer in time")]
    TimedOut,
    /// The connection failed, or TLS did.
    #[error("cannot be reached or trusted")]
    Unreachable(#[from] io::Error),
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// An open connection.
pub(super) struct Connection {
    stream: Box<dyn Duplex>,
    last_id: u32,
}

/// What is searched for.
pub(super) struct Search<'a> {
    pub base: &'a str,
    /// The entry at `base` alone, and nothing below it.
    pub base_only: bool,
    /// How aliases are followed: 0 never, 1 in searching, 2 in finding the base, 3 always.
    pub aliases: u32,
    /// Most entries that are taken.
    pub entries_max: usize,
    /// Most that the directory is asked for; zero where it has a limit of its own, beyond which some
    /// answer nothing at all.
    pub size_limit: u32,
    pub seconds_max: u32,
    /// Entries of one page; zero for all at once.
    pub page: u32,
    pub filter: &'a Filter,
    /// What is put into the places of the filter.
    pub names: Names<'a>,
    pub attributes: &'a [&'a str],
}

/// An entry, with the attributes that were asked for.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub dn: String,
    attributes: Vec<(String, Vec<Vec<u8>>)>,
}

impl Entry {
    /// The values of an attribute.
    pub(super) fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let is_named = move |(known, _): &&(String, Vec<Vec<u8>>)| known.eq_ignore_ascii_case(name);
        self.attributes
            .iter()
            .filter(is_named)
            .flat_map(|(_, values)| values.iter().map(Vec::as_slice))
    }

    /// Those of them that are text.
    pub(super) fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        self.values(name).filter_map(|value| std::str::from_utf8(value).ok())
    }

    fn parse(content: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(content);
        let dn = text(reader.expect(ber::OCTET_STRING)?)?;
        let mut list = Reader::new(reader.expect(ber::SEQUENCE)?);
        let mut attributes = Vec::new();
        while !list.is_empty() {
            let mut attribute = Reader::new(list.expect(ber::SEQUENCE)?);
            let name = text(attribute.expect(ber::OCTET_STRING)?)?;
            let mut set = Reader::new(attribute.expect(ber::SET)?);
            let mut values = Vec::new();
            while !set.is_empty() {
                values.push(set.expect(ber::OCTET_STRING)?.to_vec());
            }
            attributes.push((name, values));
        }
        Ok(Self { dn, attributes })
    }
}

/// What a search found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub entries: Vec<Entry>,
    /// The result that it ended with.
    pub code: u32,
}

struct Message {
    tag: u8,
    content: Vec<u8>,
    controls: Vec<u8>,
    bytes: usize,
}

impl Message {
    fn result(&self, expected: u8) -> Result<u32, Malformed> {
        if self.tag != expected {
            return Err(Malformed);
        }
        Reader::new(&self.content).number(ber::ENUMERATED)
    }
}

impl Connection {
    /// Connects, and makes the connection private where `tls` is given.
    ///
    /// # Errors
    /// When the server cannot be reached, or is not who it should be.
    pub(super) async fn open(
        server: &Server,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<Self, DirectoryError> {
        let mut tcp = TcpStream::connect((server.host.as_str(), server.port)).await?;
        tcp.set_nodelay(true)?;
        let Some(tls) = tls else {
            // A name is local only when it leads here, whatever says where it leads.
            if !tcp.peer_addr()?.ip().to_canonical().is_loopback() {
                return Err(io::Error::other("the address is not of this machine").into());
            }
            return Ok(Self { stream: Box::new(tcp), last_id: 0 });
        };
        let (tcp, last_id) = match server.scheme {
            Scheme::Ldaps => (tcp, 0),
            Scheme::Ldap => {
                start_tls(&mut tcp).await?;
                (tcp, 1)
            }
        };
        let name = ServerName::try_from(server.host.clone()).map_err(io::Error::other)?;
        let stream = TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await?;
        Ok(Self { stream: Box::new(stream), last_id })
    }

    /// Proves to be `dn`, with a password that must not be empty; or to be nobody, with an empty name
    /// and an empty password (RFC 4513 §5.1). The answer is the directory's result.
    ///
    /// # Errors
    /// When there is no such answer.
    pub(super) async fn bind(
        &mut self,
        dn: &str,
        password: &SecretString,
    ) -> Result<u32, DirectoryError> {
        let mut request = Writer::default();
        request.nested(BIND_REQUEST, |bind| {
            bind.number(ber::INTEGER, 3);
            bind.octets(dn.as_bytes());
            bind.element(0x80, password.expose().as_bytes());
        });
        let id = self.send(request, None).await?;
        Ok(receive(&mut self.stream, id).await?.result(BIND_RESPONSE)?)
    }

    /// Searches. Of paged results all pages are asked for.
    ///
    /// # Errors
    /// `Excessive` when there are more entries than were asked for, or too many bytes; otherwise when
    /// there is no answer.
    pub(super) async fn search(&mut self, search: &Search<'_>) -> Result<Found, DirectoryError> {
        let mut found = Found::default();
        let mut bytes = 0;
        let mut cookie = Vec::new();
        loop {
            let paging = (search.page > 0).then_some((search.page, cookie.as_slice()));
            let id = self.send(search_request(search), paging).await?;
            let done = loop {
                let message = receive(&mut self.stream, id).await?;
                bytes += message.bytes.max(MESSAGE_BYTES_MIN);
                if bytes > SEARCH_BYTES_MAX {
                    return Err(DirectoryError::Excessive);
                }
                match message.tag {
                    SEARCH_ENTRY => {
                        if found.entries.len() >= search.entries_max {
                            return Err(DirectoryError::Excessive);
                        }
                        found.entries.push(Entry::parse(&message.content)?);
                    }
                    // Where else one could search. Not asked.
                    SEARCH_REFERENCE | INTERMEDIATE_RESPONSE => {}
                    _ => break message,
                }
            };
            found.code = done.result(SEARCH_DONE)?;
            cookie = next_page(&done.controls)?;
            if found.code != SUCCESS || search.page == 0 || cookie.is_empty() {
                return Ok(found);
            }
        }
    }

    /// Says good-bye. Whether that is heard does not matter.
    pub(super) async fn close(mut self) {
        let mut request = Writer::default();
        request.element(UNBIND_REQUEST, &[]);
        if self.send(request, None).await.is_ok() {
            let _ = self.stream.shutdown().await;
        }
    }

    async fn send(
        &mut self,
        request: Writer,
        paging: Option<(u32, &[u8])>,
    ) -> Result<u32, DirectoryError> {
        self.last_id += 1;
        self.stream.write_all(&message(self.last_id, request, paging)).await?;
        self.stream.flush().await?;
        Ok(self.last_id)
    }
}

/// Asks for TLS (RFC 4511 §4.14). Nothing beyond the answer is read in clear: what somebody on the way
/// put behind it would spoil the handshake, and not pass for what came over TLS.
async fn start_tls(stream: &mut TcpStream) -> Result<(), DirectoryError> {
    let mut request = Writer::default();
    request.nested(EXTENDED_REQUEST, |request| request.element(0x80, START_TLS));
    stream.write_all(&message(1, request, None)).await?;
    match receive(stream, 1).await?.result(EXTENDED_RESPONSE)? {
        SUCCESS => Ok(()),
        code => Err(DirectoryError::Refused { what: "StartTLS", code }),
    }
}

/// A message with this request in it, and what it says about pages: their size, and where the next
/// one begins.
fn message(id: u32, request: Writer, paging: Option<(u32, &[u8])>) -> Zeroizing<Vec<u8>> {
    let mut writer = Writer::default();
    writer.nested(ber::SEQUENCE, |message| {
        message.number(ber::INTEGER, id);
        message.written(&request.finish());
        let Some((size, cookie)) = paging else { return };
        let mut value = Writer::default();
        value.nested(ber::SEQUENCE, |value| {
            value.number(ber::INTEGER, size);
            value.octets(cookie);
        });
        message.nested(CONTROLS, |controls| {
            controls.nested(ber::SEQUENCE, |control| {
                control.octets(PAGED_RESULTS);
                // Without it, what fits into one answer would pass for everything.
                control.boolean(true);
                control.octets(&value.finish());
            });
        });
    });
    writer.finish()
}

fn search_request(search: &Search<'_>) -> Writer {
    const BASE_OBJECT: u32 = 0;
    const WHOLE_SUBTREE: u32 = 2;
    let mut writer = Writer::default();
    writer.nested(SEARCH_REQUEST, |request| {
        request.octets(search.base.as_bytes());
        let scope = if search.base_only { BASE_OBJECT } else { WHOLE_SUBTREE };
        request.number(ber::ENUMERATED, scope);
        request.number(ber::ENUMERATED, search.aliases);
        request.number(ber::INTEGER, search.size_limit);
        request.number(ber::INTEGER, search.seconds_max);
        request.boolean(false);
        search.filter.write(request, search.names);
        request.nested(ber::SEQUENCE, |names| {
            search.attributes.iter().for_each(|name| names.octets(name.as_bytes()));
        });
    });
    writer
}

/// Where the next page begins (RFC 2696); empty when there is none.
fn next_page(controls: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut reader = Reader::new(controls);
    while !reader.is_empty() {
        let mut control = Reader::new(reader.expect(ber::SEQUENCE)?);
        let kind = control.expect(ber::OCTET_STRING)?;
        control.optional(ber::BOOLEAN)?;
        let value = control.optional(ber::OCTET_STRING)?.unwrap_or_default();
        if kind == PAGED_RESULTS {
            let mut value = Reader::new(value);
            let mut page = Reader::new(value.expect(ber::SEQUENCE)?);
            page.number(ber::INTEGER)?;
            return Ok(page.expect(ber::OCTET_STRING)?.to_vec());
        }
    }
    Ok(Vec::new())
}

/// Reads the next message, which must be an answer to request `id`. Not a byte more is taken.
async fn receive(
    stream: &mut (impl AsyncRead + Unpin),
    id: u32,
) -> Result<Message, DirectoryError> {
    let mut head = [0u8; 2];
    stream.read_exact(&mut head).await?;
    let [tag, first] = head;
    if tag != ber::SEQUENCE {
        return Err(Malformed.into());
    }
    let mut more = vec![0u8; ber::length_bytes(first)?];
    stream.read_exact(&mut more).await?;
    let length = ber::length(first, &more);
    if length > MESSAGE_BYTES_MAX {
        return Err(DirectoryError::Excessive);
    }
    let mut body = vec![0u8; length];
    stream.read_exact(&mut body).await?;
    let mut reader = Reader::new(&body);
    // Zero is the directory's notice that it hangs up (RFC 4511 §4.4.1).
    if reader.number(ber::INTEGER)? != id {
        return Err(Malformed.into());
    }
    let (tag, content) = reader.element()?;
    let controls = reader.optional(CONTROLS)?.unwrap_or_default();
    Ok(Message { tag, content: content.to_vec(), controls: controls.to_vec(), bytes: length })
}

/// Reads answers to request 2 until one is refused, for the fuzz targets; how many there were.
#[cfg(feature = "failpoints")]
pub(super) fn answers(mut bytes: &[u8]) -> usize {
    use futures_util::FutureExt;
    let mut count = 0;
    // Reading from memory never waits.
    while let Some(Ok(message)) = receive(&mut bytes, 2).now_or_never() {
        let read = match message.tag {
            SEARCH_ENTRY => Entry::parse(&message.content).is_ok(),
            tag => message.result(tag).is_ok() && next_page(&message.controls).is_ok(),
        };
        if !read {
            break;
        }
        count += 1;
    }
    count
}

fn text(bytes: &[u8]) -> Result<String, Malformed> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Malformed)
}
