//! Reading a configuration file, with errors that name the line.

use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use crate::config::{Config, ConfigError, Layer, Machine};

/// Why a configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be read.
    #[error("read configuration {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        error: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of another kind. The message shows the line.
    #[error("{}: {error}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The parser's message.
        error: Box<toml::de::Error>,
    },
    /// A value that cannot be taken.
    #[error("{}:{line}: {error}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The line of the option.
        line: usize,
        /// What is wrong with it.
        error: ConfigError,
    },
    /// A value that cannot be taken and that does not stand in the file.
    #[error(transparent)]
    Flag(#[from] ConfigError),
}

/// Lays `flags` over the file at `path`, if there is one, and resolves the whole.
///
/// # Errors
/// The file cannot be read or parsed, or an option cannot be taken.
pub fn load(path: Option<&Path>, flags: Layer, machine: Machine) -> Result<Config, FileError> {
    let Some(path) = path else {
        return Ok(Config::resolve(flags, machine)?);
    };
    let text = std::fs::read_to_string(path).map_err(|error| FileError::Read {
        path: path.to_owned(),
        error,
    })?;
    let file: Layer = toml::from_str(&text).map_err(|error| FileError::Syntax {
        path: path.to_owned(),
        error: Box::new(error),
    })?;
    Config::resolve(flags.over(file), machine).map_err(|error| match line_of(&text, error.key) {
        Some(line) => FileError::Value {
            path: path.to_owned(),
            line,
            error,
        },
        None => FileError::Flag(error),
    })
}

/// The line on which `section.key` is set.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let (section, key) = key.split_once('.')?;
    let root = DeTable::parse(text).ok()?;
    let (_, table) = root
        .get_ref()
        .iter()
        .find(|(name, _)| name.get_ref() == section)?;
    let DeValue::Table(table) = table.get_ref() else {
        return None;
    };
    let (name, _) = table.iter().find(|(name, _)| name.get_ref() == key)?;
    Some(1 + text.get(..name.span().start)?.matches('\n').count())
}
