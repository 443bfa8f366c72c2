//! Whatever rots, tears or is missing: a miss, never a wrong value.

use std::os::unix::fs::FileExt as _;

use super::*;

const KEYS: usize = 40;

/// A closed folder with a small segment, and the bytes of that.
fn small_segment(how: Close) -> (TempDir, PathBuf, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let caller = Caller::open(&config(dir.path()));
    for number in 0..KEYS {
        let _ = caller.set(&format!("key {number}"), &format!("value {number}"));
    }
    caller.written();
    caller.dry.close(how).unwrap();
    let file = file_names(dir.path(), ".data").remove(0);
    let bytes = std::fs::read(&file).unwrap();
    (dir, file, bytes)
}

/// How many of the keys hit; a hit must be the right value.
fn hits(folder: &Path) -> usize {
    let caller = Caller::open(&config(folder));
    let get = |number: usize| {
        caller
            .get(&format!("key {number}"))
            .inspect(|got| assert_eq!(*got, format!("value {number}")))
    };
    (0..KEYS).filter(|number| get(*number).is_some()).count()
}

// One flipped bit costs one item at most, wherever it is in a segment.
#[test]
fn a_flipped_bit_costs_one_item() {
    for how in [Close::Clean, Close::Dirty] {
        let (dir, file, bytes) = small_segment(how);
        for at in (0..bytes.len()).step_by(97) {
            let mut rotten = bytes.clone();
            rotten[at] ^= 1 << (at % 8);
            std::fs::write(&file, rotten).unwrap();
            let copy = crash(dir.path());
            assert!(hits(copy.path()) >= KEYS - 1, "byte {at}");
        }
    }
}

// Cut at any length, what lies before the cut is found.
#[test]
fn a_torn_segment_keeps_what_is_whole() {
    let (dir, file, bytes) = small_segment(Close::Dirty);
    let record_bytes = bytes.len() / KEYS;
    for length in (0..bytes.len()).step_by(61) {
        std::fs::write(&file, &bytes[..length]).unwrap();
        let copy = crash(dir.path());
        assert!(
            hits(copy.path()) >= (length / record_bytes).saturating_sub(1),
            "length {length}"
        );
    }
    // A footer cut off, or half of it, is as if it had never been.
    let (dir, file, bytes) = small_segment(Close::Clean);
    for cut in [1, 8, 20, 60] {
        std::fs::write(&file, &bytes[..bytes.len() - cut]).unwrap();
        assert_eq!(hits(crash(dir.path()).path()), KEYS, "cut {cut}");
    }
}

// A lost segment is a miss; a segment with garbage in front of it is scanned past that.
#[test]
fn missing_and_foreign_bytes_are_misses() {
    let (dir, file, bytes) = small_segment(Close::Dirty);
    let mut garbage = bytes.clone();
    garbage[..500].fill(0xff);
    std::fs::write(&file, &garbage).unwrap();
    assert!(hits(crash(dir.path()).path()) > KEYS - 15);
    // Another store's records are not ours, even at the same place.
    let (_other_dir, _, other) = small_segment(Close::Clean);
    std::fs::write(&file, &other).unwrap();
    assert_eq!(hits(crash(dir.path()).path()), 0);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(hits(crash(dir.path()).path()), 0);
}

// A kill that cannot be read may be any kill: nothing is believed then.
#[test]
fn a_damaged_journal_or_state_sets_aside() {
    for (name, at) in [
        ("journal-0", 4096),
        ("journal-0", 17),
        ("journal-3", 0),
        ("state", 5),
    ] {
        let (dir, _, _) = small_segment(Close::Dirty);
        let copy = crash(dir.path());
        let caller = Caller::open(&config(copy.path()));
        caller.delete("key 3");
        caller.dry.close(Close::Dirty).unwrap();
        let path = copy.path().join(name);
        let file = std::fs::File::options()
            .write(true)
            .read(true)
            .open(&path)
            .unwrap();
        let copies = if name == "state" {
            vec![at, at + 2048]
        } else {
            vec![at]
        };
        for at in copies {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 4], at).unwrap();
        }
        let again = Caller::open(&config(copy.path()));
        assert!(
            matches!(again.dry.start(), Start::SetAside(_)),
            "{name} at {at}"
        );
        assert_eq!(again.get("key 3"), None);
        let _ = again.set("key 3", "a new start");
        assert_eq!(again.get("key 3").unwrap(), "a new start");
    }
    let (dir, _, _) = small_segment(Close::Clean);
    std::fs::remove_file(dir.path().join("journal-2")).unwrap();
    assert!(matches!(
        Caller::open(&config(dir.path())).dry.start(),
        Start::SetAside(_)
    ));
}

// A damaged .dead file costs its segment, not the store.
#[test]
fn a_damaged_dead_file_frees_its_segment() {
    let (dir, _, _) = small_segment(Close::Clean);
    let caller = Caller::open(&config(dir.path()));
    caller.delete("key 3");
    caller.dry.close(Close::Clean).unwrap();
    assert_eq!(hits(dir.path()), KEYS - 1); // That start has folded the kill.
    let dead = file_names(dir.path(), ".dead").remove(0);
    let mut bytes = std::fs::read(&dead).unwrap();
    bytes[16] ^= 1;
    std::fs::write(&dead, bytes).unwrap();
    let caller = Caller::open(&config(dir.path()));
    assert_eq!(
        (caller.report.rows, caller.dry.start()),
        (0, &Start::Recovered)
    );
    wait_until(|| file_names(dir.path(), ".data").is_empty());
}

// A read meets rot that came after the start: a counted miss.
#[test]
fn rot_while_running_is_a_miss() {
    let (dir, file, bytes) = small_segment(Close::Clean);
    let caller = Caller::open(&config(dir.path()));
    let handle = std::fs::File::options().write(true).open(&file).unwrap();
    handle.write_all_at(&[bytes[47] ^ 1], 47).unwrap();
    assert_eq!((caller.get("key 0"), caller.dry.stats().corrupt), (None, 1));
    assert!(caller.get("key 1").is_some());
    // Lengths that reach beyond the segment are rot as well.
    handle.write_all_at(&[0xff; 4], 16).unwrap();
    assert_eq!(caller.get("key 0"), None);
    handle.set_len(30).unwrap();
    assert_eq!((caller.get("key 0"), caller.get("key 9")), (None, None));
}
