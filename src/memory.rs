//! Memory shared between threads as atomic words: the one file with `unsafe`.
//!
//! [`Words`] is a mapping (anonymous, or of a file that outlives the process) that can only be
//! touched through [`AtomicU64`]s. A data race is therefore impossible by construction, whatever
//! the engines above do: a logic error there yields wrong bytes, which their checksums and key
//! comparisons catch, never undefined behaviour. Relaxed loads and stores of whole words compile
//! to plain moves, so this costs nothing over a `memcpy` for the sizes a cache sees.
//!
//! ```text
//! Words ──deref──▶ [AtomicU64]      crate::words copies byte ranges in and out
//!   │ release(range)                pages go back to the kernel, read as zero afterwards
//!   └ sync(range)                   file mappings: on the device when it returns
//! ```
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::sync::atomic::AtomicU64;

use memmap2::{MmapOptions, MmapRaw};

/// Bytes in a word.
pub const WORD_BYTES: usize = size_of::<u64>();

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

    /// Writes the whole file mapping to its device and waits for it.
    ///
    /// # Errors
    /// The device's. After an error nothing is known about what reached it.
    pub fn sync(&self) -> io::Result<()> {
        self.map.flush()
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

    #[test]
    fn a_short_file_is_refused() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        assert!(Words::map_file(&file, 8192).is_err());
        let words = Words::map_file(&file, 4096).unwrap();
        words[1].store(u64::from_le_bytes(*b"survives"), Relaxed);
        words.sync().unwrap();
        let mut bytes = [0; 16];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, 0).unwrap();
        assert_eq!(&bytes[8..], b"survives");
    }
}
