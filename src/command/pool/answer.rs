//! Answers to writes over a pool, from the outcome of what the pool was asked.

use tiercache_protocol::reply::{MetaReply, MetaStatus, Reply};
use tiercache_protocol::request::Form;

use super::relay::{self, Asked};
use super::{Place, failed};
use crate::upstream::{Failure, Outcome, Verdict};

/// How the client is answered.
pub(super) enum AnswerAs {
    /// By the outcome alone: classic text or a packet.
    Plain(Form<'static>),
    Meta(Asked),
}

impl AnswerAs {
    pub(super) fn new(form: &Form<'_>) -> AnswerAs {
        match form {
            Form::Classic { noreply } => AnswerAs::Plain(Form::Classic { noreply: *noreply }),
            Form::Binary(form) => AnswerAs::Plain(Form::Binary(*form)),
            Form::Meta(form) => AnswerAs::Meta(Asked::new(form)),
        }
    }

    pub(super) fn is_meta(&self) -> bool {
        matches!(self, AnswerAs::Meta(_))
    }

    /// The form of what is no meta answer, errors for instance.
    pub(super) fn form(&self) -> Form<'static> {
        match self {
            AnswerAs::Plain(form) => *form,
            AnswerAs::Meta(_) => Form::TEXT,
        }
    }

    /// Writes the answer to an outcome; `plain` writes that of another than a meta command for a
    /// status it can have, else answers false. Quiet meta commands hide the status `HD` alone.
    pub(super) fn write(
        &self,
        out: &mut Vec<u8>,
        outcome: &Outcome<'_>,
        plain: impl FnOnce(&mut Vec<u8>, &Form<'_>, &MetaReply<'_>) -> bool,
    ) -> Verdict {
        let form = self.form();
        match outcome {
            Outcome::Failed(failure) => failed(out, &form, *failure),
            Outcome::Reply(Reply::Error { kind, message }) => {
                relay::error_as(out, &form, *kind, message);
            }
            Outcome::Reply(Reply::Meta(reply)) => match self {
                AnswerAs::Meta(_)
                    if matches!(reply.status, MetaStatus::Miss | MetaStatus::Noop) =>
                {
                    return garbled(out, &form);
                }
                AnswerAs::Meta(asked) => {
                    if !(asked.quiet && is_done(reply)) {
                        asked.relay(out, reply);
                    }
                }
                AnswerAs::Plain(_) => {
                    if !plain(out, &form, reply) {
                        return garbled(out, &form);
                    }
                }
            },
            Outcome::Reply(_) => return garbled(out, &form),
        }
        Verdict::Fits
    }
}

pub(super) fn garbled(out: &mut Vec<u8>, form: &Form<'_>) -> Verdict {
    failed(out, form, Failure::Lost);
    Verdict::Garbled
}

fn is_done(reply: &MetaReply<'_>) -> bool {
    matches!(reply.status, MetaStatus::Done | MetaStatus::Value)
}

pub(super) fn status(outcome: &Outcome<'_>) -> Option<MetaStatus> {
    match outcome {
        Outcome::Reply(Reply::Meta(reply)) => Some(reply.status),
        _ => None,
    }
}

/// Answers a command that depends on what the server has under the key, which the client deleted.
pub(super) fn behind(place: Place, answer_as: &AnswerAs) {
    let form = answer_as.form();
    place.fill(|out| failed(out, &form, Failure::Down));
}

/// Fills the place of an answer.
pub(super) fn answer(
    place: Place,
    answer_as: &AnswerAs,
    outcome: &Outcome<'_>,
    plain: impl FnOnce(&mut Vec<u8>, &Form<'_>, &MetaReply<'_>) -> bool,
) -> Verdict {
    let mut verdict = Verdict::Fits;
    place.fill(|out| verdict = answer_as.write(out, outcome, plain));
    verdict
}
