//! Crashes between any two changes to the folder's files: the death of the process and the loss of power.
//!
//! One run of the tier is recorded on a tape, with what its caller was told at which moment. Then a crash is made of
//! every moment, and the tier is started on what that leaves: each key must be what it was last acknowledged to be,
//! or what was being made of it, or a miss.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;

use super::tape::{Disk, Image, Tape, write_image};
use super::*;
use crate::dry::device::Device;

pub(super) const KEYS: usize = 40;
const SEGMENT_BYTES: u64 = 32 << 10;
/// Changes that are recorded before a run ends.
const CHANGES: usize = 400;
/// After one image in so many the tier goes on for a while, crashes once more and starts again.
const GO_ON_EVERY: usize = 16;

pub(super) fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

pub(super) fn small(folder: &Path, durability: Durability) -> DryConfig {
    DryConfig {
        size: ByteSize(SEGMENTS * SEGMENT_BYTES),
        segment_size: Some(ByteSize(SEGMENT_BYTES)),
        journal_size: ByteSize(1024),
        queue_bytes: 64 << 10,
        durability,
        ..config(folder)
    }
}

const SEGMENTS: u64 = 8;

pub(super) fn open(config: &DryConfig, boot: Boot, device: Device) -> Dry {
    let machine = Machine {
        boot,
        device,
        segment_bytes_min: SEGMENT_BYTES,
        ..Machine::current()
    };
    Dry::open_on(config, Arc::new(Clock::manual(NOW)), &machine).unwrap()
}

pub(super) fn key_name(key: usize) -> String {
    // A third of the keys is reinserted when its segment leaves.
    if key.is_multiple_of(3) {
        format!("keep {key}")
    } else {
        format!("key {key}")
    }
}

pub(super) fn content(key: usize, version: u64) -> String {
    format!("{key} {version} ").repeat(1 + (version as usize * 7 + key) % 150)
}

/// What a caller did to a key, or with a flush to all, and when: counted in changes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Act {
    key: Option<usize>,
    /// The new value's, `None` for its end.
    version: Option<u64>,
    begin: usize,
    end: usize,
}

/// A caller that finds its rows as the cache does: of two in one slot the newer one stays.
pub(super) struct Tier {
    pub(super) dry: Arc<Dry>,
    slots: Arc<Mutex<Slots>>,
    power: bool,
}

impl Tier {
    pub(super) fn over(dry: Dry, power: bool) -> Tier {
        let dry = Arc::new(dry);
        let slots: Arc<Mutex<Slots>> = Arc::default();
        let owner = (Arc::downgrade(&dry), Arc::clone(&slots));
        dry.set_owner(Box::new(move |leaving| {
            leave(&owner.0.upgrade(), &owner.1, leaving)
        }));
        let versions: Mutex<HashMap<u64, u64>> = Mutex::default();
        dry.load(
            2,
            &by_row(|row| {
                let (mut slots, mut versions) = (slots.lock(), versions.lock());
                let newer = versions
                    .get(&row.hash)
                    .is_none_or(|version| *version < row.version);
                let loser = if newer {
                    versions.insert(row.hash, row.version);
                    slots.insert(row.hash, (row.place, row.bytes))
                } else {
                    Some((row.place, row.bytes))
                };
                if let Some((place, _)) = loser {
                    dry.kill(place);
                }
            }),
            &|_, _, _| {},
        )
        .unwrap();
        Tier { dry, slots, power }
    }

    fn hash(&self, key: usize) -> u64 {
        hash_key(self.dry.seed(), key_name(key).as_bytes())
    }

    /// As the cache kills: committed first under `power`.
    pub(super) fn kill(&self, key: usize) {
        let hash = self.hash(key);
        let known = self.slots.lock().get(&hash).copied();
        let Some((place, _)) = known else {
            return;
        };
        if self.power {
            // An error means that the tier has failed: nothing of it will be served.
            let _ = self.dry.commit_kill(place);
            self.slots.lock().retain(|_, slot| slot.0 != place);
            return;
        }
        // Reclaim may have moved it meanwhile: under the lock it cannot.
        let mut slots = self.slots.lock();
        if let Some((place, _)) = slots.remove(&hash) {
            self.dry.kill(place);
        }
    }

    /// Panics at a key with another version than the truth's; how many keys have one.
    pub(super) fn check(&self, truth: &[Option<u64>], what: &str) -> usize {
        let mut hits = 0;
        for (key, truth) in truth.iter().enumerate() {
            let version = self.version_of(key);
            assert!(
                version.is_none() || version == *truth,
                "{what}: {} came back as {version:?}",
                key_name(key)
            );
            hits += usize::from(version.is_some());
        }
        hits
    }

    pub(super) fn set(&self, key: usize, version: u64) {
        while self.slots.lock().contains_key(&self.hash(key)) {
            self.kill(key);
        }
        let facts = Facts {
            version,
            last_access: NOW,
            flags: 7,
            ..Facts::default()
        };
        let (name, text) = (key_name(key), content(key, version));
        let (name, text) = (name.as_bytes(), text.as_bytes());
        for _ in 0..3 {
            match append(
                &self.dry,
                &self.slots,
                self.hash(key),
                &facts,
                name,
                text,
                None,
            ) {
                Append::Busy => self.dry.wait_for_room(Duration::from_millis(50)),
                _ => return,
            };
        }
    }

    pub(super) fn version_of(&self, key: usize) -> Option<u64> {
        let (place, bytes) = *self.slots.lock().get(&self.hash(key))?;
        let mut buffer = Vec::new();
        let name = key_name(key);
        match self.dry.read(
            place,
            bytes as usize,
            name.as_bytes(),
            ReadMode::Blocking,
            &mut buffer,
        ) {
            Read::Hit { facts, value, .. } => {
                assert_eq!(
                    buffer[value],
                    *content(key, facts.version).as_bytes(),
                    "{name} is corrupt"
                );
                Some(facts.version)
            }
            _ => None,
        }
    }
}

impl Drop for Tier {
    // Not left to the last owner, which may be the tier's own thread in the middle of a callback.
    fn drop(&mut self) {
        let _ = self.dry.close(Close::Dirty);
    }
}

/// A run of the tier: its changes and its acts.
pub(super) struct Run {
    pub(super) tape: Arc<Tape>,
    pub(super) acts: Vec<Act>,
    /// The changes before this one belong to the first start.
    pub(super) started: usize,
    power: bool,
}

/// Runs the tier that `open` opens in a folder, whose changes go to a tape.
pub(super) fn run(seed: u64, power: bool, open: &dyn Fn(&Path, &Arc<Tape>) -> Dry) -> Run {
    let mut random = Random(seed | 1);
    let (dir, tape) = (tempfile::tempdir().unwrap(), Arc::new(Tape::default()));
    let mut tier = Tier::over(open(dir.path(), &tape), power);
    let mut version = tier.dry.first_version();
    let started = tape.len();
    let mut acts = Vec::new();
    while tape.len() < started + CHANGES {
        version += 1;
        let (key, begin) = (random.below(KEYS), tape.len());
        let mut act = Act {
            key: Some(key),
            version: None,
            begin,
            end: 0,
        };
        match random.below(100) {
            0 => {
                tier.dry.flush(version).unwrap();
                tier.slots.lock().clear();
                act.key = None;
            }
            1..3 => {
                let how = if random.below(2) == 0 {
                    Close::Clean
                } else {
                    Close::Dirty
                };
                tier.dry.close(how).unwrap();
                tier = Tier::over(open(dir.path(), &tape), power);
                version = version.max(tier.dry.first_version());
                continue;
            }
            3..15 => {
                tier.dry.flush_buffers();
                continue;
            }
            15..40 => {
                while tier.slots.lock().contains_key(&tier.hash(key)) {
                    tier.kill(key);
                }
            }
            _ => {
                tier.set(key, version);
                act.version = Some(version);
            }
        }
        act.end = tape.len();
        acts.push(act);
    }
    tier.dry
        .close(if random.below(2) == 0 {
            Close::Clean
        } else {
            Close::Dirty
        })
        .unwrap();
    Run {
        tape,
        acts,
        started,
        power,
    }
}

/// What every key may be: what it was acknowledged to be, and what was being made of it.
pub(super) struct Truth<'a> {
    acts: &'a [Act],
    acknowledged: [Option<u64>; KEYS],
    changes: usize,
}

impl<'a> Truth<'a> {
    /// Before the first change.
    pub(super) fn of(run: &'a Run) -> Truth<'a> {
        Truth {
            acts: &run.acts,
            acknowledged: [None; KEYS],
            changes: 0,
        }
    }

    /// Goes on to the moment after so many changes.
    pub(super) fn advance(&mut self, changes: usize) {
        self.changes = changes;
        while let Some((act, rest)) = self
            .acts
            .split_first()
            .filter(|(act, _)| act.end <= changes)
        {
            match act.key {
                Some(key) => self.acknowledged[key] = act.version,
                None => self.acknowledged = [None; KEYS],
            }
            self.acts = rest;
        }
    }

    pub(super) fn allows(&self, key: usize, version: u64) -> bool {
        let begun = |act: &&Act| act.key == Some(key) && act.begin <= self.changes;
        let under_way = self.acts.first().filter(begun).and_then(|act| act.version);
        self.acknowledged[key] == Some(version) || under_way == Some(version)
    }
}

/// What the starts of one run found.
#[derive(Debug, Default)]
pub(super) struct Sums {
    pub(super) images: usize,
    pub(super) hits: usize,
    pub(super) set_aside: usize,
}

/// Starts the tier that `open` opens on an image and reads every key.
pub(super) fn check(
    image: &Image,
    run: &Run,
    open: &dyn Fn(&Path) -> Dry,
    truth: &Truth<'_>,
    random: &mut Random,
    sums: &mut Sums,
    what: &str,
) {
    let dir = folder();
    write_image(image, dir.path());
    let tier = Tier::over(open(dir.path()), run.power);
    sums.images += 1;
    sums.set_aside += usize::from(matches!(tier.dry.start(), Start::SetAside(_)));
    let mut found = BTreeMap::new();
    for key in 0..KEYS {
        if let Some(version) = tier.version_of(key) {
            assert!(
                truth.allows(key, version),
                "{what}: {} came back as version {version}",
                key_name(key)
            );
            sums.hits += 1;
            found.insert(key, version);
        }
    }
    if !sums.images.is_multiple_of(GO_ON_EVERY) {
        return tier.dry.close(Close::Dirty).unwrap();
    }
    // What a start leaves behind must hold through the next death too.
    let mut version = tier.dry.first_version();
    for _ in 0..KEYS {
        let key = random.below(KEYS);
        version += 1;
        if random.below(2) == 0 {
            tier.set(key, version);
            found.insert(key, version);
        } else {
            tier.kill(key);
            found.remove(&key);
        }
    }
    tier.dry.close(Close::Dirty).unwrap();
    let again = Tier::over(open(dir.path()), run.power);
    for key in 0..KEYS {
        let version = again.version_of(key);
        assert!(
            version.is_none() || version == found.get(&key).copied(),
            "{what}, then: {}",
            key_name(key)
        );
    }
    again.dry.close(Close::Dirty).unwrap();
}

/// In memory where there is a file system for that: hundreds of thousands of folders are made.
pub(super) fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

fn crash_everywhere(seed: u64, power_images: usize) -> Sums {
    let power = seed.is_multiple_of(2);
    let durability = if power {
        Durability::Power
    } else {
        Durability::Process
    };
    let run = run(seed, power, &|dir, tape| {
        let tape = Some(Arc::clone(tape));
        open(&small(dir, durability), boot(), Device { tape })
    });
    let open_in = |boot| move |dir: &Path| open(&small(dir, durability), boot, Device::default());
    let entries = run.tape.take();
    let mut truth = Truth::of(&run);
    let (mut disk, mut random, mut sums) = (Disk::default(), Random(seed | 1), Sums::default());
    let rebooted = Boot {
        id: [9, 9],
        time_us: 99_000_000,
    };
    for cut in 0..=entries.len() {
        truth.advance(cut);
        let what = format!("seed {seed}, change {cut}");
        let image = disk.after_death(entries.get(cut), &mut random);
        let set_aside = sums.set_aside;
        check(
            &image,
            &run,
            &open_in(boot()),
            &truth,
            &mut random,
            &mut sums,
            &what,
        );
        assert!(
            cut < run.started || sums.set_aside == set_aside,
            "{what}: a death of the process costs no warmth"
        );
        for number in 0..power_images {
            let image = disk.after_power_loss(&mut random);
            let what = format!("{what}, loss of power {number}");
            check(
                &image,
                &run,
                &open_in(rebooted),
                &truth,
                &mut random,
                &mut sums,
                &what,
            );
        }
        if let Some(entry) = entries.get(cut) {
            disk.play(entry);
        }
    }
    sums
}

// Nothing is stale, corrupt or in the way of a start, whatever change a crash comes before.
#[test]
fn a_crash_between_any_two_changes_brings_nothing_back() {
    let first = number("TIERCACHE_TEST_SEED", crate::clock::wall_us());
    let seeds = number("TIERCACHE_TEST_SEEDS", 2);
    let power_images = number("TIERCACHE_TEST_POWER_IMAGES", 2) as usize;
    println!(
        "TIERCACHE_TEST_SEED={first} TIERCACHE_TEST_SEEDS={seeds} TIERCACHE_TEST_POWER_IMAGES={power_images}"
    );
    let next = AtomicUsize::new(0);
    let all = Mutex::new(Sums::default());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(4)
        {
            scope.spawn(|| {
                while let Some(number) =
                    Some(next.fetch_add(1, SeqCst) as u64).filter(|number| *number < seeds)
                {
                    let sums = crash_everywhere(first.wrapping_add(number), power_images);
                    let mut all = all.lock();
                    all.images += sums.images;
                    all.hits += sums.hits;
                    all.set_aside += sums.set_aside;
                }
            });
        }
    });
    let all = all.into_inner();
    println!("{all:?}");
    assert!(
        all.images > seeds as usize * CHANGES && all.hits > all.images,
        "too little was tried: {all:?}"
    );
}
