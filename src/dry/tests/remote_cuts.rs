//! Crashes between any two changes to a spool, with what the remote store had by then; and another machine instead.
//!
//! As in `cuts`, but segments move away meanwhile: the moments between an upload, its rows and the end of the local
//! file are among the cuts, and so are those around each change of the manifest.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::super::store::memory::MemoryRemote;
use super::super::store::remote::{Listed, Remote, Tag};
use super::cuts::{KEYS, Run, Sums, Tier, Truth, check, folder, number, run, small};
use super::tape::{Disk, Image, Tape};
use super::*;
use crate::dry::device::Device;

/// Of so many cuts one is tried where nothing else is said.
const STRIDE: u64 = 3;

/// A remote store that notes after how many changes of the spool it was changed.
#[derive(Default)]
struct Noted {
    remote: MemoryRemote,
    tape: OnceLock<Arc<Tape>>,
    changes: Mutex<Vec<Change>>,
}

struct Change {
    /// Changes of the spool before it.
    at: usize,
    name: String,
    /// None where it was deleted.
    bytes: Option<Vec<u8>>,
}

impl Noted {
    /// Makes a change and notes it, one at a time.
    fn change<T>(
        &self,
        name: &str,
        bytes: Option<Vec<u8>>,
        change: impl FnOnce() -> io::Result<T>,
        made: impl FnOnce(&T) -> bool,
    ) -> io::Result<T> {
        let mut changes = self.changes.lock();
        let done = change()?;
        if made(&done) {
            let at = self.tape.get().map_or(0, |tape| tape.len());
            changes.push(Change {
                at,
                name: name.to_owned(),
                bytes,
            });
        }
        Ok(done)
    }
}

impl Remote for Noted {
    fn place(&self) -> &str {
        self.remote.place()
    }

    fn put(&self, name: &str, file: &Path, bytes: u64) -> io::Result<()> {
        let content = std::fs::read(file)?;
        let put = || self.remote.put(name, file, bytes);
        self.change(name, Some(content), put, |()| true)
    }

    fn read(&self, name: &str, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.remote.read(name, at, out)
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        self.change(name, None, || self.remote.delete(name), |()| true)
    }

    fn list(&self) -> io::Result<Vec<Listed>> {
        self.remote.list()
    }

    fn get(&self, name: &str) -> io::Result<Option<(Vec<u8>, Tag)>> {
        self.remote.get(name)
    }

    fn replace(&self, name: &str, bytes: Vec<u8>, before: Option<&Tag>) -> io::Result<Option<Tag>> {
        let content = Some(bytes.clone());
        let replace = || self.remote.replace(name, bytes, before);
        self.change(name, content, replace, Option::is_some)
    }
}

fn open_over(folder: &Path, tape: Option<Arc<Tape>>, remote: Arc<dyn Remote>) -> Dry {
    let machine = Machine {
        boot: boot(),
        device: Device { tape },
        segment_bytes_min: 32 << 10,
        remote: Some(remote),
        ..Machine::current()
    };
    let config = small(folder, Durability::Process);
    Dry::open_on(&config, Arc::new(Clock::manual(NOW)), &machine).unwrap()
}

/// What the tests found.
#[derive(Debug, Default)]
struct Found {
    here: Sums,
    /// Starts of another machine, and what it read.
    elsewhere: (usize, usize),
}

/// Adds what the starts of one run find to `found`.
fn crash_everywhere(seed: u64, stride: usize, found: &mut Found) {
    let noted = Arc::new(Noted::default());
    let run = run(seed, false, &|dir, tape| {
        let _ = noted.tape.set(Arc::clone(tape));
        let remote = Arc::clone(&noted) as Arc<dyn Remote>;
        open_over(dir, Some(Arc::clone(tape)), remote)
    });
    let entries = run.tape.take();
    let changes = std::mem::take(&mut *noted.changes.lock());
    let (mut truth, mut disk) = (Truth::of(&run), Disk::default());
    let mut random = Random(seed | 1);
    let (mut objects, mut changes) = (BTreeMap::new(), changes.into_iter().peekable());
    for cut in 0..=entries.len() {
        // Those of the same moment came in between: any of them may be last.
        while let Some(change) =
            changes.next_if(|change| change.at < cut || change.at == cut && random.below(2) == 0)
        {
            match change.bytes {
                Some(bytes) => objects.insert(change.name, bytes),
                None => objects.remove(&change.name),
            };
        }
        if cut % stride == 0 {
            truth.advance(cut);
            let image = disk.after_death(entries.get(cut), &mut random);
            let what = format!("seed {seed}, change {cut}");
            let set_aside = found.here.set_aside;
            start_here(&image, &objects, &run, &truth, &mut random, found, &what);
            assert!(
                cut < run.started || found.here.set_aside == set_aside,
                "{what}: a death of the process costs no warmth"
            );
            start_elsewhere(&objects, &truth, found, &what);
        }
        if let Some(entry) = entries.get(cut) {
            disk.play(entry);
        }
    }
}

fn start_here(
    image: &Image,
    objects: &BTreeMap<String, Vec<u8>>,
    run: &Run,
    truth: &Truth<'_>,
    random: &mut Random,
    found: &mut Found,
    what: &str,
) {
    let remote = Arc::new(MemoryRemote::with(objects));
    let open = |dir: &Path| open_over(dir, None, Arc::clone(&remote) as Arc<dyn Remote>);
    check(image, run, &open, truth, random, &mut found.here, what);
}

/// A machine that has nothing but the store: what was left cleanly or nothing.
fn start_elsewhere(
    objects: &BTreeMap<String, Vec<u8>>,
    truth: &Truth<'_>,
    found: &mut Found,
    what: &str,
) {
    let dir = folder();
    let remote = Arc::new(MemoryRemote::with(objects));
    let tier = Tier::over(open_over(dir.path(), None, remote), false);
    found.elsewhere.0 += 1;
    for key in 0..KEYS {
        if let Some(version) = tier.version_of(key) {
            assert!(truth.allows(key, version), "{what}, elsewhere: key {key}");
            found.elsewhere.1 += 1;
        }
    }
    tier.dry.close(Close::Dirty).unwrap();
}

/// Runs until enough was found.
const RUNS_MAX: u64 = 4;

// Whatever an upload, a takeover or a stop was in the middle of: nothing comes back, here or elsewhere.
#[test]
fn a_crash_between_an_upload_and_its_rows_brings_nothing_back() {
    let seed = number("TIERCACHE_TEST_SEED", crate::clock::wall_us());
    let stride = number("TIERCACHE_TEST_STRIDE", STRIDE) as usize;
    println!("TIERCACHE_TEST_SEED={seed} TIERCACHE_TEST_STRIDE={stride}");
    let mut found = Found::default();
    // A run that happens to flush late leaves little to be found; then the next one counts too.
    for seed in seed..seed + RUNS_MAX {
        crash_everywhere(seed, stride, &mut found);
        println!("{found:?}");
        if found.here.hits > found.here.images {
            break;
        }
    }
    assert!(
        found.here.images > 100 && found.here.hits > found.here.images,
        "too little was tried: {found:?}"
    );
}
