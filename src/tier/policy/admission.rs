//! Which items are worth a place in dry: a pure function.
//!
//! What is not admitted is dropped as it leaves RAM. That is always safe: a copy of an older value
//! was killed when it became old.

use crate::tier::config::Admission;

/// What is known of an item that leaves RAM.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Hits since it was stored, and one if it came back soon after it had left.
    pub hits: u8,
    /// About how often its key was used, over several stays in RAM.
    pub uses: u32,
    /// The mean of that among the items that dry gives up, which it would replace; 0 while dry has
    /// room.
    pub rival_uses: f64,
}

/// Whether an item is dried.
pub fn admits(admission: Admission, candidate: Candidate) -> bool {
    match admission {
        Admission::All => true,
        Admission::SeenTwice => candidate.hits > 0,
        Admission::TinyLfu => f64::from(candidate.uses) > candidate.rival_uses,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_choice_looks_at_its_own_facts() {
        let once = Candidate {
            hits: 0,
            uses: 1,
            rival_uses: 0.0,
        };
        let twice = Candidate { hits: 1, ..once };
        assert!(admits(Admission::All, once));
        assert!(!admits(Admission::SeenTwice, once) && admits(Admission::SeenTwice, twice));
        // As long as dry has room everybody is let in; then who is used more than who would go.
        assert!(admits(Admission::TinyLfu, once));
        let rival_uses = 1.2;
        assert!(!admits(
            Admission::TinyLfu,
            Candidate { rival_uses, ..once }
        ));
        assert!(admits(
            Admission::TinyLfu,
            Candidate {
                uses: 2,
                rival_uses,
                ..once
            }
        ));
    }
}
