//! Values of flags that are no plain numbers or names.

use std::path::PathBuf;

use crate::config::layer::DryBackend;
use crate::dry::Checksums;
use crate::tier::config::{Admission, Policy};
use crate::units::{ByteSize, UnitError};

/// What `--dry` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DryPlace {
    Folder(PathBuf),
    S3 { bucket: String, prefix: String },
    MongoDb(String),
}

impl DryPlace {
    pub(super) fn parse(place: &str) -> Result<DryPlace, String> {
        match place.split_once("://") {
            None if place.is_empty() => Err("--dry needs a folder or a URL".to_owned()),
            None => Ok(DryPlace::Folder(PathBuf::from(place))),
            Some(("s3", rest)) => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                Ok(DryPlace::S3 {
                    bucket: bucket.to_owned(),
                    prefix: prefix.to_owned(),
                })
            }
            Some(("mongodb" | "mongodb+srv", _)) => Ok(DryPlace::MongoDb(place.to_owned())),
            Some((scheme, _)) => Err(format!(
                "--dry: {scheme} is no place for a dry tier, name a folder, s3://BUCKET/PREFIX or \
                 mongodb://HOST/DATABASE"
            )),
        }
    }

    pub(super) fn backend(&self) -> DryBackend {
        match self {
            DryPlace::Folder(_) => DryBackend::Local,
            DryPlace::S3 { .. } => DryBackend::S3,
            DryPlace::MongoDb(_) => DryBackend::MongoDb,
        }
    }
}

/// memcached takes MiB where no unit is given.
pub(super) fn parse_megabytes(text: &str) -> Result<ByteSize, UnitError> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        format!("{text}m").parse()
    } else {
        text.parse()
    }
}

pub(super) fn parse_udp_port(text: &str) -> Result<u16, String> {
    match text.trim() {
        "0" => Ok(0),
        _ => Err("UDP is not served, only -U 0 is accepted".to_owned()),
    }
}

pub(super) fn parse_durability(text: &str) -> Result<crate::dry::Durability, String> {
    match text {
        "process" => Ok(crate::dry::Durability::Process),
        "power" => Ok(crate::dry::Durability::Power),
        _ => Err("expected process or power".to_owned()),
    }
}

pub(super) fn parse_checksums(text: &str) -> Result<Checksums, String> {
    match text {
        "when_supported" => Ok(Checksums::WhenSupported),
        "when_required" => Ok(Checksums::WhenRequired),
        _ => Err("expected when_supported or when_required".to_owned()),
    }
}

pub(super) fn parse_admission(text: &str) -> Result<Admission, String> {
    match text {
        "all" => Ok(Admission::All),
        "seen-twice" => Ok(Admission::SeenTwice),
        "tinylfu" => Ok(Admission::TinyLfu),
        _ => Err("expected all, seen-twice or tinylfu".to_owned()),
    }
}

pub(super) fn parse_policy(text: &str) -> Result<Policy, String> {
    match text {
        "fifo" => Ok(Policy::Fifo),
        "frequency" => Ok(Policy::Frequency),
        "balanced" => Ok(Policy::Balanced),
        "density" => Ok(Policy::Density),
        _ => Err("expected fifo, frequency, balanced or density".to_owned()),
    }
}

pub(super) fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("expected on or off".to_owned()),
    }
}
