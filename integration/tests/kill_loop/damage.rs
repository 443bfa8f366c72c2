//! What happens to a dry folder while nobody runs: bits rot, and a loss of power undoes what was not synced.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tiercache_integration::random::Random;

/// Flips random bits in the segments of a folder.
pub fn flip_bits(folder: &Path, random: &mut Random, count: usize) -> io::Result<()> {
    let segments = files(folder, |name| name.ends_with(".data"))?;
    for _ in 0..count.min(count * segments.len()) {
        let file = File::options()
            .read(true)
            .write(true)
            .open(random.pick(&segments.iter().collect::<Vec<_>>()))?;
        let bytes = file.metadata()?.len();
        if bytes == 0 {
            continue;
        }
        let (at, mut byte) = (random.below(bytes), [0]);
        file.read_exact_at(&mut byte, at)?;
        file.write_all_at(&[byte[0] ^ 1 << random.below(8)], at)?;
    }
    Ok(())
}

/// Copies the kills of a folder, folded or not, to another one.
pub fn copy_kills(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for old in files(to, |_| true)? {
        fs::remove_file(old)?;
    }
    for file in files(from, holds_kills)? {
        match fs::copy(&file, to.join(file.file_name().expect("a file has a name"))) {
            // Folded or freed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            copied => drop(copied?),
        }
    }
    Ok(())
}

/// Puts older kills in the place of a folder's own: pages that a loss of power kept from the device.
pub fn lose_kills(folder: &Path, older: &Path) -> io::Result<()> {
    for file in files(folder, |name| name.ends_with(".dead"))? {
        fs::remove_file(file)?;
    }
    for file in files(older, holds_kills)? {
        fs::copy(
            &file,
            folder.join(file.file_name().expect("a file has a name")),
        )?;
    }
    Ok(())
}

fn holds_kills(name: &str) -> bool {
    name.ends_with(".dead") || name.starts_with("journal-") && !name.ends_with(".tmp")
}

fn files(folder: &Path, chosen: impl Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() && chosen(&entry.file_name().to_string_lossy()) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}
