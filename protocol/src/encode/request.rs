//! Requests out: the other direction, for speaking to an upstream server. Lines are written here,
//! packets by [`packet`](super::packet).

use super::packet;
use crate::base64;
use crate::exptime::Exptime;
use crate::number::{push_i64, push_u64};
use crate::request::{
    Admin, Arithmetic, Delete, Form, Get, MetaForm, Request, Retrieve, Shutdown, Store, StoreMode,
};

/// What `ma` counts by where the request names no delta.
const DELTA_DEFAULT: u64 = 1;

/// Appends `request` as a client would send it, in the syntax of its form. A binary request is
/// written with its form's opcode, which has to fit it.
///
/// Every byte is written anew from the request's fields, so that nothing but a key, a value or an
/// opaque token is passed on as it came. A part of a long `get` line is written as a line of its
/// own. The keys of a request that was decoded are safe to write; whoever makes keys of his own has
/// to see to it that a classic key holds no space and no control byte.
pub fn encode_request(out: &mut Vec<u8>, request: &Request<'_>) {
    match request.binary_form() {
        Some(form) => packet::encode(out, request, form),
        None => encode_line(out, request),
    }
}

fn encode_line(out: &mut Vec<u8>, request: &Request<'_>) {
    match request {
        Request::Get(get) => encode_get(out, get),
        // These two exist only as packets.
        Request::GetOne(_) | Request::Sasl(_) => return,
        Request::Retrieve(retrieve) => encode_retrieve(out, retrieve),
        Request::Store(store) => encode_store(out, store),
        Request::Delete(delete) => encode_delete(out, delete),
        Request::Arithmetic(arithmetic) => encode_arithmetic(out, arithmetic),
        Request::Touch(touch) => {
            words(out, &[b"touch", touch.key]);
            argument(out, touch.exptime);
            noreply(out, touch.form.is_noreply());
        }
        Request::Inspect(inspect) => {
            out.extend_from_slice(b"me ");
            push_key(out, inspect.key, inspect.key_base64);
            out.extend_from_slice(if inspect.key_base64 { b" b" } else { b"" });
        }
        Request::Noop { .. } => out.extend_from_slice(b"mn"),
        Request::FlushAll { delay, form } => {
            out.extend_from_slice(b"flush_all");
            if matches!(delay, Exptime::Relative(_) | Exptime::Absolute(_)) {
                argument(out, *delay);
            }
            noreply(out, form.is_noreply());
        }
        Request::Admin(admin) => encode_admin(out, admin),
        Request::Quit { .. } => out.extend_from_slice(b"quit"),
    }
    if !matches!(request, Request::Store(_)) {
        out.extend_from_slice(b"\r\n");
    }
}

fn encode_get(out: &mut Vec<u8>, get: &Get<'_>) {
    out.extend_from_slice(match (get.touch, get.with_cas) {
        (None, false) => b"get",
        (None, true) => b"gets",
        (Some(_), false) => b"gat",
        (Some(_), true) => b"gats",
    });
    if let Some(exptime) = get.touch {
        argument(out, exptime);
    }
    for key in get.keys.clone() {
        out.push(b' ');
        out.extend_from_slice(key);
    }
}

fn encode_retrieve(out: &mut Vec<u8>, retrieve: &Retrieve<'_>) {
    out.extend_from_slice(b"mg ");
    push_key(out, retrieve.key, retrieve.form.key_base64);
    let placed = Placed {
        vivify: retrieve.vivify,
        recache: retrieve.recache,
        touch: retrieve.touch,
    };
    form_flags(out, &retrieve.form, placed);
    flag_if(
        out,
        b'v',
        retrieve.value && !retrieve.form.returns.contains(b'v'),
    );
    flag_if(out, b'u', retrieve.no_bump);
    number_flag(out, b'C', retrieve.known_cas);
    number_flag(out, b'E', retrieve.new_cas);
}

fn encode_store(out: &mut Vec<u8>, store: &Store<'_>) {
    match &store.form {
        Form::Classic { .. } | Form::Binary(_) => {
            let word: &[u8] = match (store.compare, store.mode) {
                (Some(_), _) => b"cas",
                (None, StoreMode::Set) => b"set",
                (None, StoreMode::Add) => b"add",
                (None, StoreMode::Replace) => b"replace",
                (None, StoreMode::Append) => b"append",
                (None, StoreMode::Prepend) => b"prepend",
            };
            words(out, &[word, store.key]);
            out.push(b' ');
            push_u64(out, u64::from(store.flags));
            argument(out, store.exptime);
            out.push(b' ');
            push_u64(out, store.value.len() as u64);
            if let Some(cas) = store.compare {
                out.push(b' ');
                push_u64(out, cas);
            }
            noreply(out, store.form.is_noreply());
        }
        Form::Meta(form) => {
            out.extend_from_slice(b"ms ");
            push_key(out, store.key, form.key_base64);
            out.push(b' ');
            push_u64(out, store.value.len() as u64);
            form_flags(out, form, Placed::default());
            flag_if(out, b'I', store.invalidate);
            number_flag(out, b'C', store.compare);
            number_flag(out, b'E', store.new_cas);
            number_flag(
                out,
                b'F',
                (store.flags != 0).then_some(u64::from(store.flags)),
            );
            exptime_flag(
                out,
                b'T',
                Some(store.exptime).filter(|time| *time != Exptime::Never),
            );
            exptime_flag(out, b'N', store.vivify);
            out.extend_from_slice(match store.mode {
                StoreMode::Set => b"",
                StoreMode::Add => b" ME",
                StoreMode::Replace => b" MR",
                StoreMode::Append => b" MA",
                StoreMode::Prepend => b" MP",
            });
        }
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(store.value);
    out.extend_from_slice(b"\r\n");
}

fn encode_delete(out: &mut Vec<u8>, delete: &Delete<'_>) {
    match &delete.form {
        Form::Classic { .. } | Form::Binary(_) => {
            words(out, &[b"delete", delete.key]);
            noreply(out, delete.form.is_noreply());
        }
        Form::Meta(form) => {
            out.extend_from_slice(b"md ");
            push_key(out, delete.key, form.key_base64);
            form_flags(out, form, Placed::default());
            flag_if(out, b'I', delete.invalidate);
            flag_if(out, b'x', delete.clear);
            number_flag(out, b'C', delete.compare);
            number_flag(out, b'E', delete.new_cas);
            exptime_flag(out, b'T', delete.touch);
        }
    }
}

fn encode_arithmetic(out: &mut Vec<u8>, arithmetic: &Arithmetic<'_>) {
    match &arithmetic.form {
        Form::Classic { .. } | Form::Binary(_) => {
            let word: &[u8] = if arithmetic.decrement {
                b"decr"
            } else {
                b"incr"
            };
            words(out, &[word, arithmetic.key]);
            out.push(b' ');
            push_u64(out, arithmetic.delta);
            noreply(out, arithmetic.form.is_noreply());
        }
        Form::Meta(form) => {
            out.extend_from_slice(b"ma ");
            push_key(out, arithmetic.key, form.key_base64);
            let (initial, vivify) = arithmetic.vivify.unzip();
            form_flags(
                out,
                form,
                Placed {
                    vivify,
                    recache: None,
                    touch: arithmetic.touch,
                },
            );
            number_flag(out, b'J', initial.filter(|initial| *initial != 0));
            number_flag(
                out,
                b'D',
                Some(arithmetic.delta).filter(|by| *by != DELTA_DEFAULT),
            );
            number_flag(out, b'C', arithmetic.compare);
            number_flag(out, b'E', arithmetic.new_cas);
            out.extend_from_slice(if arithmetic.decrement { b" MD" } else { b"" });
        }
    }
}

fn encode_admin(out: &mut Vec<u8>, admin: &Admin<'_>) {
    let (word, arguments): (&[u8], &[u8]) = match admin {
        Admin::Version { .. } => (b"version", b""),
        Admin::Stats { arguments, .. } => (b"stats", arguments),
        Admin::LruCrawler(arguments) => (b"lru_crawler", arguments),
        Admin::Lru(arguments) => (b"lru", arguments),
        Admin::Slabs(arguments) => (b"slabs", arguments),
        Admin::Watch(arguments) => (b"watch", arguments),
        Admin::RefreshCerts => (b"refresh_certs", b""),
        Admin::Shutdown(Shutdown::Now) => (b"shutdown", b""),
        Admin::Shutdown(Shutdown::Graceful) => (b"shutdown", b"graceful"),
        Admin::Shutdown(Shutdown::Unknown) => (b"shutdown", b"unknown"),
        Admin::Verbosity { level, form } => {
            return admin_number(out, b"verbosity", *level, form.is_noreply());
        }
        Admin::MemoryLimit {
            megabytes,
            noreply: quiet,
        } => {
            return admin_number(out, b"cache_memlimit", *megabytes, *quiet);
        }
    };
    out.extend_from_slice(word);
    if !arguments.is_empty() {
        out.push(b' ');
        out.extend_from_slice(arguments);
    }
}

fn admin_number(out: &mut Vec<u8>, word: &[u8], number: u32, quiet: bool) {
    out.extend_from_slice(word);
    out.push(b' ');
    push_u64(out, u64::from(number));
    noreply(out, quiet);
}

/// The exptimes of a request whose place among the return flags has a meaning.
#[derive(Default, Clone, Copy)]
struct Placed {
    vivify: Option<Exptime>,
    recache: Option<Exptime>,
    touch: Option<Exptime>,
}

/// The flags that a form holds, in request order, then those that it does not place.
fn form_flags(out: &mut Vec<u8>, form: &MetaForm<'_>, placed: Placed) {
    let opaque = |out: &mut Vec<u8>| {
        if let Some(token) = form.opaque {
            out.extend_from_slice(b" O");
            out.extend_from_slice(token);
        }
    };
    let exptimes = [
        (b'N', placed.vivify),
        (b'R', placed.recache),
        (b'T', placed.touch),
    ];
    for letter in form.returns.letters() {
        match letter {
            b'O' => opaque(out),
            b'N' | b'R' | b'T' => {
                let exptime = exptimes.iter().find(|(flag, _)| flag == letter);
                exptime_flag(out, *letter, exptime.and_then(|(_, exptime)| *exptime));
            }
            b'b' => flag_if(out, b'b', form.key_base64),
            _ => flag_if(out, *letter, true),
        }
    }
    flag_if(out, b'b', form.key_base64 && !form.returns.contains(b'b'));
    if !form.returns.contains(b'O') {
        opaque(out);
    }
    for (letter, exptime) in exptimes {
        exptime_flag(
            out,
            letter,
            exptime.filter(|_| !form.returns.contains(letter)),
        );
    }
    flag_if(out, b'q', form.quiet);
}

fn flag_if(out: &mut Vec<u8>, letter: u8, wanted: bool) {
    if wanted {
        out.extend_from_slice(&[b' ', letter]);
    }
}

fn number_flag(out: &mut Vec<u8>, letter: u8, number: Option<u64>) {
    if let Some(number) = number {
        out.extend_from_slice(&[b' ', letter]);
        push_u64(out, number);
    }
}

fn exptime_flag(out: &mut Vec<u8>, letter: u8, exptime: Option<Exptime>) {
    if let Some(exptime) = exptime {
        out.extend_from_slice(&[b' ', letter]);
        push_i64(out, i64::from(exptime.to_raw()));
    }
}

fn argument(out: &mut Vec<u8>, exptime: Exptime) {
    out.push(b' ');
    push_i64(out, i64::from(exptime.to_raw()));
}

fn words(out: &mut Vec<u8>, words: &[&[u8]; 2]) {
    out.extend_from_slice(words[0]);
    out.push(b' ');
    out.extend_from_slice(words[1]);
}

fn noreply(out: &mut Vec<u8>, quiet: bool) {
    out.extend_from_slice(if quiet { b" noreply" } else { b"" });
}

fn push_key(out: &mut Vec<u8>, key: &[u8], key_base64: bool) {
    if key_base64 {
        base64::encode(out, key);
    } else {
        out.extend_from_slice(key);
    }
}
