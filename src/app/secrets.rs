//! Files with secrets: read before anything else starts, read again on SIGHUP.

use std::sync::Arc;

use crate::auth::Users;
use crate::config::Config;
use crate::tls::Tls;
use crate::upstream::Access;

/// What was read from them.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    pub(super) users: Option<Arc<Users>>,
    pub(super) tls: Option<Arc<Tls>>,
    /// What memcached servers are shown.
    pub(super) access: Arc<Access>,
}

impl Secrets {
    /// Reads them all.
    ///
    /// # Errors
    /// Names the first file that cannot be used, and where.
    pub(super) fn open(config: &Config) -> anyhow::Result<Secrets> {
        let users = config.auth.as_ref().map(Users::open).transpose()?;
        let tls = config.tls.as_ref().map(Tls::open).transpose()?;
        let access = config.upstream.as_ref().map(|upstream| &upstream.access);
        let access = access.map(Access::open).transpose()?;
        Ok(Secrets {
            access: Arc::new(access.unwrap_or_default()),
            users: users.map(Arc::new),
            tls: tls.map(Arc::new),
        })
    }

    /// What their owner should see.
    pub(super) fn notices(&self) -> impl Iterator<Item = String> {
        let users = self.users.as_ref().and_then(|users| users.notice());
        users.into_iter().chain(self.access.notice())
    }

    /// Reads them again. Of a file that cannot be used, what was read before stays.
    pub(super) fn reload(&self) {
        if self.users.is_none() && self.tls.is_none() && !self.access.is_any() {
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
        if self.access.is_any() {
            match self.access.reload() {
                Ok(()) => tracing::info!("SIGHUP: what memcached servers are shown is read again"),
                Err(error) => {
                    tracing::error!(%error, "SIGHUP: what memcached servers are shown stays");
                }
            }
        }
    }
}
