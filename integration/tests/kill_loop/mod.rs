//! Kills the server under load again and again, and proves from what the clients saw that no value ever went back.
//!
//! Every cycle must be worth something: a fifth of the hits come from dry, and hundreds of dried keys are overwritten
//! or deleted before the end, so that an old copy is on disk for each of them. Whether the loop would notice is shown
//! by a build with seeded bugs: it has to fail on each of them.

mod cycle;
mod damage;
mod keys;
mod worker;

use std::fs;

use tiercache_integration::server::{mutants_binary, tiercache_binary};
use tiercache_integration::{number_from_env, seed};

use cycle::{DRIED_REPLACED_MIN, End, Flush, Loop, Report};
#[cfg(any(feature = "s3", feature = "mongodb"))]
use keys::REMOTE;

/// Share of hits that dry must answer in each cycle.
const DRY_PERCENT_MIN: u64 = 20;
/// Share of what dry held that must be warm again.
const WARM_PERCENT_MIN: u64 = 95;
/// Cycles within which a seeded bug must be found.
const MUTANT_CYCLES: u64 = 10;
/// The cycle that ends with a loss of power. The later ones leave items time to expire.
const POWER_LOSS_CYCLE: u64 = 2;
/// Bits that rot between two cycles where bits rot.
const ROTTEN_BITS: usize = 100;
/// Starts that may end before a point of death is met: how often it is passed is a matter of chance.
const POINT_TRIES: u64 = 4;

/// The bugs that a build with `--features mutants` can be told to have.
const MUTANTS: [&str; 10] = [
    "SkipKill",
    "KillAfterVisible",
    "InstallUncompared",
    "ForgetFlush",
    "LoseExptime",
    "ResetVersions",
    "TrustAnotherBoot",
    "IgnoreChecksum",
    "CompareNoKey",
    "DropWithoutKill",
];

/// The points of death of such a build, and about how often each is passed in a cycle.
const POINTS: [(&str, u64); 20] = [
    ("StartMarked", 1),
    ("StartFolded", 1),
    ("StartJournal", 4),
    ("BeforeKill", 3000),
    ("AfterKill", 3000),
    ("Published", 5000),
    ("BeforeWrite", 30),
    ("AfterWrite", 30),
    ("Sealed", 3),
    ("Folding", 6),
    ("Folded", 2),
    ("Blanked", 2),
    ("FreeStored", 1),
    ("RowsGone", 1),
    ("Unlinked", 1),
    ("FlushRaised", 1),
    ("FlushPersisted", 1),
    ("StateTorn", 6),
    ("Draining", 5),
    ("BeforeClean", 1),
];

/// By how many seconds the clock is wrong at one start after the other; half way between two of them it is stepped too.
const CLOCK_STEPS: [i64; 8] = [0, 3600, 7200, 3600, -3600, -3597, 0, 1];

/// So that a short test sees what a long life brings: tags that collide, and a kill journal that is folded often.
const SHRUNK: [(&str, &str); 2] = [
    ("TIERCACHE_TAG_BITS", "12"),
    ("TIERCACHE_JOURNAL_BYTES", "8192"),
];

// A value that was overwritten or deleted never comes back, however the process ends.
#[test]
fn nothing_goes_back_to_an_older_value_whatever_ends_the_process() {
    kill_again_and_again(&[], number_from_env("TIERCACHE_TEST_CYCLES", 30));
}

// The same where every kill waits for the device.
#[test]
fn nothing_goes_back_to_an_older_value_with_power_durability() {
    let cycles = number_from_env("TIERCACHE_TEST_CYCLES", 30) / 5;
    kill_again_and_again(&["--durability", "power"], cycles);
}

fn kill_again_and_again(arguments: &[&str], cycles: u64) {
    let server = Loop::new(&tiercache_binary(), seed(), arguments, &[]);
    kill_each_cycle(server, cycles, |_| {});
}

/// Cycles that each are worth something. `serving` hears when all was read and when the server is about to start.
fn kill_each_cycle(mut server: Loop, cycles: u64, serving: impl Fn(bool)) {
    let mut sums = (0, 0, 100, 100);
    for number in 1..=cycles {
        serving(false);
        let report = cycle_of(&mut server, number, || serving(true));
        assert!(
            report.dried_replaced >= DRIED_REPLACED_MIN,
            "dry is not warm: {report:?}"
        );
        assert!(
            report.dry_percent >= DRY_PERCENT_MIN,
            "dry answers too few reads: {report:?}"
        );
        assert!(
            report.warm_percent >= WARM_PERCENT_MIN,
            "a start lost too much: {report:?}"
        );
        sums.0 += report.hits;
        sums.1 += report.dried_replaced;
        sums.2 = report.warm_percent.min(sums.2);
        sums.3 = report.dry_percent.min(sums.3);
    }
    println!(
        "{cycles} cycles: {} hits, in each at least {} % of them by dry, {} dried keys replaced, at least {} % warm again, {} operations checked",
        sums.0,
        sums.3,
        sums.1,
        sums.2,
        server.histories.operations()
    );
}

/// One cycle of many: most end by a kill, and nothing may be violated.
fn cycle_of(server: &mut Loop, number: u64, serving: impl FnOnce()) -> Report {
    let end = if number.is_multiple_of(8) {
        End::Terminate
    } else {
        End::Kill
    };
    let report = server.cycle(end, flush_in(number), |_| serving());
    print(number, &report, server.histories.operations());
    assert_eq!(report.violations, [""; 0], "cycle {number}");
    report
}

// Between two starts, and while it runs, the clock goes forth and back: nothing outlives its exptime or a flush, and no CAS
// unique is used twice.
#[test]
fn steps_of_the_clock_outlive_nothing() {
    let mut server = Loop::new(&mutants_binary(), seed(), &[], &[]);
    let file = server.scratch().join("clock");
    let next = file.with_extension("next");
    // At once: the server reads it at any moment.
    let set = |step: i64| {
        fs::write(&next, step.to_string()).expect("it can be written");
        fs::rename(&next, &file).expect("it can be renamed");
    };
    server.set_variable("TIERCACHE_CLOCK_FILE", &file.display().to_string());
    for number in 0..number_from_env("TIERCACHE_TEST_CLOCK_RESTARTS", 16) {
        let step = CLOCK_STEPS[number as usize % CLOCK_STEPS.len()];
        set(step);
        // After a death the folder is set aside where the clock was stepped, after a stop it is believed.
        let end = match number % 2 {
            0 => End::Terminate,
            _ => End::Kill,
        };
        let while_running = CLOCK_STEPS[server.random.below(CLOCK_STEPS.len() as u64) as usize];
        let report = server.cycle(end, flush_in(number), |_| set(while_running));
        print(number, &report, server.histories.operations());
        assert_eq!(
            report.violations, [""; 0],
            "clock wrong by {step} s at the start, then by {while_running} s"
        );
    }
}

// The same with segments that move to a bucket meanwhile, or are half way there when the process ends. While clients are
// served the bucket fails, drops connections and flips bits now and then.
#[cfg(feature = "s3")]
#[test]
fn nothing_goes_back_to_an_older_value_with_segments_in_a_bucket() {
    use tiercache_integration::s3::{BUCKET, Faults, S3Server};

    let cycles = number_from_env("TIERCACHE_TEST_CYCLES", 30).div_ceil(4);
    let seed = seed();
    let store = S3Server::start(seed);
    let (place, endpoint) = (format!("s3://{BUCKET}/loop"), store.endpoint());
    let arguments = ["--s3-endpoint", &endpoint, "--s3-path-style"];
    let environment = S3Server::environment();
    let server = Loop::over(
        Some(&place),
        REMOTE,
        &tiercache_binary(),
        seed,
        &arguments,
        &environment,
    );
    kill_each_cycle(server, cycles, |serving| {
        store.order(if serving {
            Faults {
                errors: 20,
                resets: 10,
                flips: 10,
                cuts: 10,
                ..Faults::default()
            }
        } else {
            Faults::default()
        });
    });
    println!("{:?}", store.log());
}

// The same with segments in GridFS.
#[cfg(feature = "mongodb")]
#[test]
fn nothing_goes_back_to_an_older_value_with_segments_in_gridfs() {
    use tiercache_integration::mongodb::MongoServer;

    let cycles = number_from_env("TIERCACHE_TEST_CYCLES", 30).div_ceil(10);
    let store = MongoServer::start();
    let place = format!("{}/{}", store.uri(), store.database());
    let binary = tiercache_binary();
    let server = Loop::over(Some(&place), REMOTE, &binary, seed(), &[], &[]);
    kill_each_cycle(server, cycles, |_| {});
}

// The same at every point of the server's code at which a death could leave something half done.
#[test]
fn no_point_of_death_brings_an_older_value_back() {
    let mut server = Loop::new(&mutants_binary(), seed(), &[], &SHRUNK);
    for (point, passages) in POINTS {
        let flush = if point.starts_with("Flush") {
            Flush::Now
        } else {
            Flush::No
        };
        let died = (0..POINT_TRIES).any(|tried| {
            // Rarer and rarer passages, until even the first one does.
            let passage =
                1 + server.random.below(passages) * (POINT_TRIES - 1 - tried) / (POINT_TRIES - 1);
            let report = server.cycle(End::Point(point, passage), flush, |_| {});
            println!(
                "{point}:{passage}: died there: {}, {} dried keys replaced",
                report.died_there, report.dried_replaced
            );
            assert_eq!(report.violations, [""; 0], "{point}");
            report.died_there
        });
        assert!(died, "{point} was never passed");
    }
    let report = server.cycle(End::Kill, Flush::No, |_| {});
    assert_eq!(report.violations, [""; 0], "after the last one");
}

// Without any bug the cycles that find the seeded ones find nothing.
#[test]
fn each_seeded_bug_is_found_and_none_where_there_is_none() {
    let binary = mutants_binary();
    let seed = seed();
    for mutant in [&[""], &MUTANTS[..]].concat() {
        let mut server = Loop::new(
            &binary,
            seed,
            &[],
            &[&SHRUNK[..], &[("TIERCACHE_MUTANT", mutant)]].concat(),
        );
        let older = server.scratch().join("older");
        let found = (1..=MUTANT_CYCLES).find_map(|number| {
            // Once it is the machine that dies, and what was not synced is lost.
            let power_fails = number == POWER_LOSS_CYCLE;
            let report = server.cycle(End::Kill, flush_in(number), |folder| {
                if power_fails {
                    damage::copy_kills(folder, &older).expect("the folder can be copied");
                }
            });
            if power_fails {
                damage::lose_kills(&server.folder, &older).expect("the folder can be changed");
                server.set_variable("TIERCACHE_BOOT", &number.to_string());
                server.expect_cold();
            }
            let folder = server.folder.clone();
            damage::flip_bits(&folder, &mut server.random, ROTTEN_BITS)
                .expect("the folder can be changed");
            print(number, &report, server.histories.operations());
            let first = report.violations.first().cloned();
            first.map(|violation| (number, report.violations.len(), violation))
        });
        match &found {
            Some((number, count, first)) => {
                println!("{mutant}: found in cycle {number}, {count} times: {first}")
            }
            None => println!("{mutant}: not found in {MUTANT_CYCLES} cycles"),
        }
        assert_eq!(found.is_some(), !mutant.is_empty(), "{mutant:?}: {found:?}");
    }
}

fn flush_in(cycle: u64) -> Flush {
    match cycle % 7 {
        3 => Flush::Now,
        4 => Flush::Delayed,
        _ => Flush::No,
    }
}

fn print(number: u64, report: &Report, operations: usize) {
    println!(
        "cycle {number}: {} hits, {} % of them by dry, {} misses, {} dried keys replaced, {} % warm, {operations} operations checked",
        report.hits, report.dry_percent, report.misses, report.dried_replaced, report.warm_percent
    );
}
