//! A device that fails: from the k-th write or sync on, for every k, with an error or without room.

use rustix::io::Errno;

use super::cuts::{KEYS, Tier, folder, key_name, open, small};
use super::tape::{Failure, Tape};
use super::*;
use crate::dry::device::{Device, Kind};

/// Operations that a caller tries on each failing device.
const ACTS: usize = 120;
/// The failure comes at the latest with this write or sync.
const FAILS_UPTO: u64 = 40;

/// A tier on a device that notes, and can be told to fail.
fn taped(folder: &Path, durability: Durability) -> (Tier, Arc<Tape>) {
    let tape = Arc::new(Tape::default());
    let device = Device {
        tape: Some(Arc::clone(&tape)),
    };
    let tier = Tier::over(
        open(&small(folder, durability), boot(), device),
        durability == Durability::Power,
    );
    (tier, tape)
}

/// Works on a device that fails from the k-th change of a kind on; whether it came so far, and what the keys are.
fn work(tier: &Tier, tape: &Tape, failure: Failure) -> (bool, Vec<Option<u64>>) {
    let mut random = Random(failure.from * 2 + 1);
    let mut version = tier.dry.first_version();
    let mut truth = vec![None; KEYS];
    for act in 0..ACTS {
        if act == ACTS / 4 {
            tape.fail(Some(failure));
        }
        let key = random.below(KEYS);
        version += 1;
        if random.below(3) == 0 {
            tier.kill(key);
            truth[key] = None;
        } else {
            tier.set(key, version);
            truth[key] = Some(version);
        }
        if act % 4 == 0 {
            tier.dry.flush_buffers();
        }
        let known = tier.version_of(key);
        assert!(
            known.is_none() || known == truth[key],
            "{failure:?}: {} is {known:?}",
            key_name(key)
        );
    }
    (tape.failed() > 0, truth)
}

/// Reads every key after a start.
fn verify(folder: &Path, durability: Durability, truth: &[Option<u64>], what: &str) -> Start {
    let tier = Tier::over(
        open(&small(folder, durability), boot(), Device::default()),
        durability == Durability::Power,
    );
    tier.check(truth, what);
    tier.dry.start().clone()
}

// An error of the device fails the tier: it serves nothing, nothing waits for it, and no start believes the folder.
#[test]
fn an_error_of_any_write_or_sync_fails_the_tier_for_good() {
    for durability in [Durability::Process, Durability::Power] {
        for kind in [Kind::Write, Kind::Sync] {
            let mut failures = 0;
            for from in 1..=FAILS_UPTO {
                let dir = folder();
                let (tier, tape) = taped(dir.path(), durability);
                let failure = Failure {
                    kind,
                    from,
                    error: Errno::IO,
                };
                let (failed, truth) = work(&tier, &tape, failure);
                let what = format!("{durability:?}, {failure:?}");
                if !failed {
                    // Without `power` hardly anything is synced.
                    assert!(
                        kind == Kind::Sync && durability == Durability::Process || from > 10,
                        "{what} never came"
                    );
                    continue;
                }
                failures += 1;
                wait_until(|| tier.dry.tier_state() == TierState::Failed);
                assert!(
                    (0..KEYS).all(|key| tier.version_of(key).is_none()),
                    "{what}: a failed tier serves"
                );
                let _ = tier.dry.close(Close::Clean);
                drop(tier);
                let start = verify(dir.path(), durability, &truth, &what);
                assert!(matches!(start, Start::SetAside(_)), "{what}: {start:?}");
            }
            println!("{durability:?}, {kind:?}: {failures} failures");
        }
    }
}

// What a loss of power takes from the page cache must not have been given out: a CAS unique would mean two values.
#[test]
fn versions_are_reserved_on_the_device() {
    for durability in [Durability::Process, Durability::Power] {
        let dir = folder();
        let (tier, tape) = taped(dir.path(), durability);
        tier.dry.reserve_versions(1 << 50).unwrap();
        tape.fail(Some(Failure {
            kind: Kind::Sync,
            from: 1,
            error: Errno::IO,
        }));
        assert!(
            tier.dry.reserve_versions(1 << 51).is_err(),
            "{durability:?}"
        );
        assert_eq!(tier.dry.tier_state(), TierState::Failed);
    }
}

// A full disk pauses the tier: nothing new is kept, nothing old comes back, and room brings it back by itself.
#[test]
fn a_full_disk_pauses_the_tier_until_there_is_room() {
    for durability in [Durability::Process, Durability::Power] {
        for from in 1..=10 {
            let dir = folder();
            let (tier, tape) = taped(dir.path(), durability);
            let failure = Failure {
                kind: Kind::Write,
                from,
                error: Errno::NOSPC,
            };
            let (failed, truth) = work(&tier, &tape, failure);
            let what = format!("{durability:?}, {failure:?}");
            assert!(failed, "{what} never came");
            assert_ne!(tier.dry.tier_state(), TierState::Failed, "{what}");
            tier.check(&truth, &what);
            tape.fail(None);
            wait_until(|| tier.dry.tier_state() == TierState::Ok && tier.dry.queue_bytes() == 0);
            tier.dry.close(Close::Dirty).unwrap();
            drop(tier);
            let start = verify(dir.path(), durability, &truth, &what);
            assert_eq!(start, Start::Recovered, "{what}");
        }
    }
}
