//! One comparison: epochs of random requests to two servers, their answers judged, and what differed reported.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tiercache_integration::random::Random;
use tiercache_integration::server::Server;
use tiercache_integration::{number_from_env, seed};

use super::coverage::{self, Coverage};
use super::endpoint::{Answer, End, Endpoint};
use super::generate::{Generator, Profile};
use super::reply::{CasNames, EXPLICIT_CAS_SMALL_MAX};
use super::script::{Ending, Request, show};
use super::syntax::Syntax;
use super::{MODERN, meta};

/// Commands per epoch, and the time that they may take: far less than what lies between any two exptimes.
const EPOCH_COMMANDS: u64 = 250;
const EPOCH_TIME_MAX: Duration = Duration::from_secs(10);
/// Earlier steps that the report of a difference shows for each key that the request names.
const STEPS_SHOWN_MAX: usize = 8;
/// How often an epoch that took too long is played again before its difference counts.
const EPOCH_TRIES_MAX: u32 = 5;
/// The same for one in which memcached broke off a connection: some do so half of the time, on one side or the other.
const BROKEN_OFF_TRIES_MAX: u32 = 20;
/// Kinds of difference that one run reports before it stops, and differences in all.
const KINDS_MAX: usize = 40;
const DIFFERENCES_MAX: u64 = 1000;

/// Sends random requests to both servers until enough of them were compared.
///
/// On a busy machine memcached breaks off a connection without a word once in some 40,000 binary requests, beside
/// itself too. Such an epoch is played again as one that took too long is: what has a reason shows again.
/// `memcacheds` of the servers, counted from the left, may do so.
pub fn compare<S: Syntax>(left: &Server, right: &Server, memcacheds: usize) {
    let seed = seed();
    let commands = number_from_env("TIERCACHE_TEST_COMMANDS", 20_000);
    let modern = left.version() >= MODERN;
    println!("memcached {:?}, {commands} commands", left.version());
    skip_small_cas_values(left);
    skip_small_cas_values(right);
    let mut run = Run::<S> {
        endpoints: [Endpoint::new(left), Endpoint::new(right)],
        names: CasNames::default(),
        coverage: Coverage::default(),
        version: left.version(),
        accepted: 0,
        held_back: None,
        story: Vec::new(),
    };
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
            let tries_max = match difference.broken_off {
                Some(side) if side < memcacheds => BROKEN_OFF_TRIES_MAX,
                _ if started.elapsed() > EPOCH_TIME_MAX => EPOCH_TRIES_MAX,
                _ => 0,
            };
            if attempt < tries_max {
                println!("epoch {epoch} is played again: {}", difference.kind);
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
    /// The side that closed the connection where the other one had more to say.
    broken_off: Option<usize>,
}

struct Run<'a, S: Syntax> {
    endpoints: [Endpoint<'a, S>; 2],
    names: CasNames,
    coverage: Coverage,
    version: (u32, u32, u32),
    accepted: u64,
    /// A request that must start the next pipeline.
    held_back: Option<Request>,
    /// What this epoch sent and got, for the report of a difference.
    story: Vec<Step<S::Reply>>,
}

/// One or more requests that were answered alike, or as a known difference allows.
struct Step<R> {
    sent: Vec<Request>,
    answer: Answer<R>,
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Moves a server's own CAS values above the small ones that scripts set themselves.
fn skip_small_cas_values(server: &Server) {
    let sets = "set skip 0 0 1 noreply\r\n1\r\n".repeat(EXPLICIT_CAS_SMALL_MAX as usize + 1);
    let reply = server.connect().ask(format!("{sets}mn\r\n").as_bytes());
    assert_eq!(reply.expect("the server answers"), b"MN");
}

impl<S: Syntax> Run<'_, S> {
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
                None => S::request(generator),
            };
            if request.fresh && !groups.is_empty() {
                self.held_back = Some(request);
                break;
            }
            let closes = request.ending != Ending::Open;
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
        let last = groups.last().and_then(|group| group.last());
        let finishes = last.is_some_and(|last| last.ending == Ending::Finishes);
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
            if finishes {
                self.endpoints[side].finish();
            }
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
                bytes.extend_from_slice(S::MARK);
            }
        }
        bytes
    }

    fn judge(
        &mut self,
        generator: &mut Generator,
        group: &[Request],
        answers: &[Answer<S::Reply>; 2],
    ) -> Result<(), Difference> {
        if let [request] = group {
            self.coverage.answer::<S>(request, &answers[0]);
        }
        let [left, right] = answers;
        let same = left.end == right.end
            && left.end != End::Silent
            && left.replies.len() == right.replies.len()
            && left
                .replies
                .iter()
                .zip(&right.replies)
                .all(|(left, right)| S::same(&mut self.names, left, right));
        let accepted = !same
            && left.end == right.end
            && matches!(group, [request] if S::explains(
                self.version,
                &request.bytes(self.names.values(0)),
                &left.replies,
                &right.replies,
            ));
        if same {
            self.learn(generator, group, left);
        }
        if same || accepted {
            self.accepted += u64::from(accepted);
            self.story.push(Step {
                sent: group.to_vec(),
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
        let broken_off = (0..2).find(|&side| {
            let (answer, other) = (&answers[side], &answers[1 - side]);
            answer.end == End::Closed
                && other.end != End::Silent
                && other.replies.len() >= answer.replies.len()
                && (other.end == End::Open || other.replies.len() > answer.replies.len())
        });
        Err(Difference {
            broken_off,
            kind: format!(
                "{label}: {} / {}",
                coverage::kind::<S>(left),
                coverage::kind::<S>(right)
            ),
            text: format!(
                "{}sent {}\n  memcached {}\n  tiercache {}",
                self.earlier(generator, group),
                sent.join("\n       "),
                show_answer::<S>(left),
                show_answer::<S>(right)
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
            .filter_map(|step| self.about(step, &keys))
            .collect();
        let from = steps.len().saturating_sub(shown_max);
        steps[from..]
            .iter()
            .map(|step| format!("after {step}\n  "))
            .collect()
    }

    /// The requests of a step that name one of `keys` or touch all of them, and the answer.
    fn about(&self, step: &Step<S::Reply>, keys: &[Vec<u8>]) -> Option<String> {
        let sent: Vec<String> = step
            .sent
            .iter()
            .map(|request| (request, request.bytes(self.names.values(0))))
            .filter(|(request, bytes)| {
                request.command.starts_with("flush") || keys.iter().any(|key| contains(bytes, key))
            })
            .map(|(_, bytes)| show(&bytes))
            .collect();
        let answer = show_answer::<S>(&step.answer);
        (!sent.is_empty()).then(|| format!("{} -> {answer}", sent.join(" ")))
    }

    /// Later requests may use the CAS value that this reply told.
    fn learn(&self, generator: &mut Generator, group: &[Request], answer: &Answer<S::Reply>) {
        let [Request { key: Some(key), .. }] = group else {
            return;
        };
        for reply in &answer.replies {
            for value in S::cas_values(reply) {
                if let Some(symbol) = self.names.symbol(value) {
                    generator.learn(key, symbol);
                }
            }
        }
    }
}

pub fn show_answer<S: Syntax>(answer: &Answer<S::Reply>) -> String {
    format!("{} {:?}", show(&bytes_of::<S>(answer)), answer.end)
}

/// The replies as they came.
pub fn bytes_of<S: Syntax>(answer: &Answer<S::Reply>) -> Vec<u8> {
    answer.replies.iter().flat_map(S::bytes).collect()
}
