//! Counts what a run compared, per command, flag and kind of reply.

use std::collections::{BTreeMap, BTreeSet};

use super::endpoint::{Answer, End};
use super::script::Request;
use super::syntax::Syntax;

#[derive(Default)]
pub struct Coverage {
    counts: BTreeMap<(&'static str, String), BTreeMap<String, u64>>,
    commands: u64,
    malformed: u64,
}

impl Coverage {
    /// Counts a request that is sent; its reply may stay unattributed within a raw pipeline.
    pub fn request(&mut self, request: &Request) {
        self.commands += 1;
        self.malformed += u64::from(request.malformed);
    }

    /// Counts the answer to one request under each of its flags.
    pub fn answer<S: Syntax>(&mut self, request: &Request, answer: &Answer<S::Reply>) {
        let kind = kind::<S>(answer);
        let plain = [String::from("-")];
        let flags = if request.flags.is_empty() {
            &plain[..]
        } else {
            &request.flags[..]
        };
        for flag in flags {
            *self
                .counts
                .entry((request.command, flag.clone()))
                .or_default()
                .entry(kind.clone())
                .or_default() += 1;
        }
    }

    pub fn commands(&self) -> u64 {
        self.commands
    }

    pub fn malformed_percent(&self) -> u64 {
        self.malformed * 100 / self.commands.max(1)
    }

    pub fn print(&self) {
        println!("{:<14} {:<28} replies", "command", "flag");
        for ((command, flag), replies) in &self.counts {
            let replies: Vec<String> = replies
                .iter()
                .map(|(kind, count)| format!("{kind} {count}"))
                .collect();
            println!("{command:<14} {flag:<28} {}", replies.join(", "));
        }
        let cells: usize = self.counts.values().map(BTreeMap::len).sum();
        let kinds: BTreeSet<&String> = self.counts.values().flat_map(BTreeMap::keys).collect();
        println!(
            "{} commands, {} % malformed, {} command x flag x reply cells, {} kinds of reply",
            self.commands,
            self.malformed_percent(),
            cells,
            kinds.len()
        );
    }
}

/// The answer in a few words.
pub fn kind<S: Syntax>(answer: &Answer<S::Reply>) -> String {
    let mut kind = S::kind(&answer.replies);
    match answer.end {
        End::Open => {}
        End::Closed => kind.push_str(" (closed)"),
        End::Silent => kind.push_str(" (silent)"),
    }
    kind
}
