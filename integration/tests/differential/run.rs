//! One comparison: epochs of random requests to two servers, their answers judged, and what differed reported.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tiercache_integration::random::Random;
use tiercache_integration::server::Server;
use tiercache_integration::{number_from_env, seed};

use super::coverage::{self, Coverage};
use super::endpoint::{self, Answer, End, Endpoint};
use super::generate::{Generator, Profile};
use super::reply::{self, CasNames, EXPLICIT_CAS_SMALL_MAX};
use super::script::{Ending, Request, show};
use super::{MODERN, known, meta};

/// Commands per epoch, and the time that they may take: far less than what lies between any two exptimes.
const EPOCH_COMMANDS: u64 = 250;
const EPOCH_TIME_MAX: Duration = Duration::from_secs(10);
/// Earlier steps that the report of a difference shows for each key that the request names.
const STEPS_SHOWN_MAX: usize = 8;
/// How often an epoch that took too long is played again before its difference counts.
const EPOCH_TRIES_MAX: u32 = 5;
/// Kinds of difference that one run reports before it stops, and differences in all.
const KINDS_MAX: usize = 40;
const DIFFERENCES_MAX: u64 = 1000;

/// Sends random requests to both servers until enough of them were compared.
pub fn compare(left: &Server, right: &Server) {
    let seed = seed();
    let commands = number_from_env("TIERCACHE_TEST_COMMANDS", 20_000);
    let modern = left.version() >= MODERN;
    println!("memcached {:?}, {commands} commands", left.version());
    let mut run = Run {
        endpoints: [Endpoint::new(left), Endpoint::new(right)],
        names: CasNames::default(),
        coverage: Coverage::default(),
        version: left.version(),
        accepted: 0,
        held_back: None,
        story: Vec::new(),
    };
    run.skip_small_cas_values();
    let mut seeds = Random::new(seed);
    let mut differences: BTreeMap<String, (u64, String)> = BTreeMap::new();
    let mut count = 0;
    let mut epoch = 0;
    while run.coverage.commands() < commands
        && differences.len() < KINDS_MAX
        && count < DIFFERENCES_MAX
    {
        epoch += 1;
        let random = Random::new(seeds.bits());
        for attempt in 0.. {
            let mut generator = Generator::new(
                random.clone(),
                Profile { modern },
                format!("e{epoch}.{attempt}"),
            );
            let started = Instant::now();
            let Err(difference) = run.epoch(&mut generator) else {
                break;
            };
            run.endpoints.iter_mut().for_each(Endpoint::reset);
            // Slow, and so perhaps only an item that expired on one side first.
            if started.elapsed() > EPOCH_TIME_MAX && attempt < EPOCH_TRIES_MAX {
                continue;
            }
            count += 1;
            let example = format!("epoch {epoch}: {}", difference.text);
            differences.entry(difference.kind).or_insert((0, example)).0 += 1;
            break;
        }
    }
    run.coverage.print();
    println!("{} answers accepted as known differences", run.accepted);
    for (kind, (count, example)) in &differences {
        println!("{count} times {kind}\n  {example}");
    }
    assert_eq!(
        count,
        0,
        "{count} differences of {} kinds, see above",
        differences.len()
    );
    assert!(run.coverage.malformed_percent() >= 20);
}

/// Two answers that are not the same.
struct Difference {
    /// What differences of one cause have in common.
    kind: String,
    text: String,
}

struct Run<'a> {
    endpoints: [Endpoint<'a>; 2],
    names: CasNames,
    coverage: Coverage,
    version: (u32, u32, u32),
    accepted: u64,
    /// A request that must start the next pipeline.
    held_back: Option<Request>,
    /// What this epoch sent and got, for the report of a difference.
    story: Vec<Step>,
}

/// One or more requests that were answered alike, or as a known difference allows.
struct Step {
    sent: Vec<Vec<u8>>,
    answer: Answer,
}

impl Step {
    /// The requests that name one of `keys` or touch all of them, and the answer.
    fn about(&self, keys: &[Vec<u8>]) -> Option<String> {
        let names = |request: &&Vec<u8>| {
            request.starts_with(b"flush_all") || keys.iter().any(|key| contains(request, key))
        };
        let sent: Vec<String> = self
            .sent
            .iter()
            .filter(names)
            .map(|request| show(request))
            .collect();
        (!sent.is_empty()).then(|| format!("{} -> {}", sent.join(" "), show_answer(&self.answer)))
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

impl Run<'_> {
    /// Moves both servers' own CAS values above the small ones that scripts set themselves.
    fn skip_small_cas_values(&mut self) {
        let sets = "set skip 0 0 1 noreply\r\n1\r\n".repeat(EXPLICIT_CAS_SMALL_MAX as usize + 1);
        for endpoint in &mut self.endpoints {
            endpoint.send(sets.as_bytes(), &[]);
            endpoint.send(endpoint::mark(), &[]);
            assert_eq!(endpoint.answer().replies, []);
        }
    }

    fn epoch(&mut self, generator: &mut Generator) -> Result<(), Difference> {
        self.held_back = None;
        self.story.clear();
        let mut sent = 0;
        while sent < EPOCH_COMMANDS {
            let length = generator.random.pick(&[1, 1, 2, 3, 8, 20]);
            sent += self.pipeline(generator, length)?;
        }
        Ok(())
    }

    /// Sends up to `length` requests at once, each followed by a mark so that its answer is known, and compares.
    fn pipeline(&mut self, generator: &mut Generator, length: usize) -> Result<u64, Difference> {
        // One in four pipelines has a single mark at its end: quiet runs and long output as real clients make them.
        let marks_between = generator.random.chance(75) || !generator.profile.modern;
        let mut groups: Vec<Vec<Request>> = Vec::new();
        for _ in 0..length {
            let request = match self.held_back.take() {
                Some(request) => request,
                None => generator.request(),
            };
            if request.fresh && !groups.is_empty() {
                self.held_back = Some(request);
                break;
            }
            let closes = request.ending == Ending::Closes;
            self.coverage.request(&request);
            match groups.last_mut() {
                Some(group) if !marks_between && !request.alone && !group[0].alone => {
                    group.push(request)
                }
                _ => groups.push(vec![request]),
            }
            if closes {
                break;
            }
        }
        let cuts_count = generator.random.below(4);
        let cuts: Vec<u64> = (0..cuts_count)
            .map(|_| generator.random.below(1001))
            .collect();
        for side in 0..2 {
            let bytes = self.bytes(&groups, side);
            let mut cuts: Vec<usize> = cuts
                .iter()
                .map(|cut| bytes.len() * *cut as usize / 1000)
                .collect();
            cuts.sort_unstable();
            self.endpoints[side].send(&bytes, &cuts);
        }
        for group in &groups {
            let answers = [self.endpoints[0].answer(), self.endpoints[1].answer()];
            self.judge(generator, group, &answers)?;
        }
        Ok(groups.iter().map(|group| group.len() as u64).sum())
    }

    fn bytes(&self, groups: &[Vec<Request>], side: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for group in groups {
            for request in group {
                bytes.extend(request.bytes(self.names.values(side)));
            }
            if group.last().is_some_and(|last| last.ending == Ending::Open) {
                bytes.extend_from_slice(endpoint::mark());
            }
        }
        bytes
    }

    fn judge(
        &mut self,
        generator: &mut Generator,
        group: &[Request],
        answers: &[Answer; 2],
    ) -> Result<(), Difference> {
        if let [request] = group {
            self.coverage.answer(request, &answers[0]);
        }
        let [left, right] = answers;
        let same = left.end == right.end
            && left.end != End::Silent
            && left.replies.len() == right.replies.len()
            && left
                .replies
                .iter()
                .zip(&right.replies)
                .all(|(left, right)| reply::same(&mut self.names, left, right));
        let accepted = !same
            && matches!(group, [request] if known::explains(
                self.version,
                request,
                self.names.values(0),
                left,
                right,
            ));
        if same {
            self.learn(generator, group, left);
        }
        if same || accepted {
            self.accepted += u64::from(accepted);
            let values = self.names.values(0);
            self.story.push(Step {
                sent: group.iter().map(|request| request.bytes(values)).collect(),
                answer: left.clone(),
            });
            return Ok(());
        }
        let sent: Vec<String> = group
            .iter()
            .map(|request| show(&request.bytes(self.names.values(0))))
            .collect();
        let label = match group {
            [request] => format!(
                "{} {}",
                request.command,
                request.flags.first().map_or("-", String::as_str)
            ),
            _ => String::from("pipeline"),
        };
        Err(Difference {
            kind: format!(
                "{label}: {} / {}",
                coverage::kind(left),
                coverage::kind(right)
            ),
            text: format!(
                "{}sent {}\n  memcached {}\n  tiercache {}",
                self.earlier(generator, group),
                sent.join("\n       "),
                show_answer(left),
                show_answer(right)
            ),
        })
    }

    /// The last steps of the epoch that named a key of `group`, one a line.
    fn earlier(&self, generator: &Generator, group: &[Request]) -> String {
        let sent: Vec<u8> = group
            .iter()
            .flat_map(|request| request.bytes(self.names.values(0)))
            .collect();
        // A key in both its spellings is one key.
        let keys: Vec<[Vec<u8>; 2]> = generator
            .keys()
            .map(|key| {
                [
                    key.clone().into_bytes(),
                    meta::base64(key.as_bytes()).into_bytes(),
                ]
            })
            .filter(|spellings| spellings.iter().any(|key| contains(&sent, key)))
            .collect();
        let shown_max = STEPS_SHOWN_MAX * keys.len();
        let keys = keys.concat();
        let steps: Vec<String> = self
            .story
            .iter()
            .filter_map(|step| step.about(&keys))
            .collect();
        let from = steps.len().saturating_sub(shown_max);
        steps[from..]
            .iter()
            .map(|step| format!("after {step}\n  "))
            .collect()
    }

    /// Later requests may use the CAS value that this reply told.
    fn learn(&self, generator: &mut Generator, group: &[Request], answer: &Answer) {
        let [Request { key: Some(key), .. }] = group else {
            return;
        };
        for reply in &answer.replies {
            for value in reply::cas_values(&reply.line) {
                if let Some(symbol) = self.names.symbol(value) {
                    generator.learn(key, symbol);
                }
            }
        }
    }
}

pub fn show_answer(answer: &Answer) -> String {
    format!("{} {:?}", show(&bytes_of(answer)), answer.end)
}

/// The replies as they came.
pub fn bytes_of(answer: &Answer) -> Vec<u8> {
    let mut bytes = Vec::new();
    for reply in &answer.replies {
        bytes.extend_from_slice(&reply.line);
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(reply.data.as_deref().unwrap_or_default());
    }
    bytes
}
