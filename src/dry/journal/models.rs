//! Every order of storing kills and folding full files that the model checker tries.

use std::sync::Arc;

use shuttle::thread;

use super::*;
use crate::sync::run_model;

const UUID: u64 = 77;
/// Slots of a file: so few that three writers fill files under the folder's hands.
const SLOTS: u64 = 2;

// Three threads store kills and one folds: each kill is folded once or still found, none is lost, none
// is folded before it is whole.
#[test]
fn a_fold_loses_no_kill() {
    // Each schedule makes the files anew: in memory, where a sync costs nothing.
    let memory = std::path::Path::new("/dev/shm");
    let dir = if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    };
    let folder = Arc::new(Folder::open(dir.path()).unwrap());
    run_model(move || {
        let journal =
            Arc::new(Journal::start(&folder, UUID, SLOTS * WORD_BYTES as u64, false).unwrap());
        let writers: Vec<_> = (0..3u32)
            .map(|writer| {
                let journal = Arc::clone(&journal);
                thread::spawn(move || {
                    for offset in 0..2 {
                        let place = Place {
                            segment: 1 + writer,
                            offset,
                        };
                        assert_ne!(journal.kill(place), Stored::No);
                    }
                })
            })
            .collect();
        let folding = {
            let journal = Arc::clone(&journal);
            thread::spawn(move || {
                let mut kills = Vec::new();
                for _ in 0..4 {
                    if let Some(places) = journal.full() {
                        kills.extend(places);
                        journal.folded().unwrap();
                    }
                    thread::yield_now();
                }
                kills
            })
        };
        for writer in writers {
            writer.join().unwrap();
        }
        let mut kills = folding.join().unwrap();
        kills.extend(recover(&folder, UUID).unwrap().unwrap());
        kills.sort_unstable();
        let all: Vec<_> = (0..3)
            .flat_map(|writer| {
                (0..2).map(move |offset| Place {
                    segment: 1 + writer,
                    offset,
                })
            })
            .collect();
        assert_eq!(kills, all);
    });
}
