//! Every order of claiming, killing, sealing and reopening a segment that the model checker tries.

use std::sync::Arc;

use shuttle::thread;

use super::{Arena, SegmentKind};
use crate::sync::atomic::{AtomicU32, Ordering::SeqCst};
use crate::sync::run_model;

const ITEM_WORDS: u32 = 10;
/// What is claimed by nobody.
const NONE: u32 = u32::MAX;

// Two items die and a reader claims while the writer seals and others take what is free: a claimed
// segment is never handed out, and each one is freed exactly once.
#[test]
fn a_claimed_segment_is_not_reused() {
    run_model(|| {
        let arena = Arc::new(Arena::new(2 * 64 << 10).unwrap());
        let free = arena.available();
        let claimed = Arc::new(AtomicU32::new(NONE));
        let number = arena.open(SegmentKind::Hot, 0, 1).unwrap();
        let [first, second] = [0, 1].map(|_| arena.append(number, ITEM_WORDS));

        let mut threads = Vec::new();
        for address in [first, second] {
            let arena = Arc::clone(&arena);
            threads.push(thread::spawn(move || arena.kill(address, ITEM_WORDS)));
        }
        {
            let arena = Arc::clone(&arena);
            threads.push(thread::spawn(move || arena.seal(number)));
        }
        {
            let (arena, claimed) = (Arc::clone(&arena), Arc::clone(&claimed));
            threads.push(thread::spawn(move || {
                if arena.claim(number) {
                    claimed.store(number, SeqCst);
                    assert!(arena.segment(number).in_use() && !arena.segment(number).is_sealed());
                    claimed.store(NONE, SeqCst);
                    arena.unclaim(number);
                }
            }));
        }
        {
            let (arena, claimed) = (Arc::clone(&arena), Arc::clone(&claimed));
            threads.push(thread::spawn(move || {
                let mut all = Vec::new();
                while let Some(opened) = arena.open(SegmentKind::Cold, 0, 2) {
                    assert_ne!(claimed.load(SeqCst), opened, "handed out while claimed");
                    all.push(opened);
                }
                for opened in all {
                    arena.seal(opened);
                }
            }));
        }
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(arena.available(), free, "each segment is freed once");
        assert!(arena.segments().iter().all(|segment| !segment.in_use()));
    });
}
