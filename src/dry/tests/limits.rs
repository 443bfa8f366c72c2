//! Full queues, full disks, full tiers, broken devices.

use super::*;

/// About a twentieth of a segment.
fn large_value(number: usize) -> String {
    format!("{number:08}").repeat(6000)
}

#[test]
fn records_of_every_size_find_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let caller = Caller::open(&DryConfig {
        queue_bytes: 64 << 10,
        ..config(dir.path())
    });
    let sizes = [0, 1, 4095, 70_000, 300_000, (1 << 20) - 1000];
    for (number, size) in sizes.into_iter().enumerate() {
        let set = || caller.set(&format!("key {number}"), &"x".repeat(size));
        wait_until(|| matches!(set(), Append::Done(_)));
    }
    assert_eq!(caller.set("huge", &"x".repeat(1 << 20)), Append::TooLarge);
    for (number, size) in sizes.into_iter().enumerate() {
        assert_eq!(caller.get(&format!("key {number}")).unwrap().len(), size);
    }
    caller.dry.close(Close::Clean).unwrap();
    let again = Caller::open(&config(dir.path()));
    for (number, size) in sizes.into_iter().enumerate() {
        assert_eq!(again.get(&format!("key {number}")).unwrap().len(), size);
    }
}

// A device that does not write fills the queue to its bound and no further; then it resumes.
#[test]
fn a_full_disk_pauses_the_tier_until_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let (caller, fault) = faulty(&DryConfig {
        queue_bytes: 256 << 10,
        ..config(dir.path())
    });
    fault.store(Fault::DiskFull as u8, SeqCst);
    let mut kept = 0;
    let refused = loop {
        match caller.set(&format!("key {kept}"), &value(kept)) {
            Append::Done(_) => kept += 1,
            refused => break refused,
        }
    };
    assert!(matches!(refused, Append::Paused | Append::Busy));
    assert!(caller.dry.queue_bytes() <= 256 << 10);
    wait_until(|| caller.dry.tier_state() == TierState::Paused);
    assert_eq!(caller.set("while full", "value"), Append::Paused);
    assert!(!caller.dry.wait_for_room(Duration::ZERO));
    assert_eq!(caller.get("key 0").unwrap(), value(0), "reads go on");
    caller.delete("key 1");
    fault.store(Fault::None as u8, SeqCst);
    wait_until(|| caller.dry.tier_state() == TierState::Ok);
    assert!(caller.dry.wait_for_room(Duration::from_secs(20)));
    assert!(matches!(caller.set("afterwards", "value"), Append::Done(_)));
    caller.written();
    let again = Caller::open(&config(crash(dir.path()).path()));
    assert_eq!(
        (again.report.rows as usize, again.get("key 1")),
        (kept, None)
    );
    assert_eq!(again.get("afterwards").unwrap(), "value");
}

#[test]
fn a_slow_device_makes_the_queue_busy() {
    let dir = tempfile::tempdir().unwrap();
    let (caller, fault) = faulty(&DryConfig {
        queue_bytes: 64 << 10,
        ..config(dir.path())
    });
    fault.store(Fault::DiskFull as u8, SeqCst);
    // Before the writer thread has met the full disk the bound itself refuses.
    let mut last = Append::Failed;
    wait_until(|| {
        last = caller.set("key", &large_value(1)[..8000]);
        !matches!(last, Append::Done(_))
    });
    assert!(matches!(last, Append::Busy | Append::Paused));
    assert!(caller.dry.queue_bytes() <= 64 << 10);
}

#[test]
fn a_broken_device_fails_the_tier_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let (caller, fault) = faulty(&DryConfig {
        journal_size: ByteSize(512),
        ..config(dir.path())
    });
    let told = Arc::new(AtomicU8::new(0));
    let tell = Arc::clone(&told);
    caller.dry.set_on_failed(Box::new(move || {
        tell.fetch_add(1, SeqCst);
    }));
    let _ = caller.set("key", "value");
    caller.written();
    fault.store(Fault::Error as u8, SeqCst);
    let _ = caller.set("other", "value");
    caller.dry.flush_buffers();
    wait_until(|| told.load(SeqCst) == 1);
    assert_eq!(caller.dry.tier_state(), TierState::Failed);
    assert_eq!((caller.get("key"), caller.get("other")), (None, None));
    assert_eq!(caller.set("key", "value"), Append::Failed);
    assert!(file_names(dir.path(), ".data").is_empty());
    // Nobody folds the journal any more, and nobody waits for that.
    (0..1000).for_each(|offset| caller.dry.kill(Place { segment: 1, offset }));
    assert!(caller.dry.close(Close::Clean).is_err());
    // Even with the segments still there nobody would believe them.
    let again = Caller::open(&config(dir.path()));
    assert!(matches!(again.dry.start(), Start::SetAside(why) if why.contains("failed")));
}

// Three times the size limit: whole segments go, oldest first, and what is wanted is reinserted.
#[test]
fn the_size_limit_frees_whole_segments() {
    let dir = tempfile::tempdir().unwrap();
    let caller = Caller::open(&config(dir.path()));
    let freed: Arc<Mutex<Vec<u32>>> = Arc::default();
    let on_freed = Arc::clone(&freed);
    caller
        .dry
        .set_on_freed(Box::new(move |segment| on_freed.lock().push(segment)));
    let _ = caller.set("keep me", "value");
    for number in 0..500 {
        let key = format!("key {number}");
        wait_until(|| match caller.set(&key, &large_value(number)) {
            Append::Done(_) => true,
            refused => {
                assert_eq!(refused, Append::Busy);
                caller.dry.wait_for_room(Duration::from_secs(20));
                false
            }
        });
        assert!(caller.dry.stats().bytes_on_disk <= 8 << 20);
    }
    caller.written();
    assert!(caller.dry.stats().reclaimed >= 16);
    assert_eq!(freed.lock()[0], 1);
    assert_eq!(caller.get("keep me").unwrap(), "value");
    assert_eq!(caller.get("key 0"), None);
    assert_eq!(caller.get("key 499").unwrap(), large_value(499));
    // Every slot that is left can be read.
    let left = (0..500).filter(|number| {
        caller
            .slots
            .lock()
            .contains_key(&caller.hash(&format!("key {number}")))
    });
    assert!(
        left.filter(|number| caller.get(&format!("key {number}")) == Some(large_value(*number)))
            .count()
            >= 80
    );
    caller.dry.close(Close::Clean).unwrap();
    let rows = caller.slots.lock().len() as u64;
    let again = Caller::open(&config(dir.path()));
    assert_eq!(
        (again.report.rows, again.get("keep me")),
        (rows, Some("value".into()))
    );
}

#[test]
fn dead_unused_and_unwanted_segments_are_freed() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(Clock::manual(NOW));
    let caller = Caller::over(
        open_as(&config(dir.path()), Arc::clone(&clock), boot(), &|store| {
            store
        })
        .unwrap(),
    );
    for number in 0..70 {
        let _ = caller.set(&format!("key {number}"), &large_value(number));
    }
    caller.written();
    assert_eq!(file_names(dir.path(), ".data").len(), 4);
    // The first segment dies with its last record.
    for number in 0..25 {
        caller.delete(&format!("key {number}"));
    }
    wait_until(|| caller.dry.stats().reclaimed == 1);
    assert!(!dir.path().join("seg-1.data").exists() && !dir.path().join("seg-1.dead").exists());
    // One more because the index is full.
    caller.dry.reclaim_one();
    wait_until(|| caller.dry.stats().reclaimed == 2);
    assert!(caller.get("key 69").is_some());
    // The sealed rest because nobody has used it for a week.
    clock.set(NOW + 7 * 86_400 + 1);
    wait_until(|| caller.dry.stats().reclaimed == 3);
    assert!(
        caller.slots.lock().values().all(|slot| slot.0.segment == 4),
        "all others have left the index"
    );
}

// FREE is in the journal before the first record leaves: a crash right then brings none of them back.
#[test]
fn a_crash_while_a_segment_leaves_brings_nothing_back() {
    let dir = tempfile::tempdir().unwrap();
    let dry = open_as(
        &config(dir.path()),
        Arc::new(Clock::manual(NOW)),
        boot(),
        &|store| store,
    )
    .unwrap();
    let copies: Arc<Mutex<Vec<TempDir>>> = Arc::default();
    let (copy_to, folder) = (Arc::clone(&copies), dir.path().to_owned());
    dry.set_owner(Box::new(move |_| {
        let mut copies = copy_to.lock();
        if copies.is_empty() {
            copies.push(crash(&folder));
        }
    }));
    let caller = Caller::over(dry);
    for number in 0..30 {
        let _ = caller.set(&format!("key {number}"), &large_value(number));
    }
    caller.written();
    caller.dry.reclaim_one();
    wait_until(|| caller.dry.stats().reclaimed == 1);
    let copies = copies.lock();
    assert!(copies[0].path().join("seg-1.data").exists());
    let again = Caller::open(&config(copies[0].path()));
    assert!(again.slots.lock().values().all(|slot| slot.0.segment != 1));
    assert!(!copies[0].path().join("seg-1.data").exists());
}

#[test]
fn the_tracking_sees_every_sealed_row() {
    let dir = tempfile::tempdir().unwrap();
    let caller = Caller::open(&config(dir.path()));
    let seen: Arc<Mutex<HashMap<u64, Place>>> = Arc::default();
    let on_sealed = Arc::clone(&seen);
    let seed = caller.dry.seed();
    caller.dry.set_on_sealed(Box::new(move |segment| {
        let mut rows = 0;
        let mut visit = |row: &Row, key: &[u8]| {
            assert_eq!(hash_key(seed, key), row.hash);
            on_sealed.lock().insert(row.hash, row.place);
            rows += 1;
        };
        segment.for_each(&mut visit).unwrap();
        assert_eq!(rows, segment.rows);
    }));
    for number in 0..20_000 {
        let _ = caller.set(&format!("key {number}"), "value");
    }
    caller.dry.close(Close::Clean).unwrap();
    assert_eq!(seen.lock().len(), 20_000);
    let slots = caller.slots.lock();
    assert!(
        seen.lock()
            .iter()
            .all(|(hash, place)| slots[hash].0 == *place)
    );
    drop(slots);
    // After a restart they can be asked for again.
    let again = Caller::open(&config(dir.path()));
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    again.dry.set_on_sealed(Box::new(move |segment| {
        counted.fetch_add(segment.rows, SeqCst);
    }));
    again
        .dry
        .segments()
        .into_iter()
        .for_each(|segment| again.dry.resend(segment));
    wait_until(|| count.load(SeqCst) == 20_000);
}

// Threads set, delete and read the same keys while segments are reclaimed and kills are folded.
#[test]
fn threads_never_see_another_keys_value() {
    let dir = tempfile::tempdir().unwrap();
    let caller = Caller::open(&DryConfig {
        queue_bytes: 512 << 10,
        ..config(dir.path())
    });
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let caller = &caller;
            scope.spawn(move || {
                for number in 0..12_000 {
                    let key = format!("key {}", (number * 7 + thread) % 500);
                    match number % 4 {
                        0 => caller.delete(&key),
                        1 => {
                            let _ = caller.set(&key, &format!("{key} ").repeat(1 + number % 300));
                        }
                        _ => {
                            let value = caller.get(&key);
                            assert!(
                                value.is_none_or(|value| value.starts_with(&format!("{key} ")))
                            );
                        }
                    }
                }
            });
        }
    });
    assert_eq!(caller.dry.tier_state(), TierState::Ok);
    assert_eq!(caller.dry.stats().corrupt, 0);
    caller.dry.close(Close::Clean).unwrap();
    let rows = caller.slots.lock().len() as u64;
    assert_eq!(Caller::open(&config(dir.path())).report.rows, rows);
}

/// A file system of a few MiB, where root may mount one.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = std::process::Command::new("mount");
        let mount = mount
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "none"])
            .arg(dir.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        mounted.then(|| SmallDisk(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("-l")
            .arg(self.0.path())
            .status();
    }
}

// The same with a real full disk, which the journal too has to live with.
#[test]
fn a_really_full_disk_pauses_the_tier() {
    let Some(disk) = SmallDisk::mount("4m") else {
        println!("skipped: only root can mount a small tmpfs");
        return;
    };
    let (folder, filler) = (disk.0.path().join("dry"), disk.0.path().join("filler"));
    std::fs::write(&filler, vec![0; 2 << 20]).unwrap();
    let caller = Caller::open(&config(&folder));
    let mut kept = 0;
    wait_until(
        || match caller.set(&format!("key {kept}"), &large_value(kept)) {
            Append::Done(_) => {
                kept += 1;
                kept == 200
            }
            refused => refused == Append::Paused,
        },
    );
    assert!(
        (20..100).contains(&kept),
        "{kept} records in about 2 MiB and the buffers"
    );
    // Kills need no room: the journal has all of its blocks.
    for number in 0..kept / 2 {
        caller.delete(&format!("key {number}"));
    }
    assert_eq!(
        caller.get(&format!("key {}", kept - 1)).unwrap(),
        large_value(kept - 1)
    );
    std::fs::remove_file(&filler).unwrap();
    wait_until(|| caller.dry.tier_state() == TierState::Ok);
    caller.written();
    assert!(matches!(caller.set("afterwards", "value"), Append::Done(_)));
    caller.dry.close(Close::Clean).unwrap();
    let again = Caller::open(&config(&folder));
    assert_eq!(
        (again.get("key 0"), again.get("afterwards")),
        (None, Some("value".into()))
    );
}

// Whoever is told of a freed segment may hold the last reference: the tier then closes on the thread
// that frees segments, which cannot wait for itself.
#[test]
fn a_hook_may_drop_the_tier() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    let caller = Caller::open(&config);
    let _ = caller.set("key", "value");
    caller.written();
    let last = Arc::new(Mutex::new(None));
    let (dropped, was_dropped) = std::sync::mpsc::channel();
    let held = Arc::clone(&last);
    caller.dry.set_on_freed(Box::new(move |_| {
        drop(held.lock().take());
        let _ = dropped.send(());
    }));
    let mut last = last.lock();
    caller.dry.flush(caller.dry.first_version()).unwrap();
    *last = Some(caller.dry);
    drop(last);
    was_dropped.recv().unwrap();
    // The folder is free as soon as that thread has ended.
    wait_until(|| {
        let opened = Dry::open(&config, Arc::new(Clock::manual(NOW)));
        opened.is_ok()
    });
}
