//! One bit flipped, or everything behind a byte cut off, at every position of every file: never a wrong value.
//!
//! `TIERCACHE_TEST_STRIDE=1` takes every position; by default it is one in many.

use std::os::unix::fs::FileExt as _;

use super::cuts::{KEYS, Tier, content, folder, number, open, small};
use super::tape::{Image, write_image};
use super::*;
use crate::dry::device::Device;
use crate::dry::rows::Visitor;
use crate::dry::segment::Segment;

/// Positions between two that are tried, where nothing else is said.
const STRIDE: u64 = 97;

/// Of all segments of a folder one position in so many of the others is tried: each is a start of the tier.
const SCANNED_EVERY: usize = 8;

fn stride() -> usize {
    number("TIERCACHE_TEST_STRIDE", STRIDE) as usize
}

/// So large that nothing is reclaimed: what is missing is missing because of the rot.
fn roomy(folder: &Path) -> DryConfig {
    DryConfig {
        size: ByteSize::mib(8),
        ..small(folder, Durability::Process)
    }
}

/// The files of a folder.
fn image(folder: &Path) -> Image {
    let files = folder.read_dir().unwrap().map(|entry| entry.unwrap());
    let files = files.filter(|entry| entry.file_type().unwrap().is_file());
    files
        .map(|file| {
            (
                file.file_name().into_string().unwrap(),
                std::fs::read(file.path()).unwrap(),
            )
        })
        .collect()
}

/// A folder whose process died, with kills in the journal and in `.dead` files, and what its keys are.
fn life() -> (Image, Vec<Option<u64>>) {
    let dir = folder();
    let config = roomy(dir.path());
    let mut truth = vec![None; KEYS];
    let mut random = Random(77);
    let mut version = 0;
    for starts in 1..=3 {
        let tier = Tier::over(open(&config, boot(), Device::default()), false);
        version = tier.dry.first_version().max(version);
        for _ in 0..60 * starts {
            let key = random.below(KEYS);
            version += 1;
            if random.below(4) == 0 {
                tier.kill(key);
                truth[key] = None;
            } else {
                tier.set(key, version);
                truth[key] = Some(version);
            }
        }
        tier.dry.flush_buffers();
        wait_until(|| tier.dry.queue_bytes() == 0);
        tier.dry.close(Close::Dirty).unwrap();
    }
    (image(dir.path()), truth)
}

/// Starts on an image. How many keys hit, or `None` if it was set aside; panics at a wrong value.
fn hits(image: &Image, truth: &[Option<u64>], what: &str) -> Option<usize> {
    let dir = folder();
    write_image(image, dir.path());
    let tier = Tier::over(open(&roomy(dir.path()), boot(), Device::default()), false);
    let hits = tier.check(truth, what);
    let set_aside = matches!(tier.dry.start(), Start::SetAside(_));
    tier.dry.close(Close::Dirty).unwrap();
    (!set_aside).then_some(hits)
}

/// Tries an image with each chosen byte of a file flipped, and cut there.
fn damage(chosen: &str, step: usize, mut judge: impl FnMut(&str, Option<usize>, usize)) {
    let (image, truth) = life();
    let all = hits(&image, &truth, "unharmed").expect("trusted");
    assert!(all > KEYS / 2);
    let names: Vec<String> = image
        .keys()
        .filter(|name| name.contains(chosen))
        .cloned()
        .collect();
    assert!(!names.is_empty(), "no {chosen} among {:?}", image.keys());
    for name in names {
        for at in (0..image[&name].len()).step_by(step) {
            let mut rotten = image.clone();
            rotten.get_mut(&name).unwrap()[at] ^= 1 << (at % 8);
            let what = format!("{name}, byte {at} flipped");
            judge(&what, hits(&rotten, &truth, &what), all);
            rotten.get_mut(&name).unwrap().truncate(at);
            let what = format!("{name}, cut at {at}");
            let _ = hits(&rotten, &truth, &what);
        }
    }
}

// A kill that cannot be read may be any kill: the folder is set aside, unless the byte means nothing.
#[test]
fn no_rot_of_the_kill_journal_brings_anything_back() {
    damage("journal-", stride(), |what, hits, all| {
        assert!(
            hits.is_none_or(|hits| hits == all),
            "{what}: {hits:?} of {all}"
        )
    });
}

// A rotten copy of the state is replaced by its twin.
#[test]
fn no_rot_of_the_state_changes_anything() {
    damage("state", stride(), |what, hits, all| {
        assert_eq!(hits, Some(all), "{what}")
    });
}

// Folded kills that cannot be read cost their segment.
#[test]
fn no_rot_of_folded_kills_brings_anything_back() {
    damage(".dead", stride(), |what, hits, _| {
        assert!(hits.is_some(), "{what}: only the segment goes")
    });
}

// Of a small segment, sealed or not, one flipped bit costs one item at most.
#[test]
fn a_flipped_bit_of_any_segment_costs_one_item_at_a_start() {
    damage(".data", SCANNED_EVERY * stride(), |what, hits, all| {
        assert!(
            hits.is_some_and(|hits| hits + 1 >= all),
            "{what}: {hits:?} of {all}"
        );
    });
}

// Every byte of a segment of 1 MiB: of what its rows say and what reads serve, at most one item is missing and
// nothing is wrong.
#[test]
fn a_flipped_bit_of_a_whole_segment_costs_one_item() {
    let dir = folder();
    let caller = Caller::open(&config(dir.path()));
    let mut number = 0;
    while caller.dry.segments().is_empty() {
        let _ = caller.set(&format!("key {number}"), &content(number, 3));
        caller.dry.flush_buffers();
        number += 1;
    }
    let core = &caller.dry.core;
    let segment = core.table.get(caller.dry.segments()[0]).unwrap();
    let mut visitor = Visitor::new(core.salt, core.seed);
    let mut rows = Vec::new();
    visitor.rows(&segment, &mut |row| rows.push(*row)).unwrap();
    let path = file_names(dir.path(), ".data").remove(0);
    let bytes = std::fs::read(&path).unwrap();
    assert!(
        rows.len() > 500 && bytes.len() > 1_000_000,
        "{} rows, {} bytes",
        rows.len(),
        bytes.len()
    );
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let by_hash: HashMap<u64, usize> = (0..number)
        .map(|number| (caller.hash(&format!("key {number}")), number))
        .collect();
    let mut buffer = Vec::new();
    for at in (0..bytes.len()).step_by(stride()) {
        file.write_all_at(&[bytes[at] ^ 1 << (at % 8)], at as u64)
            .unwrap();
        let index = rows.partition_point(|row| row.place.byte() <= at as u64);
        let within = index.checked_sub(1).map(|index| rows[index]);
        match within.filter(|row| (at as u64) < row.place.byte() + u64::from(row.bytes)) {
            Some(row) => {
                let number = by_hash[&row.hash];
                let key = format!("key {number}");
                let read = caller.dry.read(
                    row.place,
                    row.bytes as usize,
                    key.as_bytes(),
                    ReadMode::Blocking,
                    &mut buffer,
                );
                if let Read::Hit { facts, value, .. } = read {
                    assert_eq!(
                        (facts.version, &buffer[value]),
                        (row.version, content(number, 3).as_bytes()),
                        "byte {at}"
                    );
                }
            }
            None => assert_rows(&mut visitor, &segment, &rows, at),
        }
        file.write_all_at(&bytes[at..=at], at as u64).unwrap();
    }
}

/// With a table or the footer damaged at `at`, a visit finds all rows but one at least, and no other ones.
fn assert_rows(visitor: &mut Visitor, segment: &Segment, rows: &[Row], at: usize) {
    let mut found = 0;
    visitor
        .rows(segment, &mut |row| {
            let known = rows.binary_search_by_key(&row.place, |known| known.place);
            assert!(
                known.is_ok_and(|known| rows[known].version == row.version),
                "byte {at}"
            );
            found += 1;
        })
        .unwrap();
    assert!(
        found + 1 >= rows.len() && found <= rows.len(),
        "byte {at}: {found} of {} rows",
        rows.len()
    );
}
