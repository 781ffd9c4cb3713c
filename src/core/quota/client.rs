//! Who counts as one client.

use std::net::{IpAddr, Ipv6Addr};

use super::super::caller::{Caller, Via};
use super::super::error::CoreError;
use super::super::peer::ConnectionInfo;
use super::super::token::TokenStore;

/// What IPv6 hands out to one customer at least: whoever has one address has 2^64 of them.
const IPV6_CUSTOMER: u128 = !0 << 64;

/// The identity, whatever it comes with. Without one, the token, or that which it was made from: making
/// more of them gains nothing. Without a token, the certificate; without that, the address.
pub(super) async fn of(
    tokens: &TokenStore,
    caller: Option<&Caller>,
    connection: &ConnectionInfo,
) -> Result<String, CoreError> {
    if let Some(caller) = caller {
        if let Some(id) = &caller.facts.entity_id {
            return Ok(format!("entity:{id}"));
        }
        if let Via::Token(token) = &caller.via {
            return Ok(format!("token:{}", tokens.origin(token).await?));
        }
    }
    Ok(match &connection.peer {
        Some(peer) => match peer.spiffe_id() {
            Some(id) => format!("spiffe:{}", id.as_str()),
            None => format!("certificate:{}", peer.x5t_s256()),
        },
        None => address(connection),
    })
}

/// The address, or for IPv6 the network that one customer has.
pub(in crate::core) fn address(connection: &ConnectionInfo) -> String {
    network(connection.remote.ip()).to_string()
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & IPV6_CUSTOMER)),
        plain @ IpAddr::V4(_) => plain,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn one_customer_is_one_client() {
        let network = |text: &str| super::network(text.parse().unwrap()).to_string();
        assert_eq!(network("192.0.2.7"), "192.0.2.7");
        assert_eq!(network("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
    }
}
