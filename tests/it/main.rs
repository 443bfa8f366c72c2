//! Tests without outside services.

mod admin;
mod attack;
mod auth;
mod binary;
mod command_line;
mod config;
mod connection;
mod process;
mod state_machine;
mod support;
mod tidy;
mod tiers;
#[cfg(feature = "tls")]
mod tls;
mod watch;
