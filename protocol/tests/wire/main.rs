//! Bytes in, bytes out: what the crate makes of the wire, without a server.

mod limits;
mod replies;
mod requests;
mod session;
mod soup;
mod splits;
