//! The protocol's bounds, each with its unit in its name or its sentence.

/// A bound that fuzz targets, built with `--cfg fuzzing`, have a smaller one in place of: what lies behind it is then
/// reached by inputs that are short and therefore many.
const fn bound(value: usize, fuzzing: usize) -> usize {
    if cfg!(fuzzing) { fuzzing } else { value }
}

/// Longest key, in bytes; for a base64 key of the meta protocol the encoded form counts.
pub const KEY_MAX: usize = 250;

/// Most bytes of a command line before its `\n`. Only the lines of `get`, `gets`, `gat` and `gats`
/// may be longer.
pub const LINE_MAX: usize = bound(2048, 1024);

/// Longest `get` line in bytes, `\n` included, whose keys are all checked before any is answered.
/// A longer line is yielded in parts of at most this many bytes.
pub const GET_LINE_WHOLE_MAX: usize = bound(64 * 1024, 1536);

/// Most tokens of a meta command, its name and key included.
pub const META_TOKENS_MAX: usize = 20;

/// Longest opaque token of a meta command in bytes, its letter `O` included.
pub const OPAQUE_MAX: usize = 32;

/// Largest value length a header may declare, in bytes: memcached adds the line end in 31 bits.
pub const VALUE_LEN_MAX: usize = i32::MAX as usize - 2;

/// Bytes that memcached 1.6 counts towards its item size limit beside key, value and nonzero
/// flags: the item header with CAS (56), the key's NUL and the value's line end.
pub const ITEM_HEADER_BYTES: usize = 56 + 1 + 2;

/// Bytes that memcached counts for client flags other than 0.
pub const ITEM_FLAGS_BYTES: usize = 4;

/// Longest exptime in seconds that is taken as relative to now: 30 days.
pub const EXPTIME_RELATIVE_MAX_S: u32 = 60 * 60 * 24 * 30;

/// Longest body of a packet, in bytes: memcached's largest `-I`.
pub const BODY_LEN_MAX: usize = 1 << 30;

/// Longest line of a reply, in bytes without its `\n`, that the reply decoder accepts.
pub const REPLY_LINE_MAX: usize = bound(8 * 1024, 1024);

/// Longest token of an authentication, in bytes: `user password`, or that of a SASL step. memcached
/// takes 16 KiB; little shall be held for a client that is not known yet.
pub const AUTH_TOKEN_MAX: usize = bound(1024, 128);
