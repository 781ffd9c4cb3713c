//! What directories send and administrators write, for the fuzz targets. No build without the feature
//! `failpoints` has it.

use super::ber::Writer;
use super::connection;
use super::filter::{Filter, Names};
use super::name;

/// Reads the answers to request 2 as a search does, up to the first that is refused; how many there
/// were.
pub fn answers(bytes: &[u8]) -> usize {
    connection::answers(bytes)
}

/// A filter as it is sent, with these names in its places; `None` for what is no filter.
pub fn filter(text: &str, username: &str, user_dn: &str) -> Option<Vec<u8>> {
    let filter = Filter::parse(text, "uid").ok()?;
    let mut writer = Writer::default();
    filter.write(&mut writer, Names { username, user_dn });
    Some(writer.finish().to_vec())
}

/// The common name at the head of a distinguished name.
pub fn common_name(dn: &str) -> Option<String> {
    name::common_name(dn)
}

/// A value as it stands in a distinguished name.
pub fn dn_value(value: &str) -> String {
    name::dn_value(value)
}
