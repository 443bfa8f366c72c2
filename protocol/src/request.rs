//! Logical requests: what a client asks, apart from the syntax it asked in.
//!
//! Every syntax (classic text, meta, binary) decodes into [`Request`]; what remains of the
//! syntax is the [`Form`] that says how the answer has to look. Requests borrow from the bytes they
//! were decoded from, and from the decoder where a base64 key had to be decoded.

use crate::binary::Opcode;
use crate::exptime::Exptime;
use crate::key::Keys;
use crate::lexer::has_noreply;

/// One decoded command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request<'a> {
    /// `get`, `gets`, `gat`, `gats`: any number of keys, answered in order.
    Get(Get<'a>),
    /// `get`, `gat` of the binary protocol with their quiet and key-returning forms: one key.
    GetOne(GetOne<'a>),
    /// `mg`: one key with options.
    Retrieve(Retrieve<'a>),
    /// `set`, `add`, `replace`, `append`, `prepend`, `cas`, `ms`.
    Store(Store<'a>),
    /// `delete`, `md`.
    Delete(Delete<'a>),
    /// `incr`, `decr`, `ma`.
    Arithmetic(Arithmetic<'a>),
    /// `touch`.
    Touch(Touch<'a>),
    /// `me`: the facts about an item, for debugging.
    Inspect(Inspect<'a>),
    /// `mn`, binary `noop`: answers after everything before it.
    Noop {
        /// How to answer.
        form: Form<'a>,
    },
    /// `flush_all`, binary `flush`.
    FlushAll {
        /// When it takes effect: [`Exptime::Expired`], which is at once, where the client named no delay
        /// (or 0, or less); never [`Exptime::Never`].
        delay: Exptime,
        /// How to answer.
        form: Form<'a>,
    },
    /// A command about the server itself.
    Admin(Admin<'a>),
    /// A step of a SASL authentication; only in the binary protocol.
    Sasl(Sasl<'a>),
    /// `quit`: close; only the binary one that is not quiet is answered first.
    Quit {
        /// How to answer.
        form: Form<'a>,
    },
}

impl Request<'_> {
    /// The form of a request that came as a packet.
    pub fn binary_form(&self) -> Option<BinaryForm> {
        let form = match self {
            Self::GetOne(get) => return Some(get.form),
            Self::Sasl(sasl) => return Some(sasl.form),
            Self::Store(store) => store.form,
            Self::Delete(delete) => delete.form,
            Self::Arithmetic(arithmetic) => arithmetic.form,
            Self::Touch(touch) => touch.form,
            Self::FlushAll { form, .. }
            | Self::Noop { form }
            | Self::Quit { form }
            | Self::Admin(
                Admin::Version { form } | Admin::Verbosity { form, .. } | Admin::Stats { form, .. },
            ) => *form,
            _ => return None,
        };
        match form {
            Form::Binary(form) => Some(form),
            Form::Classic { .. } | Form::Meta(_) => None,
        }
    }
}

/// Commands about the server rather than about an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admin<'a> {
    /// `version`.
    Version {
        /// How to answer.
        form: Form<'a>,
    },
    /// `verbosity LEVEL`.
    Verbosity {
        /// The level asked for.
        level: u32,
        /// How to answer.
        form: Form<'a>,
    },
    /// `stats [ARGUMENTS]`, binary `stat`.
    Stats {
        /// The raw arguments after the word, trimmed; in the binary protocol the key.
        arguments: &'a [u8],
        /// How to answer.
        form: Form<'a>,
    },
    /// `shutdown`, `shutdown graceful`.
    Shutdown(Shutdown),
    /// `cache_memlimit MEGABYTES`.
    MemoryLimit {
        /// The new limit in MiB.
        megabytes: u32,
        /// Whether the client wants no answer.
        noreply: bool,
    },
    /// `lru_crawler ARGUMENTS`: the raw arguments after the word, trimmed.
    LruCrawler(&'a [u8]),
    /// `lru ARGUMENTS`: the raw arguments after the word, trimmed.
    Lru(&'a [u8]),
    /// `slabs ARGUMENTS`: the raw arguments after the word, trimmed.
    Slabs(&'a [u8]),
    /// `watch ARGUMENTS`: the raw arguments after the word, trimmed.
    Watch(&'a [u8]),
    /// `refresh_certs`.
    RefreshCerts,
}

/// How a `shutdown` command wants the server to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// At once.
    Now,
    /// As a clean stop.
    Graceful,
    /// In a mode that is not known: a server that allows the command answers
    /// [`Reject::InvalidShutdownMode`](crate::Reject::InvalidShutdownMode), another one that it
    /// does not.
    Unknown,
}

impl Admin<'_> {
    /// Whether the client wants no answer, `ERROR` included.
    pub fn noreply(&self) -> bool {
        match self {
            Self::Verbosity { form, .. } => form.is_noreply(),
            Self::MemoryLimit { noreply, .. } => *noreply,
            Self::LruCrawler(arguments) | Self::Lru(arguments) | Self::Slabs(arguments) => {
                has_noreply(arguments)
            }
            _ => false,
        }
    }
}

/// How the answer has to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form<'a> {
    /// Classic text.
    Classic {
        /// Whether the client wants no answer.
        noreply: bool,
    },
    /// A meta command.
    Meta(MetaForm<'a>),
    /// A packet of the binary protocol.
    Binary(BinaryForm),
}

impl Form<'_> {
    /// A text command that wants an answer.
    pub const TEXT: Self = Self::Classic { noreply: false };

    /// Whether it is a text command that wants no answer, errors included.
    #[inline]
    pub const fn is_noreply(&self) -> bool {
        matches!(self, Self::Classic { noreply: true })
    }
}

/// The part of a binary request that shapes its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BinaryForm {
    /// The request's opcode, which its answer repeats.
    pub opcode: Opcode,
    /// A number of the client's, which its answer repeats.
    pub opaque: u32,
}

/// The part of a meta request that shapes its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetaForm<'a> {
    /// The decoded key, for the return flag `k`.
    pub key: &'a [u8],
    /// Whether the key came in base64 (flag `b`).
    pub key_base64: bool,
    /// Flag `q`: hide the ordinary answer.
    pub quiet: bool,
    /// The opaque token of flag `O`, without the letter.
    pub opaque: Option<&'a [u8]>,
    /// The flags that ask for something in the answer, in request order
    /// (of `b c f h k l O s t v`). The exptime flags `N R T` of `mg` and `ma` are among them for
    /// their place, see [`stands_before`](Self::stands_before).
    pub returns: Returns,
}

impl MetaForm<'_> {
    /// Whether the flag `first` was given and stands before `second`, which was given too. So it is
    /// with `t` before `T`: the time to live is told as it was before the touch, and `R` before `T`
    /// judges it so.
    pub fn stands_before(&self, first: u8, second: u8) -> bool {
        let place = |wanted| {
            self.returns
                .letters()
                .iter()
                .position(|flag| *flag == wanted)
        };
        match (place(first), place(second)) {
            (Some(first), Some(second)) => first < second,
            _ => false,
        }
    }
}

/// Return-flag letters in request order; at most [`crate::limits::META_TOKENS_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Returns {
    pub(crate) letters: [u8; crate::limits::META_TOKENS_MAX],
    pub(crate) count: u8,
}

impl Returns {
    /// The letters in request order.
    #[inline]
    pub fn letters(&self) -> &[u8] {
        &self.letters[..usize::from(self.count)]
    }

    /// Whether the flag `letter` was given.
    #[inline]
    pub fn contains(&self, letter: u8) -> bool {
        self.letters().contains(&letter)
    }

    /// The letters without those of `others`.
    #[must_use]
    pub fn without(&self, others: &[u8]) -> Self {
        let mut kept = Self::default();
        for letter in self.letters() {
            if !others.contains(letter) {
                kept.push(*letter);
            }
        }
        kept
    }

    /// Appends a letter; what is beyond the bound is ignored (the decoder refuses it earlier).
    #[inline]
    pub fn push(&mut self, letter: u8) {
        if let Some(place) = self.letters.get_mut(usize::from(self.count)) {
            *place = letter;
            self.count += 1;
        }
    }
}

/// `get k1 k2 …` and its relatives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Get<'a> {
    /// The keys in order. All of them were checked, unless the line goes on in a further request.
    pub keys: Keys<'a>,
    /// `gat`: the new exptime.
    pub touch: Option<Exptime>,
    /// `gets`, `gats`: answer the CAS unique too.
    pub with_cas: bool,
    /// Whether `END` follows the last key. False for all but the last part of a line that is
    /// longer than [`crate::limits::GET_LINE_WHOLE_MAX`] and therefore answered in parts.
    pub last: bool,
}

/// One key of the binary protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetOne<'a> {
    /// The key: any bytes.
    pub key: &'a [u8],
    /// `gat`: the new exptime.
    pub touch: Option<Exptime>,
    /// How to answer.
    pub form: BinaryForm,
}

/// A step of a SASL authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sasl<'a> {
    /// Which step.
    pub step: SaslStep,
    /// The mechanism's name, as the client sent it.
    pub mechanism: &'a [u8],
    /// What the client says; none if it is longer than
    /// [`AUTH_TOKEN_MAX`](crate::limits::AUTH_TOKEN_MAX) and was dropped.
    pub token: Option<&'a [u8]>,
    /// How to answer.
    pub form: BinaryForm,
}

/// The steps of a SASL authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslStep {
    /// Which mechanisms are there?
    List,
    /// Begin.
    Auth,
    /// Go on.
    Step,
}

/// `mg`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retrieve<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Flag `v`: answer the value.
    pub value: bool,
    /// Flag `C`: leave out the value if the item's CAS unique equals this.
    pub known_cas: Option<u64>,
    /// Flag `E`: the CAS unique of an item that flag `N` creates.
    pub new_cas: Option<u64>,
    /// Flag `N`: on a miss create an empty item that expires then, and win.
    pub vivify: Option<Exptime>,
    /// Flag `R`: win if the item expires sooner than this.
    pub recache: Option<Exptime>,
    /// Flag `T`: the new exptime.
    pub touch: Option<Exptime>,
    /// Flag `u` given: do not count this access for recency.
    pub no_bump: bool,
    /// How to answer.
    pub form: MetaForm<'a>,
}

/// What a store does when the key is or is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreMode {
    /// Always store.
    Set,
    /// Only if the key is not there.
    Add,
    /// Only if the key is there.
    Replace,
    /// After the present value.
    Append,
    /// Before the present value.
    Prepend,
}

/// `set` and its relatives, `cas`, `ms`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store<'a> {
    /// What to do.
    pub mode: StoreMode,
    /// The key.
    pub key: &'a [u8],
    /// The client's flags.
    pub flags: u32,
    /// When the item expires.
    pub exptime: Exptime,
    /// The value, without its line end.
    pub value: &'a [u8],
    /// `cas`, flag `C`: only if the item's CAS unique equals this.
    pub compare: Option<u64>,
    /// Flag `E`: the item's new CAS unique.
    pub new_cas: Option<u64>,
    /// Flag `I`: with a `compare` lower than the item's, store and mark stale.
    pub invalidate: bool,
    /// Flag `N` of an append or prepend: create on a miss, expiring then.
    pub vivify: Option<Exptime>,
    /// How to answer.
    pub form: Form<'a>,
}

/// `delete`, `md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Flag `C`.
    pub compare: Option<u64>,
    /// Flag `E`: with `I` or `x`, the item's new CAS unique.
    pub new_cas: Option<u64>,
    /// Flag `I`: mark stale instead of deleting.
    pub invalidate: bool,
    /// Flag `T`: with `I`, the new exptime.
    pub touch: Option<Exptime>,
    /// Flag `x`: empty the value and clear the client flags instead of deleting.
    pub clear: bool,
    /// How to answer.
    pub form: Form<'a>,
}

/// `incr`, `decr`, `ma`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arithmetic<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Whether to subtract.
    pub decrement: bool,
    /// By how much.
    pub delta: u64,
    /// Flag `N` (with `J`, else 0): create on a miss with this value and exptime.
    pub vivify: Option<(u64, Exptime)>,
    /// Flag `T`: the new exptime.
    pub touch: Option<Exptime>,
    /// Flag `C`.
    pub compare: Option<u64>,
    /// Flag `E`.
    pub new_cas: Option<u64>,
    /// How to answer.
    pub form: Form<'a>,
}

/// `touch`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touch<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The new exptime.
    pub exptime: Exptime,
    /// How to answer.
    pub form: Form<'a>,
}

/// `me`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspect<'a> {
    /// The decoded key.
    pub key: &'a [u8],
    /// Whether the key came in base64.
    pub key_base64: bool,
}
