//! Memory shared between threads as atomic words, and what else needs `unsafe`: the one file that has it.
//!
//! [`Words`] is a mapping (anonymous, or of a file that outlives the process) that can only be
//! touched through [`AtomicU64`]s. A data race is therefore impossible by construction, whatever
//! the engines above do: a logic error there yields wrong bytes, which their checksums and key
//! comparisons catch, never undefined behaviour. Relaxed loads and stores of whole words compile
//! to plain moves, so this costs nothing over a `memcpy` for the sizes a cache sees.
//!
//! ```text
//! Words ──deref──▶ [AtomicU64]      crate::words copies byte ranges in and out
//!   └ release(range)                pages go back to the kernel, read as zero afterwards
//! ```
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::sync::atomic::AtomicU64;

use memmap2::{MmapOptions, MmapRaw};

/// Bytes in a word.
pub const WORD_BYTES: usize = size_of::<u64>();

/// Bytes that a processor moves between memory and its caches at once.
pub const CACHE_LINE_BYTES: usize = 64;

/// A mapping seen as atomic words.
#[derive(Debug)]
pub struct Words {
    map: MmapRaw,
    /// File mappings can be synced and must not be released.
    backed_by_file: bool,
}

impl Words {
    /// Reserves `bytes` (rounded up to whole words) of zeroed private memory. Pages become
    /// resident when they are first written.
    ///
    /// # Errors
    /// The kernel's, when it has no address space (or no overcommit) left for that size.
    pub fn reserve(bytes: usize) -> io::Result<Words> {
        let bytes = bytes.max(WORD_BYTES).next_multiple_of(WORD_BYTES);
        let map = MmapOptions::new().len(bytes).no_reserve_swap().map_anon()?;
        Ok(Words {
            map: map.into(),
            backed_by_file: false,
        })
    }

    /// Maps the first `bytes` of `file` shared: a store is in the page cache at once and so
    /// survives the death of this process.
    ///
    /// The caller must have given the file that length, with its blocks allocated: a store into a
    /// hole of a full disk, or past the end, would raise SIGBUS.
    ///
    /// # Errors
    /// The kernel's, or `InvalidInput` where the file is shorter than `bytes` or `bytes` is not a
    /// multiple of [`WORD_BYTES`].
    pub fn map_file(file: &File, bytes: usize) -> io::Result<Words> {
        if bytes == 0 || !bytes.is_multiple_of(WORD_BYTES) || file.metadata()?.len() < bytes as u64
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "file too short to map",
            ));
        }
        let map = MmapOptions::new().len(bytes).map_raw(file)?;
        Ok(Words {
            map,
            backed_by_file: true,
        })
    }

    /// Asks for large pages under these words: an access then rarely has to walk the page tables,
    /// which under virtualisation costs more than the access itself. Best effort; memory becomes
    /// resident in steps of a large page where the kernel agrees.
    pub fn prefer_large_pages(&self, words: Range<usize>) {
        let bytes = words.start * WORD_BYTES..words.end.min(self.len()) * WORD_BYTES;
        let _ = self
            .map
            .advise_range(memmap2::Advice::HugePage, bytes.start, bytes.len());
    }

    /// Gives the pages that lie wholly inside these words back to the kernel; they read as zero
    /// afterwards. Best effort: a refusal costs memory, never correctness.
    pub fn release(&self, words: Range<usize>) {
        if self.backed_by_file {
            return;
        }
        let page_words = rustix::param::page_size() / WORD_BYTES;
        let start = words.start.next_multiple_of(page_words);
        let end = words.end.min(self.len()) / page_words * page_words;
        if start >= end {
            return;
        }
        let bytes = (end - start) * WORD_BYTES;
        // SAFETY: `start..end` lies inside the mapping, which lives as long as `self` and is
        // anonymous and private. DontNeed makes the pages read as zero; all access goes through
        // atomics that accept any bit pattern, so no reference is invalidated by it.
        let _ = unsafe {
            rustix::mm::madvise(
                self.map.as_mut_ptr().add(start * WORD_BYTES).cast(),
                bytes,
                rustix::mm::Advice::LinuxDontNeed,
            )
        };
    }
}

impl Deref for Words {
    type Target = [AtomicU64];

    #[inline]
    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, readable and writable, lives as long as `self`, and
        // is only ever accessed through this slice (other processes are kept out of the file by
        // the folder lock; were they not, they would be atomic stores of the same width).
        // `AtomicU64` accepts every bit pattern.
        unsafe {
            std::slice::from_raw_parts(
                self.map.as_mut_ptr().cast::<AtomicU64>(),
                self.map.len() / WORD_BYTES,
            )
        }
    }
}

/// Shortest range that is copied by the processor's wide registers: [`Tail::push_words`] and [`store_bytes`] take no
/// shorter one.
pub const COPY_BYTES_MIN: usize = 16;

/// From here on a [`Tail`] makes room for what it was asked for and no more.
const EXACT_BYTES_MIN: usize = 32 * 1024;

/// Room behind such a tail for what ends an answer.
const BEHIND_BYTES: usize = 64;

/// The end of a vector while many short pieces are written to it. There is room for all of them
/// from the start, so each is a bare copy; the vector gets its length when this is dropped.
///
/// # Panics
/// Each of its functions, when there is no room for the piece.
#[derive(Debug)]
pub struct Tail<'a> {
    out: &'a mut Vec<u8>,
    /// How far it is written, and how far it may be.
    at: usize,
    end: usize,
}

impl<'a> Tail<'a> {
    /// The end of `out`, with room for `bytes` more.
    #[inline]
    pub fn new(out: &'a mut Vec<u8>, bytes: usize) -> Tail<'a> {
        if bytes < EXACT_BYTES_MIN {
            out.reserve(bytes);
        } else {
            // Growing to twice the size would double what a client costs that does not read it.
            out.reserve_exact(bytes + BEHIND_BYTES);
        }
        let (at, end) = (out.len(), out.capacity());
        Tail { out, at, end }
    }

    #[inline]
    fn check(&self, bytes: usize) {
        assert!(bytes <= self.end - self.at, "room was made");
    }

    /// Writes bytes.
    #[inline]
    pub fn push<const N: usize>(&mut self, piece: [u8; N]) {
        self.check(N);
        // SAFETY: `at` is at most the capacity, and `N` bytes behind it are within. The vector owns them and
        // nobody else looks at them.
        unsafe {
            let to = self.out.as_mut_ptr().add(self.at);
            std::ptr::copy_nonoverlapping(piece.as_ptr(), to, N);
        }
        self.at += N;
    }

    /// Writes the first `len` bytes of a piece, for which there is room as a whole.
    #[inline]
    pub fn push_part<const N: usize>(&mut self, piece: [u8; N], len: usize) {
        assert!(len <= N);
        self.push(piece);
        self.at -= N - len;
    }

    /// Writes bytes, usually few. A copy of unknown length is a call that costs more than they do.
    #[inline]
    pub fn push_short(&mut self, bytes: &[u8]) {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        if bytes.len() >= COPY_BYTES_MIN {
            self.check(bytes.len());
            // SAFETY: there is room for them behind what is written, and nobody else can have borrowed it.
            unsafe {
                copy(
                    bytes.as_ptr(),
                    self.out.as_mut_ptr().add(self.at),
                    bytes.len(),
                )
            };
            self.at += bytes.len();
            return;
        }
        let (chunks, rest) = bytes.as_chunks::<WORD_BYTES>();
        for chunk in chunks {
            self.push(*chunk);
        }
        match bytes.last_chunk::<WORD_BYTES>() {
            // The last bytes again, over some that are written already.
            Some(last) if !rest.is_empty() => {
                self.at -= WORD_BYTES - rest.len();
                self.push(*last);
            }
            Some(_) => {}
            None => rest.iter().for_each(|byte| self.push([*byte])),
        }
    }

    /// Writes the `len` bytes from byte `offset` of `words` on. Other threads may store to the words
    /// meanwhile: the result is then some mix of old and new bytes, as from relaxed loads of single
    /// bytes. A `memcpy` would be a data race, and loads of whole words that are shifted into place
    /// take several times the instructions.
    ///
    /// # Panics
    /// Also when the words end before, or `len` is below [`COPY_BYTES_MIN`].
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[inline]
    pub fn push_words(&mut self, words: &[AtomicU64], offset: usize, len: usize) {
        let end = offset.checked_add(len);
        assert!(len >= COPY_BYTES_MIN && end.is_some_and(|end| end <= size_of_val(words)));
        self.check(len);
        // SAFETY: what is read lies inside `words`; what is written lies inside the vector's capacity, behind what
        // is written.
        unsafe {
            let from = words.as_ptr().cast::<u8>().add(offset);
            copy(from, self.out.as_mut_ptr().add(self.at), len);
        }
        self.at += len;
    }
}

/// Stores bytes over those from byte `offset` of `words` on. Other threads may load the words
/// meanwhile, and then see some mix of old and new bytes, as of relaxed stores of single bytes.
///
/// # Panics
/// When the words end before, or there are fewer than [`COPY_BYTES_MIN`] bytes.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
pub fn store_bytes(words: &[AtomicU64], offset: usize, bytes: &[u8]) {
    let end = offset.checked_add(bytes.len());
    assert!(bytes.len() >= COPY_BYTES_MIN && end.is_some_and(|end| end <= size_of_val(words)));
    // SAFETY: what is written lies inside `words`, whose words may be changed through a shared reference; all other
    // access to them is atomic and accepts any bit pattern.
    unsafe {
        let to = words.as_ptr().cast_mut().cast::<u8>().add(offset);
        copy(bytes.as_ptr(), to, bytes.len());
    }
}

/// Copies `len` bytes, at least [`COPY_BYTES_MIN`], between ranges that do not overlap. The compiler does not see what
/// is read and written, and so assumes nothing of it: other threads may do the same to either range meanwhile.
///
/// # Safety
/// `len` bytes can be read at `from` and written at `to`.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // The address sanitizer does not see into assembler; it looks at ranges, not at who copies meanwhile.
    #[cfg(sanitized)]
    // SAFETY: the caller's.
    unsafe {
        std::ptr::copy_nonoverlapping(from, to, len);
    }
    // SAFETY: the caller's.
    #[cfg(not(sanitized))]
    unsafe {
        copy_wide(from, to, len);
    }
}

/// See [`copy`].
///
/// # Safety
/// As there.
#[cfg(all(target_arch = "x86_64", not(any(miri, sanitized))))]
#[inline(always)]
unsafe fn copy_wide(from: *const u8, to: *mut u8, len: usize) {
    use std::arch::asm;
    /// From here on the processor's own string copy is as fast.
    const STRING_COPY_BYTES_MIN: usize = 512;

    // SAFETY: the caller's. The last pieces of the loop overlap those before them instead of going past either end.
    unsafe {
        if len >= STRING_COPY_BYTES_MIN {
            asm!(
                "rep movsb",
                inout("rcx") len => _, inout("rsi") from => _, inout("rdi") to => _,
                options(nostack, preserves_flags),
            );
        } else {
            // Whole pairs of 16 bytes, then the last 32, or the first and the last 16 of fewer.
            asm!(
                "mov {at}, 32",
                "cmp {len}, 32",
                "jbe 4f",
                "3:",
                "movdqu {piece}, [{from} + {at} - 32]",
                "movdqu {other}, [{from} + {at} - 16]",
                "movdqu [{to} + {at} - 32], {piece}",
                "movdqu [{to} + {at} - 16], {other}",
                "add {at}, 32",
                "cmp {at}, {len}",
                "jb 3b",
                "movdqu {piece}, [{from} + {len} - 32]",
                "movdqu [{to} + {len} - 32], {piece}",
                "jmp 5f",
                "4:",
                "movdqu {piece}, [{from}]",
                "movdqu [{to}], {piece}",
                "5:",
                "movdqu {piece}, [{from} + {len} - 16]",
                "movdqu [{to} + {len} - 16], {piece}",
                from = in(reg) from, to = in(reg) to, len = in(reg) len,
                at = out(reg) _, piece = out(xmm_reg) _, other = out(xmm_reg) _,
                options(nostack),
            );
        }
    }
}

impl Drop for Tail<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: everything up to `at` is written, and `at` is at most the capacity.
        unsafe { self.out.set_len(self.at) };
    }
}

/// Has the allocator keep one heap for all threads, unless whoever started the process says how many (`MALLOC_ARENA_MAX`).
/// To be called before there are other threads: heaps that exist stay.
pub fn keep_one_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::ffi::c_int;
        unsafe extern "C" {
            fn mallopt(parameter: c_int, value: c_int) -> c_int;
        }
        /// `M_ARENA_MAX` of malloc.h.
        const ARENA_MAX: c_int = -8;
        if std::env::var_os("MALLOC_ARENA_MAX").is_none() {
            // SAFETY: mallopt(3) may be called at any time from any thread; this parameter only bounds how many heaps are
            // made from here on, and moves nothing that is allocated.
            unsafe { mallopt(ARENA_MAX, 1) };
        }
    }
}

/// Has the allocator give the pages that it keeps between what is allocated back to the kernel. It does so by itself only
/// at the end of each of its arenas, of which it makes up to eight per core: without this, what a process once needed for
/// a moment (large buffers above all, on one thread or another) stays with it. Takes a millisecond or so.
pub fn give_back_free_pages() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        // SAFETY: malloc_trim(3) has no precondition, may be called from any thread, and touches no memory that is
        // allocated.
        unsafe { malloc_trim(0) };
    }
}

/// Asks the processor to have the cache line at an address in its cache soon. A hint: any address
/// will do, nothing is read and nothing faults.
#[inline]
pub fn prefetch(address: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults and has no effect that a program could see.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::without_provenance(address));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn released_words_read_as_zero() {
        let words = Words::reserve(1 << 20).unwrap();
        assert_eq!(words.len(), (1 << 20) / WORD_BYTES);
        words[5000].store(7, Relaxed);
        words.release(0..words.len());
        assert_eq!(words[5000].load(Relaxed), 0);
    }

    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[test]
    fn bytes_are_stored_between_others() {
        let bytes: Vec<u8> = (1..=255).cycle().take(1024).collect();
        for len in (COPY_BYTES_MIN..140).chain(500..530) {
            for offset in [0, 1, 4, 7, 8, 21] {
                let words: Vec<AtomicU64> = (0..100).map(|_| AtomicU64::new(0)).collect();
                store_bytes(&words, offset, &bytes[..len]);
                let stored: Vec<u8> = words
                    .iter()
                    .flat_map(|word| word.load(Relaxed).to_le_bytes())
                    .collect();
                let mut expected = vec![0; stored.len()];
                expected[offset..offset + len].copy_from_slice(&bytes[..len]);
                assert_eq!(stored, expected, "{len} bytes at {offset}");
            }
        }
    }

    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[test]
    #[should_panic(expected = "assertion failed")]
    fn bytes_are_not_stored_past_the_end() {
        let words = [const { AtomicU64::new(0) }; 3];
        store_bytes(&words, 9, &[1; COPY_BYTES_MIN]);
    }

    #[cfg(not(miri))]
    #[test]
    fn free_pages_are_given_back() {
        let kept = vec![7u8; 4096];
        give_back_free_pages();
        assert_eq!(kept, [7; 4096]);
    }

    // Pieces of every length around the sizes of the copies.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[test]
    fn pieces_are_appended() {
        let bytes: Vec<u8> = (0..=255).cycle().take(1024).collect();
        let (chunks, _) = bytes.as_chunks::<WORD_BYTES>();
        let words: Vec<AtomicU64> = chunks
            .iter()
            .map(|chunk| AtomicU64::new(u64::from_le_bytes(*chunk)))
            .collect();
        for len in (0..140).chain(500..530) {
            for offset in [0, 1, 4, 7, 8, 21] {
                let mut out = b"before".to_vec();
                let mut tail = Tail::new(&mut out, 3 + len + len + 1);
                tail.push(*b"abc");
                tail.push_short(&bytes[offset..offset + len]);
                if len >= COPY_BYTES_MIN {
                    tail.push_words(&words, offset, len);
                } else {
                    tail.push_short(&bytes[offset..offset + len]);
                }
                tail.push_part(*b"!", 1);
                drop(tail);
                let piece = &bytes[offset..offset + len];
                assert_eq!(
                    out,
                    [b"beforeabc", piece, piece, b"!"].concat(),
                    "{len} {offset}"
                );
            }
        }
    }

    #[test]
    #[should_panic(expected = "room was made")]
    fn pieces_need_room() {
        let mut out = Vec::new();
        let mut tail = Tail::new(&mut out, 16);
        for _ in 0..1000 {
            tail.push([0; 16]);
        }
    }

    #[test]
    fn a_short_file_is_refused() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        assert!(Words::map_file(&file, 8192).is_err());
        let words = Words::map_file(&file, 4096).unwrap();
        words[1].store(u64::from_le_bytes(*b"survives"), Relaxed);
        let mut bytes = [0; 16];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).unwrap();
        assert_eq!(&bytes[8..], b"survives");
    }
}
