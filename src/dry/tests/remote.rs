//! A tier whose segments are in a remote store, here one in memory.

use super::super::store::memory::MemoryRemote;
use super::super::store::remote::Remote;
use super::*;

pub(super) fn remote_config(folder: &Path) -> DryConfig {
    DryConfig {
        size: ByteSize::mib(64),
        spool_size: ByteSize::mib(4),
        ..config(folder)
    }
}

pub(super) fn open(config: &DryConfig, remote: &Arc<MemoryRemote>) -> Caller {
    open_in(config, remote, boot())
}

pub(super) fn open_in(config: &DryConfig, remote: &Arc<MemoryRemote>, boot: Boot) -> Caller {
    Caller::over(try_open(config, remote, boot).unwrap())
}

pub(super) fn try_open(
    config: &DryConfig,
    remote: &Arc<MemoryRemote>,
    boot: Boot,
) -> Result<Dry, DryError> {
    let machine = Machine {
        boot,
        remote: Some(Arc::clone(remote) as Arc<dyn Remote>),
        ..Machine::current()
    };
    Dry::open_on(config, Arc::new(Clock::manual(NOW)), &machine)
}

pub(super) fn long(number: usize) -> String {
    format!("value {number} ").repeat(100)
}

pub(super) fn set_all(caller: &Caller, numbers: std::ops::Range<usize>) {
    for number in numbers {
        while let Append::Busy | Append::Behind =
            caller.set(&format!("key {number}"), &long(number))
        {
            caller.dry.wait_for_room(Duration::from_secs(5));
        }
    }
}

pub(super) fn check_all(caller: &Caller, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let found = caller.get(&format!("key {number}"));
        assert_eq!(found, Some(long(number)), "key {number}");
    }
}

pub(super) fn remote_stats(caller: &Caller) -> RemoteStats {
    caller.dry.stats().remote.unwrap()
}

pub(super) fn uploaded(caller: &Caller) {
    caller.written();
    wait_until(|| remote_stats(caller).backlog_segments <= 1);
}

/// A tier with these items, whose complete segments are in its store.
pub(super) fn filled(
    folder: &Path,
    numbers: std::ops::Range<usize>,
) -> (Arc<MemoryRemote>, Caller) {
    let remote = Arc::new(MemoryRemote::default());
    let caller = open(&remote_config(folder), &remote);
    set_all(&caller, numbers);
    uploaded(&caller);
    (remote, caller)
}

// The life of a segment: open here, complete there, its rows here; nothing of it is lost in between.
#[test]
fn complete_segments_move_to_the_remote_store_and_stay_readable() {
    let dir = tempfile::tempdir().unwrap();
    let (remote, caller) = filled(dir.path(), 0..5000);
    let stats = remote_stats(&caller);
    assert!(stats.puts >= 4, "{stats:?}");
    assert!(file_names(dir.path(), ".data").len() <= 1);
    check_all(&caller, 0..5000);
    assert!(remote_stats(&caller).gets > 3000);
    caller.delete("key 7");
    caller.dry.close(Close::Clean).unwrap();
    drop(caller);
    assert!(file_names(dir.path(), ".data").is_empty());

    let again = open(&remote_config(dir.path()), &remote);
    assert_eq!(*again.dry.start(), Start::Clean);
    assert_eq!((again.report.scanned, again.get("key 7")), (0, None));
    check_all(&again, 8..5000);
}

// A crash may leave a segment without a footer: it is completed, uploaded, and not scanned again.
#[test]
fn a_crash_loses_nothing_that_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let remote = Arc::new(MemoryRemote::default());
    let caller = open(&remote_config(dir.path()), &remote);
    set_all(&caller, 0..3000);
    // A copy of the folder is no snapshot: nothing may move while it is made.
    uploaded(&caller);
    caller.delete("key 5");
    let crashed = crash(dir.path());
    drop(caller);
    let again = open(&remote_config(crashed.path()), &remote);
    assert_eq!(*again.dry.start(), Start::Recovered);
    assert_eq!(again.report.scanned, 1);
    check_all(&again, 6..3000);
    assert_eq!(again.get("key 5"), None);
    wait_until(|| remote_stats(&again).backlog_segments == 0);
    check_all(&again, 6..3000);
    let crashed_again = crash(crashed.path());
    drop(again);
    let third = open(&remote_config(crashed_again.path()), &remote);
    assert_eq!(third.report.scanned, 0);
    check_all(&third, 6..3000);
    assert_eq!(third.get("key 5"), None);
}

#[test]
fn a_store_that_is_down_costs_demotions_and_misses_but_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let (remote, caller) = filled(dir.path(), 0..2000);
    remote.down.store(true, SeqCst);
    let mut number = 2000;
    while caller.set(&format!("key {number}"), &long(number)) != Append::Behind {
        number += 1;
        assert!(number < 20_000, "the spool has a bound");
        wait_until(|| caller.dry.queue_bytes() < 1 << 20);
    }
    wait_until(|| caller.dry.tier_state() == TierState::Degraded);
    assert_eq!(caller.get("key 1"), None, "what is remote is a miss");
    check_all(&caller, number - 100..number);
    remote.down.store(false, SeqCst);
    uploaded(&caller);
    wait_until(|| caller.dry.tier_state() == TierState::Ok);
    check_all(&caller, 0..number);
    assert!(caller.dry.stats().behind > 0);
}

// A store that takes nothing more is degraded too, although it is read as ever.
#[test]
fn a_store_that_takes_nothing_is_degraded_and_still_read() {
    let dir = tempfile::tempdir().unwrap();
    let (remote, caller) = filled(dir.path(), 0..2000);
    remote.unwritable.store(true, SeqCst);
    set_all(&caller, 2000..4000);
    wait_until(|| caller.dry.tier_state() == TierState::Degraded);
    check_all(&caller, 0..4000);
    remote.unwritable.store(false, SeqCst);
    uploaded(&caller);
    wait_until(|| caller.dry.tier_state() == TierState::Ok);
    check_all(&caller, 0..4000);
}

// Some gets wait for a store that does not answer, not each of a thousand; until it does it is asked in the background.
#[test]
fn reads_of_a_degraded_store_are_misses_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (remote, caller) = filled(dir.path(), 0..2000);
    remote.down.store(true, SeqCst);
    wait_until(|| caller.get("key 1").is_some() || caller.dry.tier_state() == TierState::Degraded);
    let before = caller.dry.stats().io_errors;
    for number in 0..1000 {
        assert_eq!(caller.get(&format!("key {number}")), None);
    }
    let failed = caller.dry.stats().io_errors - before;
    let tried = remote_stats(&caller).errors;
    assert!(tried < failed, "{tried} of {failed} reads tried the store");
    remote.down.store(false, SeqCst);
    wait_until(|| caller.get("key 1").is_some());
    assert_eq!(caller.dry.tier_state(), TierState::Ok);
    check_all(&caller, 0..1000);
}

// An answer that was lost does not tell whether the object exists: the same bytes go there again.
#[test]
fn an_upload_without_an_answer_is_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let remote = Arc::new(MemoryRemote::default());
    remote.ambiguous_put.store(true, SeqCst);
    let caller = open(&remote_config(dir.path()), &remote);
    set_all(&caller, 0..2000);
    uploaded(&caller);
    assert!(remote_stats(&caller).errors >= 1);
    check_all(&caller, 0..2000);
}

#[test]
fn a_bit_flipped_on_the_way_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let (remote, caller) = filled(dir.path(), 0..2000);
    for number in 0..20 {
        remote.flip_bit.store(true, SeqCst);
        check_all(&caller, number..number + 1);
    }
    assert_eq!(caller.dry.stats().corrupt, 0);
}

// An object that somebody deleted is lost; its records are misses and stay so.
#[test]
fn a_missing_object_is_a_miss() {
    let dir = tempfile::tempdir().unwrap();
    let (remote, caller) = filled(dir.path(), 0..2000);
    let name = remote.names().into_iter().find(|name| name.contains('-'));
    remote.delete(&name.unwrap()).unwrap();
    assert_eq!(caller.get("key 1"), None);
    assert_eq!(caller.dry.tier_state(), TierState::Ok);
}

#[test]
fn neighbours_are_fetched_with_one_request() {
    let dir = tempfile::tempdir().unwrap();
    let (_, caller) = filled(dir.path(), 0..2000);
    let before = remote_stats(&caller).gets;
    let (first, _) = caller.slots.lock()[&caller.hash("key 10")];
    caller.dry.prefetch(first, 200_000);
    check_all(&caller, 10..100);
    let stats = remote_stats(&caller);
    assert_eq!(
        (stats.gets - before, stats.recent_hits),
        (1, 90),
        "{stats:?}"
    );
}

// Reclaim frees whole objects, and what nothing names goes once it is old enough.
#[test]
fn freed_segments_leave_no_object_behind() {
    let dir = tempfile::tempdir().unwrap();
    let remote = Arc::new(MemoryRemote::default());
    let caller = open(
        &DryConfig {
            size: ByteSize::mib(8),
            ..remote_config(dir.path())
        },
        &remote,
    );
    set_all(&caller, 0..20_000);
    uploaded(&caller);
    let segments = || {
        remote
            .names()
            .iter()
            .filter(|name| name.contains('-'))
            .count()
    };
    wait_until(|| segments() <= 8);
    assert!(remote_stats(&caller).deletes > 5);
    check_all(&caller, 19_900..20_000);
}

// After a clean stop whoever comes next is warm, with all that was killed still dead.
#[test]
fn another_machine_takes_over_what_was_left_cleanly() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (remote, first) = filled(dirs[0].path(), 0..3000);
    first.delete("key 5");
    set_all(&first, 6..7);
    first.dry.close(Close::Clean).unwrap();

    let elsewhere = Boot {
        id: [9, 9],
        time_us: 7,
    };
    let second = open_in(&remote_config(dirs[1].path()), &remote, elsewhere);
    assert_eq!(*second.dry.start(), Start::Adopted);
    check_all(&second, 6..3000);
    assert_eq!(second.get("key 5"), None);
    second.delete("key 6");
    second.dry.close(Close::Clean).unwrap();

    // The first one's spool has not heard of that, and is taken for what it is.
    let third = open(&remote_config(dirs[0].path()), &remote);
    assert_eq!(*third.dry.start(), Start::Adopted);
    assert_eq!((third.get("key 5"), third.get("key 6")), (None, None));
    check_all(&third, 7..3000);
}

// Without a clean stop nobody knows what was deleted last: the next one begins empty, and the one before
// does not go on where it was.
#[test]
fn nobody_is_warm_after_a_crash_elsewhere() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (remote, first) = filled(dirs[0].path(), 0..3000);
    first.dry.close(Close::Dirty).unwrap();
    let second = open(&remote_config(dirs[1].path()), &remote);
    let taken = |start: &Start| matches!(start, Start::SetAside(why) if why.contains("cleanly"));
    assert!(taken(second.dry.start()), "{:?}", second.dry.start());
    assert_eq!(second.get("key 1"), None);
    second.dry.close(Close::Dirty).unwrap();
    let third = open(&remote_config(dirs[0].path()), &remote);
    assert!(taken(third.dry.start()), "{:?}", third.dry.start());
}

// Uploads that nobody confirmed and stores that were given up leave objects that nothing names.
#[test]
fn objects_that_nothing_names_are_deleted_once_they_are_old() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (remote, first) = filled(dirs[0].path(), 0..3000);
    first.dry.close(Close::Dirty).unwrap();
    assert!(remote.names().len() > 2);
    // Another server's in a folder below, and what others keep beside it.
    let others = [
        "1/0123456789abcdef-000000001",
        "1/manifest",
        "0123456789abcdef-1",
        "report-2026",
    ];
    for name in others {
        remote.replace(name, vec![1], None).unwrap();
    }
    let config = DryConfig {
        orphan_age: crate::units::Span::ms(1),
        ..remote_config(dirs[1].path())
    };
    let second = open(&config, &remote);
    let mut left = others.to_vec();
    left.push("manifest");
    left.sort_unstable();
    wait_until(|| remote.names() == left);
    assert!(remote_stats(&second).orphans > 1);
}

#[test]
fn a_store_that_does_not_answer_is_an_error_at_start_unless_it_is_optional() {
    let dir = tempfile::tempdir().unwrap();
    let remote = Arc::new(MemoryRemote::default());
    let config = remote_config(dir.path());
    let first = open(&config, &remote);
    set_all(&first, 0..2000);
    first.dry.close(Close::Clean).unwrap();
    remote.down.store(true, SeqCst);
    let refused = try_open(&config, &remote, boot());
    assert!(refused.is_err_and(|error| error.kind() == ErrorKind::Remote));

    let optional = DryConfig {
        optional: true,
        ..config
    };
    let second = open(&optional, &remote);
    assert!(matches!(second.dry.start(), Start::SetAside(_)));
    set_all(&second, 0..2000);
    remote.down.store(false, SeqCst);
    uploaded(&second);
    check_all(&second, 0..2000);
    second.dry.close(Close::Clean).unwrap();
    let third = open(&optional, &remote);
    assert_eq!(*third.dry.start(), Start::Clean);
    check_all(&third, 0..2000);
}

// A run without the remote store kills nothing in it: what is there must not come back afterwards.
#[test]
fn runs_on_the_spool_alone_end_what_is_remote() {
    let elsewhere = Boot {
        id: [9, 9],
        time_us: 7,
    };
    for (runs, close, boot) in [
        (1, Close::Clean, boot()),
        (2, Close::Clean, boot()),
        (1, Close::Dirty, elsewhere),
        (2, Close::Dirty, elsewhere),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (remote, first) = filled(dir.path(), 0..3000);
        let config = remote_config(dir.path());
        first.dry.close(Close::Clean).unwrap();
        drop(first);
        for run in 0..runs {
            let local = Caller::open(&config);
            let _ = local.set("key 1", &format!("newer {run}"));
            local.dry.close(close).unwrap();
        }
        let again = open_in(&config, &remote, boot);
        assert_ne!(again.get("key 1"), Some(long(1)), "{runs} {close:?}");
        assert_eq!(again.get("key 2"), None, "{runs} {close:?}");
    }
}

// A run that the store could not be told of has overwritten what is there, whether its spool is still there or not.
#[test]
fn runs_without_an_answer_of_the_store_end_what_is_remote() {
    for close in [Close::Clean, Close::Dirty] {
        for lost in [false, true] {
            let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
            let (remote, first) = filled(dirs[0].path(), 0..3000);
            first.dry.close(Close::Clean).unwrap();
            drop(first);
            let optional = |number: usize| DryConfig {
                optional: true,
                ..remote_config(dirs[number].path())
            };
            remote.down.store(true, SeqCst);
            let second = open(&optional(0), &remote);
            let _ = second.set("key 1", "newer");
            // What waits for the store stays in the spool.
            let _ = second.dry.close(close);
            drop(second);
            remote.down.store(false, SeqCst);
            let third = open(&optional(usize::from(lost)), &remote);
            assert_ne!(third.get("key 1"), Some(long(1)), "{close:?} {lost}");
            assert_eq!(third.get("key 2"), None, "{close:?} {lost}");
            // From here on the manifest is of this spool's runs again.
            set_all(&third, 0..3000);
            uploaded(&third);
            third.dry.close(Close::Clean).unwrap();
            drop(third);
            let dir = tempfile::tempdir().unwrap();
            let fourth = open(&remote_config(dir.path()), &remote);
            assert_eq!(*fourth.dry.start(), Start::Adopted, "{close:?} {lost}");
            check_all(&fourth, 0..3000);
        }
    }
}
