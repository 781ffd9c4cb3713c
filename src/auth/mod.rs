//! Ways to prove who one is, and the tables of the server itself that deal with tokens and identities.

pub mod approle;
mod cadence;
pub mod cert;
pub mod identity;
mod jose;
pub mod jwt;
pub mod kubernetes;
pub mod ldap;
pub mod mfa;
mod role;
#[cfg(test)]
mod scratch;
pub mod token;
pub mod userpass;
