//! Who a client is: users with their passwords, and SASL with its one mechanism, PLAIN.

use tiercache_protocol::binary::Status;
use tiercache_protocol::encode;
use tiercache_protocol::request::{Sasl, SaslStep};

use super::Executor;
use crate::auth::Users;

/// The token of PLAIN is `identity NUL user NUL password`, and the identity means nothing here.
const MECHANISM: &[u8] = b"PLAIN";

/// What memcached says to the right password.
const WELCOME: &[u8] = b"Authenticated";

/// What a step of SASL has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// Nothing yet.
    Nothing,
    /// A user with the right password.
    Known,
    /// Something else.
    Unknown,
}

impl Executor {
    /// Whether there is such a user with this password; counts the question.
    pub fn knows(&self, users: &Users, user: &[u8], password: &[u8]) -> bool {
        let known = users.know(user, password);
        self.local.counters.auth_cmds.bump();
        if !known {
            self.local.counters.auth_errors.bump();
        }
        known
    }

    /// Answers a step of SASL. `begun` is whether the client has named the mechanism and owes the
    /// token.
    pub fn sasl(&self, sasl: &Sasl<'_>, begun: &mut bool, out: &mut Vec<u8>) -> Shown {
        let Some(users) = self.shared.users.as_deref() else {
            // Without authentication the commands of SASL are unknown, as in memcached.
            encode::binary_status(out, sasl.form, Status::UNKNOWN);
            return Shown::Nothing;
        };
        let begins = sasl.step == SaslStep::Auth;
        if sasl.step == SaslStep::List {
            encode::binary_success(out, sasl.form, 0, MECHANISM);
            return Shown::Nothing;
        }
        if begins && sasl.mechanism == MECHANISM && sasl.token == Some(b"") {
            *begun = true;
            encode::binary_status(out, sasl.form, Status::AUTH_CONTINUE);
            return Shown::Nothing;
        }
        let owed = std::mem::take(begun);
        let token = sasl
            .token
            .filter(|_| sasl.mechanism == MECHANISM && (begins || owed));
        let (user, password) = token.and_then(plain).unwrap_or_default();
        if self.knows(users, user, password) {
            encode::binary_success(out, sasl.form, 0, WELCOME);
            Shown::Known
        } else {
            encode::binary_status(out, sasl.form, Status::AUTH_ERROR);
            Shown::Unknown
        }
    }
}

/// User and password of a token.
fn plain(token: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = token.splitn(3, |byte| *byte == 0).skip(1);
    Some((parts.next()?, parts.next()?))
}
