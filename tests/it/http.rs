//! The whole broker through HTTPS, as its clients see it: one server process, shared by these tests.

mod secrets;
mod world;
