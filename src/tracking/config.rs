//! The `[tracking]` part of the configuration.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;

/// Name of the tracking folder inside the dry folder.
pub const FOLDER_NAME: &str = "tracking";

/// Where the mirror of the dry tier is kept, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrackingConfig {
    /// Which engine keeps it. Default `sled`; it does nothing without a dry tier.
    pub backend: Backend,
    /// Folder of its own. Default: `tracking` inside the dry folder.
    pub path: Option<PathBuf>,
    /// Whether each dried key has a row. Default true; false keeps the catalogue and totals alone.
    pub rows: bool,
}

/// The engines that are built in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    /// Embedded, in a folder.
    #[default]
    Sled,
    /// No tracking.
    Off,
}

/// Why a backend was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// A backend that this release does not have.
    #[error("tracking in {0} is not built yet, expected sled or off")]
    NotBuilt(String),
    /// No such backend.
    #[error("{0:?} is no tracking backend, expected sled or off")]
    Unknown(String),
}

/// Backends of the design that are still to come, by the name or URL scheme that asks for them.
const NOT_BUILT: [&str; 4] = ["sqlite", "redis", "postgres", "mongodb"];

impl Default for TrackingConfig {
    fn default() -> TrackingConfig {
        TrackingConfig {
            backend: Backend::default(),
            path: None,
            rows: true,
        }
    }
}

impl TrackingConfig {
    /// The folder in which an embedded backend keeps its files.
    pub fn folder(&self, dry_folder: &Path) -> PathBuf {
        match &self.path {
            Some(path) => path.clone(),
            None => dry_folder.join(FOLDER_NAME),
        }
    }
}

impl FromStr for Backend {
    type Err = BackendError;

    fn from_str(text: &str) -> Result<Backend, BackendError> {
        // Of a URL only the scheme is repeated: the rest may hold a password.
        let name = text.split(':').next().unwrap_or_default();
        match name {
            "sled" if name == text => Ok(Backend::Sled),
            "off" if name == text => Ok(Backend::Off),
            _ if NOT_BUILT.contains(&name) => Err(BackendError::NotBuilt(name.to_owned())),
            _ => Err(BackendError::Unknown(name.to_owned())),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Backend::Sled => "sled",
            Backend::Off => "off",
        })
    }
}

impl<'de> Deserialize<'de> for Backend {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Backend, D::Error> {
        String::deserialize(from)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_section_is_the_default() {
        let config: TrackingConfig = toml::from_str("").unwrap();
        assert_eq!(config, TrackingConfig::default());
        assert_eq!(config.folder(Path::new("d")), Path::new("d/tracking"));
    }

    #[test]
    fn every_option_reads() {
        let text = "backend = \"off\"\npath = \"/t\"\nrows = false";
        let config: TrackingConfig = toml::from_str(text).unwrap();
        let path = Some(PathBuf::from("/t"));
        assert_eq!(
            config,
            TrackingConfig {
                backend: Backend::Off,
                path,
                rows: false
            }
        );
    }

    // What is not built is refused by its name, without repeating a password.
    #[test]
    fn other_backends_are_refused_by_name() {
        let error = "redis://user:secret@h"
            .parse::<Backend>()
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "tracking in redis is not built yet, expected sled or off"
        );
        let error = toml::from_str::<TrackingConfig>("backend = \"sledge\"").unwrap_err();
        assert!(
            error
                .to_string()
                .contains("\"sledge\" is no tracking backend"),
            "{error}"
        );
        assert!(toml::from_str::<TrackingConfig>("engine = \"sled\"").is_err());
    }
}
