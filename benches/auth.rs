//! Whether the time of a look-up tells what was wrong: Welch's t between pairs of kinds of tries.
//!
//! `cargo bench --bench auth`; `TRIES=N` changes how many tries of each kind there are. Kinds take
//! turns at random. The slowest hundredth of all tries, which interruptions make, is left out. Above
//! 4.5 in size, a t says that the times differ.

use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

use tiercache::auth::{AuthConfig, Users};

const TRIES_DEFAULT: usize = 100_000;
const T_MAX: f64 = 4.5;

/// A user and a password, of the same lengths throughout.
type Try = (&'static str, &'static str);

const RIGHT: Try = ("user0000", "password-0000-right");
const PAIRS: [(&str, Try, Try); 4] = [
    (
        "known and unknown user",
        ("user0000", "password-0000-wrong"),
        ("nobody00", "password-0000-wrong"),
    ),
    (
        "right and wrong password",
        RIGHT,
        ("user0000", "password-0000-wrong"),
    ),
    (
        "wrong from the first and in the last byte",
        ("user0000", "xassword-0000-right"),
        ("user0000", "password-0000-righx"),
    ),
    (
        "first and last user of the file",
        RIGHT,
        ("user0099", "password-0099-right"),
    ),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let tries = std::env::var("TRIES")
        .ok()
        .and_then(|text| text.parse().ok());
    let tries = tries.unwrap_or(TRIES_DEFAULT);
    let mut file = tempfile::NamedTempFile::new()?;
    for number in 0..100 {
        writeln!(file, "user{number:04}:password-{number:04}-right")?;
    }
    let users = Users::open(&AuthConfig {
        file: file.path().to_owned(),
        sasl: false,
    })?;
    let mut differs = false;
    for (name, one, other) in PAIRS {
        let times = measure(&users, [one, other], tries);
        let t = welch(&times);
        let [one, other] = times.map(|times| mean(&times));
        println!("{name}: {one:.1} and {other:.1} ns, t = {t:.2}");
        differs |= t.abs() > T_MAX;
    }
    if differs {
        return Err("the times differ".into());
    }
    Ok(())
}

/// Nanoseconds of each try of both kinds.
fn measure(users: &Users, kinds: [Try; 2], tries: usize) -> [Vec<f64>; 2] {
    let mut times = [const { Vec::new() }; 2];
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..2 * tries {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let kind = (random >> 40) as usize % 2;
        // Both kinds come through the same buffer, so that no address tells them apart.
        let (user, password) = black_box(kinds[kind]);
        let (user, password) = (user.as_bytes().to_vec(), password.as_bytes().to_vec());
        let begin = Instant::now();
        black_box(users.know(black_box(&user), black_box(&password)));
        times[kind].push(begin.elapsed().as_nanos() as f64);
    }
    let mut all = times.concat();
    all.sort_by(f64::total_cmp);
    let slowest = all[all.len() / 100 * 99];
    times.map(|times| times.into_iter().filter(|time| *time <= slowest).collect())
}

fn mean(times: &[f64]) -> f64 {
    times.iter().sum::<f64>() / times.len() as f64
}

fn welch([one, other]: &[Vec<f64>; 2]) -> f64 {
    let error = |times: &[f64]| {
        let mean = mean(times);
        let squares: f64 = times.iter().map(|time| (time - mean).powi(2)).sum();
        squares / (times.len() - 1) as f64 / times.len() as f64
    };
    (mean(one) - mean(other)) / (error(one) + error(other)).sqrt()
}
