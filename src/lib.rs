//! Leasehold: a secrets broker.
//!
//! # The map
//!
//! | Module | What it is |
//! |---|---|
//! | [`types`] | secrets that wipe themselves, ids, parsed paths, clocks and lifetimes |
//! | [`crypto`] | the only calls to ciphers; no I/O |
//! | [`storage`] | blind tags and sealed bytes, in SQLite or PostgreSQL |
//! | [`core`] | everything that decides; knows neither HTTP nor SQL |
//! | [`engines`], [`auth`] | what can be mounted |
//! | [`audit`] | where entries go, and how a log is checked |
//! | [`scheduler`] | work on a clock: the sweep, rotations, tidying |
//! | [`api`] | from HTTP to a core request, and back |
//! | [`server`] | configuration, TLS, connections; wires the parts together |
//! | [`cli`], [`client`] | the command line, and how it talks to a server |
//!
//! # Three walks
//!
//! ## Unseal
//!
//! A share arrives at one of the [`core::seal::endpoints`], which answer without a caller.
//! [`Core::unseal`] keeps it in memory until enough are there, and combines them
//! ([`crypto::shamir`]) into the key that opens a [`core::seal::SealSlot`]: the
//! [`RootKey`](crypto::root::RootKey). It opens the stored [`Keyring`](crypto::keyring::Keyring), and
//! [`Unsealed::open`] makes [`Records`], mounts, tokens and leases of that. The store is held against
//! what the audit has witnessed; when they disagree, a [`Hold`](core::hold::Hold) keeps the sweep
//! from revoking. Last, the [`Phase`](core::context::Phase) changes, and requests are served.
//!
//! ## Issue a database credential
//!
//! [`api`] parses `GET /v1/database/creds/reports` into a [`Request`](core::request::Request).
//! [`Core::handle`] opens an [`AuditTicket`](core::audit::ticket::AuditTicket), judges the
//! certificate, finds the mount and the route, establishes the
//! [`Caller`](core::caller::Caller) by its certificate alone, and asks its
//! [`Acl`](core::acl::Acl) for a [`Permit`](core::acl::permit::Permit). The
//! [`DatabaseEngine`](engines::database::DatabaseEngine) answers with a
//! [`LeasePlan`](core::engine::LeasePlan) in which the user's name is chosen. [`Leases::issue`]
//! commits the intent, lets the engine create the user, and commits the lease. Only the receipt of
//! the ticket makes an [`Answered`](core::request::Answered), which [`api`] renders.
//!
//! ## Revoke on expiry
//!
//! The lease's row is due when it ends. [`Leases::sweep`] claims due rows, groups them by target and
//! has each killed by its engine: [`Engine::revoke`](core::engine::Engine::revoke) bars the log-in,
//! ends live sessions and drops the user. Then the row goes. When the target does not do it, the row
//! stays with the error, labelled overdue and due again after a pause. An intent that a crash left
//! behind is a due row like any other.
//!
//! [`Core::unseal`]: core::context::Core::unseal
//! [`Core::handle`]: core::context::Core::handle
//! [`Unsealed::open`]: core::context::Unsealed::open
//! [`Records`]: core::records::Records
//! [`Leases::issue`]: core::lease::Leases::issue
//! [`Leases::sweep`]: core::lease::Leases::sweep

pub mod api;
pub mod audit;
pub mod auth;
pub mod cli;
pub mod client;
pub mod core;
pub mod crypto;
pub mod engines;
pub mod scheduler;
pub mod server;
pub mod storage;
pub mod types;

#[cfg(test)]
#[path = "../tests/it/support/pki.rs"]
#[allow(dead_code, reason = "shared with the integration tests, which use other parts of it")]
pub(crate) mod pki;

#[cfg(test)]
#[path = "../tests/it/support/signer.rs"]
#[allow(dead_code, reason = "shared with the integration tests, which use other parts of it")]
pub(crate) mod signer;
