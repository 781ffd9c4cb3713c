//! The whole broker through HTTPS, as its clients see it: one server process, shared by these tests.

mod abuse;
mod approles;
mod audit;
mod bad_input;
mod certificates;
mod cluster;
mod identities;
mod issuers;
mod leases;
mod manners;
mod owners;
mod passwords;
mod policies;
mod quotas;
mod reload;
mod second_factor;
mod secrets;
mod server;
mod specs;
mod telemetry;
mod tokens;
mod tools;
mod userpass;
mod world;
mod wrapping;
