//! What the fuzz targets share with the tests: a connection played against the decoders.

#[path = "../../tests/wire/session.rs"]
pub mod session;
