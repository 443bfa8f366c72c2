//! What a restart brings back, and what it must not.

use super::*;

// Reads come from the buffer, then from the file, cached or not.
#[test]
fn records_can_be_read_at_once_and_later() {
    let dir = tempfile::tempdir().unwrap();
    let caller = Caller::open(&config(dir.path()));
    assert_eq!(*caller.dry.start(), Start::New);
    for number in 0..300 {
        assert!(matches!(
            caller.set(&format!("key {number}"), &value(number)),
            Append::Done(_)
        ));
        assert_eq!(caller.get(&format!("key {number}")).unwrap(), value(number));
    }
    caller.written();
    for number in 0..300 {
        assert_eq!(caller.get(&format!("key {number}")).unwrap(), value(number));
    }
    let (place, _) = caller.slots.lock()[&caller.hash("key 7")];
    let mut buffer = Vec::new();
    let read = caller
        .dry
        .read(place, 0, b"key 8", ReadMode::Blocking, &mut buffer);
    assert!(matches!(read, Read::OtherKey));
    // A hint that is too small costs a second read, nothing else.
    let read = caller
        .dry
        .read(place, 1, b"key 7", ReadMode::Blocking, &mut buffer);
    assert!(matches!(read, Read::Hit { .. }));
    let read = caller
        .dry
        .read(place, 0, b"key 7", ReadMode::Cached, &mut buffer);
    assert!(matches!(read, Read::Hit { .. } | Read::WouldBlock));
    assert_eq!(
        caller.dry.record_version(place),
        Some(caller.dry.first_version() + 7)
    );
    let far = Place {
        segment: 999,
        offset: 0,
    };
    assert!(matches!(
        caller
            .dry
            .read(far, 0, b"key 7", ReadMode::Blocking, &mut buffer),
        Read::Gone
    ));
}

#[test]
fn a_refused_record_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let caller = Caller::open(&config(dir.path()));
    let facts = Facts {
        version: 1,
        ..Facts::default()
    };
    let nowhere = Some(Place {
        segment: 77,
        offset: 0,
    });
    let refused = append(
        &caller.dry,
        &caller.slots,
        5,
        &facts,
        b"refused",
        b"value",
        nowhere,
    );
    assert_eq!(refused, Append::Rejected);
    assert!(matches!(
        caller.set("taken", "value"),
        Append::Done(Place {
            segment: 1,
            offset: 0
        })
    ));
    caller.written();
    let caller = Caller::open(&config(crash(dir.path()).path()));
    assert_eq!(
        (caller.report.rows, caller.get("taken")),
        (1, Some("value".into()))
    );
}

// Written records survive kill -9, killed ones stay dead, and buffered ones are just gone.
#[test]
fn a_crash_brings_back_the_survivors_only() {
    let dir = tempfile::tempdir().unwrap();
    let caller = Caller::open(&config(dir.path()));
    for number in 0..5000 {
        let _ = caller.set(&format!("key {number}"), &value(number));
    }
    caller.written();
    for number in (0..5000).step_by(2) {
        caller.delete(&format!("key {number}"));
    }
    let _ = caller.set("key 1", "newer, but only in a buffer");
    wait_until(|| caller.dry.stats().journal_bytes < 4096); // A copy of a folder is not made at one moment.
    let copy = crash(dir.path());
    let again = Caller::open(&config(copy.path()));
    assert_eq!(*again.dry.start(), Start::Recovered);
    assert_eq!(again.get("key 1"), None);
    for number in 2..5000 {
        let expected = (number % 2 == 1).then(|| value(number));
        assert_eq!(
            again.get(&format!("key {number}")),
            expected,
            "key {number}"
        );
    }
    assert_eq!(again.report.rows, 2499);
    let (live, counted) = (again.report.bytes, again.dry.stats().live_bytes);
    assert!(
        live.abs_diff(counted) < live / 20,
        "{counted} bytes counted of {live}"
    );
    assert!(again.dry.first_version() > caller.dry.first_version());
    // The kills are folded now, and stay so over further crashes.
    let third = Caller::open(&config(crash(copy.path()).path()));
    assert_eq!(third.report.rows, 2499);
}

// The journal is small here, so that it turns many times: the kills are in .dead files then.
#[test]
fn folded_kills_stay_dead() {
    let dir = tempfile::tempdir().unwrap();
    let caller = Caller::open(&DryConfig {
        journal_size: ByteSize(512),
        ..config(dir.path())
    });
    for number in 0..3000 {
        let _ = caller.set(&format!("key {number}"), "value");
    }
    caller.written();
    for number in 0..2990 {
        caller.delete(&format!("key {number}"));
    }
    wait_until(|| caller.dry.stats().journal_bytes < 512);
    assert!(caller.dry.stats().journal_folds >= 45);
    let again = Caller::open(&config(crash(dir.path()).path()));
    assert_eq!(again.report.rows, 10);
    assert!((2990..3000).all(|number| again.get(&format!("key {number}")).is_some()));
}

#[test]
fn a_clean_stop_keeps_everything_over_a_reboot() {
    let dir = tempfile::tempdir().unwrap();
    let caller = Caller::open(&config(dir.path()));
    for number in 0..2000 {
        let _ = caller.set(&format!("key {number}"), &value(number));
    }
    caller.delete("key 5");
    caller.dry.close(Close::Clean).unwrap();
    assert_eq!(caller.set("key 6", "too late"), Append::Failed);
    let rebooted = Boot {
        id: [8, 8],
        time_us: 5,
    };
    let dry = open_as(
        &config(dir.path()),
        Arc::new(Clock::manual(NOW)),
        rebooted,
        &|store| store,
    )
    .unwrap();
    assert_eq!(*dry.start(), Start::Clean);
    let again = Caller::over(dry);
    // Key 6 was killed after the close: a miss is allowed, the old value would not be.
    assert_eq!(
        (again.report.rows, again.report.scanned, again.get("key 6")),
        (1998, 0, None)
    );
    assert_eq!(again.get("key 1999").unwrap(), value(1999));
}

// In process mode a reboot loses kills that were in the page cache, so nothing is believed.
#[test]
fn a_reboot_without_a_clean_stop_starts_empty() {
    let dir = tempfile::tempdir().unwrap();
    let caller = Caller::open(&config(dir.path()));
    let _ = caller.set("key", "value");
    caller.written();
    let copy = crash(dir.path());
    let rebooted = Boot {
        id: [8, 8],
        time_us: 5,
    };
    let open = |config: &DryConfig| {
        open_as(config, Arc::new(Clock::manual(NOW)), rebooted, &|store| {
            store
        })
        .unwrap()
    };
    let again = Caller::over(open(&config(copy.path())));
    assert!(matches!(again.dry.start(), Start::SetAside(why) if why.contains("restarted")));
    assert_eq!((again.report.rows, again.get("key")), (0, None));
    // The trash goes in the background.
    wait_until(|| file_names(copy.path(), "trash-1").is_empty());
    drop(again);
    // In power mode every kill was on the device.
    let dir = tempfile::tempdir().unwrap();
    let power = |folder: &Path| DryConfig {
        durability: Durability::Power,
        ..config(folder)
    };
    let caller = Caller::open(&power(dir.path()));
    let _ = caller.set("key", "value");
    let _ = caller.set("dead", "value");
    let (place, _) = caller.slots.lock()[&caller.hash("dead")];
    caller.written();
    caller.dry.commit_kill(place).unwrap();
    let copy = crash(dir.path());
    let again = Caller::over(open(&power(copy.path())));
    assert_eq!(*again.dry.start(), Start::Recovered);
    assert_eq!(
        (again.get("key"), again.get("dead")),
        (Some("value".into()), None)
    );
}

#[test]
fn a_reset_starts_empty_with_higher_versions() {
    let dir = tempfile::tempdir().unwrap();
    let caller = Caller::open(&config(dir.path()));
    caller.dry.reserve_versions(u64::MAX / 2).unwrap();
    let _ = caller.set("key", "value");
    caller.dry.close(Close::Clean).unwrap();
    let again = Caller::open(&DryConfig {
        reset: true,
        ..config(dir.path())
    });
    assert!(matches!(again.dry.start(), Start::SetAside(_)));
    assert_eq!(again.report.rows, 0);
    assert_eq!(again.dry.first_version(), u64::MAX / 2 + 1);
    assert_ne!(again.dry.seed(), caller.dry.seed());
}

// A flush holds for all segments before it and for late records with an old version.
#[test]
fn flushed_records_stay_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let caller = Caller::open(&config(dir.path()));
    let _ = caller.set("before", "value");
    let flush_version = caller.version.fetch_add(1, SeqCst);
    // Given out before the flush's version and used after it, but in a segment before it.
    let ahead = Facts {
        version: flush_version + 1000,
        ..Facts::default()
    };
    let _ = append(
        &caller.dry,
        &caller.slots,
        caller.hash("ahead"),
        &ahead,
        b"ahead",
        b"value",
        None,
    );
    caller.dry.set_flush_deadline(Some(NOW + 5)).unwrap();
    assert_eq!(caller.dry.flush_deadline(), Some(NOW + 5));
    let first = caller.dry.flush(flush_version).unwrap();
    assert_eq!(
        (caller.dry.flush_version(), caller.dry.flush_deadline()),
        (flush_version, None)
    );
    assert_eq!(caller.get("before"), None);
    let Append::Done(place) = caller.set("after", "value") else {
        panic!("not appended")
    };
    assert!(place.segment >= first);
    let late = Facts {
        version: flush_version,
        ..Facts::default()
    };
    let hash = caller.hash("late");
    let _ = append(
        &caller.dry,
        &caller.slots,
        hash,
        &late,
        b"late",
        b"value",
        None,
    );
    caller.written();
    let copy = crash(dir.path());
    wait_until(|| file_names(dir.path(), "seg-1.data").is_empty());
    drop(Caller::open(&config(crash(dir.path()).path())));
    let again = Caller::open(&config(copy.path()));
    assert_eq!(
        (again.get("before"), again.get("ahead"), again.get("late")),
        (None, None, None)
    );
    assert_eq!(
        (again.report.rows, again.get("after")),
        (1, Some("value".into()))
    );
    assert_eq!(again.dry.flush_version(), flush_version);
}

#[test]
fn a_flush_that_came_due_while_down_is_applied() {
    let dir = tempfile::tempdir().unwrap();
    let caller = Caller::open(&config(dir.path()));
    let _ = caller.set("key", "value");
    caller.dry.set_flush_deadline(Some(NOW + 100)).unwrap();
    caller.dry.close(Close::Clean).unwrap();
    for (now, rows) in [(NOW + 99, 1), (NOW + 100, 0)] {
        let clock = Arc::new(Clock::manual(now));
        let again =
            Caller::over(open_as(&config(dir.path()), clock, boot(), &|store| store).unwrap());
        assert_eq!(again.report.rows, rows);
        assert_eq!(again.dry.flush_deadline(), (rows == 1).then_some(NOW + 100));
        assert!(again.dry.first_version() > again.dry.flush_version());
    }
}

// By a clock that went back it would come late: it is applied at once, and again after the time that was left of it.
#[test]
fn a_delayed_flush_does_not_wait_for_a_clock_that_went_back() {
    for reset in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let caller = Caller::open(&config(dir.path()));
        let _ = caller.set("key", "value");
        caller.dry.set_flush_deadline(Some(NOW + 100)).unwrap();
        caller.dry.close(Close::Clean).unwrap();
        let config = DryConfig {
            reset,
            ..config(dir.path())
        };
        let clock = Arc::new(Clock::manual(NOW - 3600));
        let again = Caller::over(open_as(&config, clock, boot(), &|store| store).unwrap());
        assert_eq!(again.report.rows, 0);
        assert_eq!(again.dry.flush_deadline(), Some(NOW - 3600 + 100));
        assert!(again.dry.first_version() > again.dry.flush_version());
    }
}

// What was left out as expired, or because the clock went back, never returns.
#[test]
fn expired_records_stay_out_whatever_the_clock_does() {
    let dir = tempfile::tempdir().unwrap();
    let caller = Caller::open(&config(dir.path()));
    let _ = caller.set_until("soon", "value", NOW + 10);
    let _ = caller.set_until("later", "value", NOW + 1000);
    let _ = caller.set("never", "value");
    caller.dry.close(Close::Clean).unwrap();
    let found = |now: UnixSeconds| {
        let clock = Arc::new(Clock::manual(now));
        let again =
            Caller::over(open_as(&config(dir.path()), clock, boot(), &|store| store).unwrap());
        ["soon", "later", "never"].map(|key| again.get(key).is_some())
    };
    assert_eq!(found(NOW + 9), [true, true, true]);
    assert_eq!(found(NOW + 10), [false, true, true]);
    assert_eq!(found(NOW + 6), [false, true, true], "a little back");
    assert_eq!(found(NOW - 100), [false, false, true], "far back");
    assert_eq!(found(NOW - 90), [false, false, true], "and on from there");
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let caller = Caller::open(&config(dir.path()));
    let open = || {
        Dry::open(&config(dir.path()), Arc::new(Clock::manual(NOW)))
            .err()
            .map(|error| error.kind())
    };
    assert_eq!(open(), Some(ErrorKind::Locked));
    caller.dry.close(Close::Dirty).unwrap();
    assert_eq!(open(), None);
}
