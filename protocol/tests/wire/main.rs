//! Bytes in, bytes out: what the crate makes of the wire, without a server.

mod answers;
mod binary;
mod classic;
mod limits;
mod meta;
mod plain;
mod replies;
mod session;
mod soup;
mod splits;
