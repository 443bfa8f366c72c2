//! What the fuzz targets share: connections played against the decoders.

#[path = "../../tests/wire/session.rs"]
pub mod session;

pub mod arriving;
pub mod lockstep;
