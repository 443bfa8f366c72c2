//! Looks at the mirror offline: `tiercache keys DIR` and `tiercache show DIR [KEY]`.

use std::io;

use super::TrackError;

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The mirror cannot be read.
    #[error(transparent)]
    Tracking(#[from] TrackError),
    /// What was found cannot be written out.
    #[error("write the listing")]
    Output(#[from] io::Error),
}
