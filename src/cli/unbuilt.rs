//! Flags that are known but whose effect is not built: each refuses to start and says why.

use clap::Args;

/// Flags of memcached and of the design that cannot be honoured yet. They do not appear in the
/// help, where test suites look for what a server can do.
#[derive(Debug, Clone, Default, Args)]
pub struct UnbuiltFlags {
    #[arg(short = 'e', long, hide = true)]
    memory_file: Option<String>,
    #[arg(short = 'N', long, hide = true)]
    napi_ids: Option<String>,
    #[arg(long, hide = true)]
    admin: Option<String>,
}

impl UnbuiltFlags {
    /// Succeeds if none of these flags was given.
    ///
    /// # Errors
    /// Says which flag was given and why it is refused.
    pub(super) fn refuse(&self) -> Result<(), String> {
        let later = "not built yet";
        let flags = [
            (
                self.memory_file.is_some(),
                "-e",
                "items are not kept in a mapped file; --dry DIR is what survives a restart",
            ),
            (
                self.napi_ids.is_some(),
                "-N",
                "connections are dealt to the workers in turn, not by NAPI id",
            ),
            (self.admin.is_some(), "--admin", later),
        ];
        match flags.into_iter().find(|(given, ..)| *given) {
            Some((_, flag, reason)) => Err(format!("{flag}: {reason}")),
            None => Ok(()),
        }
    }
}
