//! Seeded bugs and points of death, which show that the tests find what they look for.
//!
//! Without the feature `mutants` every question here is answered `false` at compile time. With it, environment
//! variables choose: `TIERCACHE_MUTANT` one bug, `TIERCACHE_CRASH=POINT:N` the N-th passage of a point as the end of
//! the process, `TIERCACHE_BOOT` another run of the machine, `TIERCACHE_TAG_BITS` how many bits of a tag count,
//! `TIERCACHE_JOURNAL_BYTES` the size of a kill journal file, so that a short test sees collisions and folds,
//! `TIERCACHE_READ_MS` and `TIERCACHE_WRITE_MS` how slow the device is, `TIERCACHE_CLOCK_FILE` a file that
//! has by how many seconds the wall clock is wrong.

#[cfg(all(feature = "mutants", not(debug_assertions)))]
compile_error!("the feature `mutants` seeds bugs: it is for tests and never part of a release");

/// A bug that can be switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// A kill is not stored.
    SkipKill,
    /// A kill is stored a while after the new state became visible.
    KillAfterVisible,
    /// What was read from dry is installed although the key changed meanwhile.
    InstallUncompared,
    /// A flush is not persisted.
    ForgetFlush,
    /// An item is dried without its exptime.
    LoseExptime,
    /// Versions begin at 1 with every start.
    ResetVersions,
    /// A folder is believed whatever happened to the machine.
    TrustAnotherBoot,
    /// A record's checksum is not looked at.
    IgnoreChecksum,
    /// A record from dry is served without a look at its key.
    CompareNoKey,
    /// A promoted item's copy is forgotten but not killed.
    DropWithoutKill,
}

/// A place in the code at which the process can be made to die as by `kill -9`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The mark "in use" is on the device, the kills of the last run are not folded yet.
    StartMarked,
    /// Those kills are folded, their journal is still there.
    StartFolded,
    /// Some files of the new journal are in place.
    StartJournal,
    /// A kill is about to be stored.
    BeforeKill,
    /// A kill is stored, the new state not yet visible.
    AfterKill,
    /// A record is in a buffer and in the index, but not in its file.
    Published,
    /// A buffer is about to be written.
    BeforeWrite,
    /// A buffer is written, but not yet counted as such.
    AfterWrite,
    /// A segment's last buffer is written.
    Sealed,
    /// Some of a full journal file's kills are folded.
    Folding,
    /// All of them are.
    Folded,
    /// That file is marked blank, but not yet emptied.
    Blanked,
    /// It is journalled that a segment is freed.
    FreeStored,
    /// The owner was told of its rows.
    RowsGone,
    /// Its file is gone.
    Unlinked,
    /// A flush counts in RAM.
    FlushRaised,
    /// A flush is persisted, but not yet answered.
    FlushPersisted,
    /// One copy of the state is written.
    StateTorn,
    /// RAM is being moved to dry at a stop.
    Draining,
    /// Everything is written, but the folder is not yet marked clean.
    BeforeClean,
}

#[cfg(not(feature = "mutants"))]
mod choice {
    use super::{Mutant, Point};

    impl Mutant {
        /// Whether this bug is switched on: never in this build.
        #[inline(always)]
        pub const fn is_on(self) -> bool {
            false
        }
    }

    impl Point {
        /// Dies here if that was asked for: never in this build.
        #[inline(always)]
        pub const fn pass(self) {}
    }

    /// Widens the window of a seeded bug: never in this build.
    #[inline(always)]
    pub const fn linger() {}

    /// Does something after a while, to seed a bug: at once in this build.
    pub fn later(act: impl FnOnce()) {
        act();
    }

    /// The bits of a hash that a tag keeps: all of them.
    #[inline(always)]
    pub const fn tag_mask() -> u64 {
        u64::MAX
    }

    /// Bytes of a kill journal file: as configured.
    #[inline(always)]
    pub const fn journal_bytes(configured: u64) -> u64 {
        configured
    }

    /// The number of a pretended run of the machine: none.
    #[inline(always)]
    pub const fn boot() -> Option<u64> {
        None
    }

    /// Whether reads wait for a slow device: as fast as they are.
    #[inline(always)]
    pub const fn reads_are_slow() -> bool {
        false
    }

    /// Waits as a read of a slow device does: not at all.
    #[inline(always)]
    pub const fn read_slowly() {}

    /// Waits as a write to a slow device does: not at all.
    #[inline(always)]
    pub const fn write_slowly() {}

    /// Seconds by which the wall clock is wrong: none.
    #[inline(always)]
    pub const fn clock_step() -> i64 {
        0
    }
}

#[cfg(feature = "mutants")]
mod choice {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    use std::sync::mpsc::{Sender, channel};
    use std::time::{Duration, Instant};

    use super::{Mutant, Point};

    /// How long a seeded bug keeps its window open.
    const WINDOW: Duration = Duration::from_millis(2);
    /// Every so manieth time, so that the rest stays fast.
    const WINDOW_EVERY: u64 = 16;
    /// How long a kill is late that should not be.
    const LATE: Duration = Duration::from_millis(50);

    const MUTANTS: [Mutant; 10] = {
        use Mutant::*;
        [
            SkipKill,
            KillAfterVisible,
            InstallUncompared,
            ForgetFlush,
            LoseExptime,
            ResetVersions,
            TrustAnotherBoot,
            IgnoreChecksum,
            CompareNoKey,
            DropWithoutKill,
        ]
    };
    const POINTS: [Point; 20] = {
        use Point::*;
        [
            StartMarked,
            StartFolded,
            StartJournal,
            BeforeKill,
            AfterKill,
            Published,
            BeforeWrite,
            AfterWrite,
            Sealed,
            Folding,
            Folded,
            Blanked,
            FreeStored,
            RowsGone,
            Unlinked,
            FlushRaised,
            FlushPersisted,
            StateTorn,
            Draining,
            BeforeClean,
        ]
    };

    static MUTANT: LazyLock<Option<Mutant>> =
        LazyLock::new(|| text("TIERCACHE_MUTANT").map(|name| named(&MUTANTS, &name)));
    static CRASH: LazyLock<Option<(Point, u64)>> = LazyLock::new(|| {
        let choice = text("TIERCACHE_CRASH")?;
        let (point, passage) = choice.split_once(':').expect("TIERCACHE_CRASH is POINT:N");
        Some((
            named(&POINTS, point),
            passage.parse().expect("N is a number"),
        ))
    });
    static PASSAGES: AtomicU64 = AtomicU64::new(0);
    static TAG_MASK: LazyLock<u64> = LazyLock::new(|| {
        number("TIERCACHE_TAG_BITS").map_or(u64::MAX, |bits| !(u64::MAX >> (25 + bits)))
    });

    fn text(name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|text| !text.is_empty())
    }

    fn number(name: &str) -> Option<u64> {
        text(name).map(|text| {
            text.parse()
                .unwrap_or_else(|_| panic!("{name}={text} is not a number"))
        })
    }

    /// A typo must not make a test of nothing.
    fn named<T: Copy + std::fmt::Debug>(all: &[T], name: &str) -> T {
        let found = all.iter().find(|one| format!("{one:?}") == name);
        *found.unwrap_or_else(|| panic!("{name} is none of {all:?}"))
    }

    impl Mutant {
        /// Whether this bug is switched on.
        pub fn is_on(self) -> bool {
            *MUTANT == Some(self)
        }
    }

    impl Point {
        /// Dies here if that was asked for.
        pub fn pass(self) {
            if let Some((point, passage)) = *CRASH
                && point == self
                && PASSAGES.fetch_add(1, Relaxed) + 1 == passage
            {
                let own = rustix::process::getpid();
                rustix::process::kill_process(own, rustix::process::Signal::KILL)
                    .expect("a process may kill itself");
                loop {
                    std::thread::park();
                }
            }
        }
    }

    /// Widens the window of a seeded bug.
    pub fn linger() {
        static CALLS: AtomicU64 = AtomicU64::new(0);
        if CALLS.fetch_add(1, Relaxed).is_multiple_of(WINDOW_EVERY) {
            std::thread::sleep(WINDOW);
        }
    }

    type Late = (Instant, Box<dyn FnOnce() + Send>);

    /// Does something after a while, in order, to seed a bug.
    pub fn later(act: impl FnOnce() + Send + 'static) {
        static QUEUE: LazyLock<Sender<Late>> = LazyLock::new(|| {
            let (sender, receiver) = channel::<Late>();
            std::thread::spawn(move || {
                for (due, act) in receiver {
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    act();
                }
            });
            sender
        });
        QUEUE
            .send((Instant::now() + LATE, Box::new(act)))
            .expect("the thread runs as long as the process");
    }

    /// The bits of a hash that a tag keeps.
    pub fn tag_mask() -> u64 {
        *TAG_MASK
    }

    /// Bytes of a kill journal file.
    pub fn journal_bytes(configured: u64) -> u64 {
        number("TIERCACHE_JOURNAL_BYTES").unwrap_or(configured)
    }

    /// The number of a pretended run of the machine.
    pub fn boot() -> Option<u64> {
        number("TIERCACHE_BOOT")
    }

    static READ: LazyLock<Option<Duration>> =
        LazyLock::new(|| number("TIERCACHE_READ_MS").map(Duration::from_millis));
    static WRITE: LazyLock<Option<Duration>> =
        LazyLock::new(|| number("TIERCACHE_WRITE_MS").map(Duration::from_millis));
    static CLOCK_FILE: LazyLock<Option<String>> = LazyLock::new(|| text("TIERCACHE_CLOCK_FILE"));

    /// Whether reads wait for a slow device.
    pub fn reads_are_slow() -> bool {
        READ.is_some()
    }

    /// Waits as a read of a slow device does.
    pub fn read_slowly() {
        READ.iter().for_each(|wait| std::thread::sleep(*wait));
    }

    /// Waits as a write to a slow device does.
    pub fn write_slowly() {
        WRITE.iter().for_each(|wait| std::thread::sleep(*wait));
    }

    /// Seconds by which the wall clock is wrong at this moment.
    pub fn clock_step() -> i64 {
        let Some(file) = &*CLOCK_FILE else { return 0 };
        let step = std::fs::read_to_string(file).expect("TIERCACHE_CLOCK_FILE can be read");
        step.trim().parse().expect("it has a number of seconds")
    }
}

pub use choice::{
    boot, clock_step, journal_bytes, later, linger, read_slowly, reads_are_slow, tag_mask,
    write_slowly,
};
