//! Files with secrets: read before anything else starts, read again on SIGHUP.

use std::sync::Arc;

use crate::auth::Users;
use crate::config::Config;
use crate::tls::Tls;

/// What was read from them.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    pub(super) users: Option<Arc<Users>>,
    pub(super) tls: Option<Arc<Tls>>,
}

impl Secrets {
    /// Reads them all.
    ///
    /// # Errors
    /// Names the first file that cannot be used, and where.
    pub(super) fn open(config: &Config) -> anyhow::Result<Secrets> {
        let users = config.auth.as_ref().map(Users::open).transpose()?;
        let tls = config.tls.as_ref().map(Tls::open).transpose()?;
        Ok(Secrets {
            users: users.map(Arc::new),
            tls: tls.map(Arc::new),
        })
    }

    /// What their owner should see.
    pub(super) fn notice(&self) -> Option<String> {
        self.users.as_ref().and_then(|users| users.notice())
    }

    /// Reads them again. Of a file that cannot be used, what was read before stays.
    pub(super) fn reload(&self) {
        if self.users.is_none() && self.tls.is_none() {
            tracing::info!("SIGHUP: nothing to reload");
        }
        if let Some(users) = &self.users {
            match users.reload() {
                Ok(()) => tracing::info!("SIGHUP: users read again"),
                Err(error) => tracing::error!(%error, "SIGHUP: the users stay as they were"),
            }
        }
        if let Some(tls) = &self.tls {
            match tls.reload() {
                Ok(()) => tracing::info!("SIGHUP: certificates read again"),
                Err(error) => tracing::error!(%error, "SIGHUP: the certificates stay as they were"),
            }
        }
    }
}
