//! Properties: how input is split does not matter, and what is written is read again.

use crate::session::{Event, check_round_trips, play};
use crate::soup::soup;
use proptest::prelude::*;

/// Cuts `input` at `places`, which wrap around its length.
pub(crate) fn cut<'a>(input: &'a [u8], places: &[usize]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = places
        .iter()
        .map(|place| place % (input.len() + 1))
        .collect();
    places.extend([0, input.len()]);
    places.sort_unstable();
    places
        .windows(2)
        .map(|pair| &input[pair[0]..pair[1]])
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    // Any split of the input yields the same.
    #[test]
    fn split_anywhere(input in soup(), places in proptest::collection::vec(any::<usize>(), 0..12)) {
        let whole = play([&input[..]]);
        prop_assert_eq!(&play(cut(&input, &places)), &whole);
        prop_assert_eq!(&play(input.chunks(1)), &whole);
    }

    // A request that was decoded and written is decoded to the same.
    #[test]
    fn round_trip(input in soup()) {
        check_round_trips(&play([&input[..]]).0);
    }

    // Random bytes are survived.
    #[test]
    fn noise(input in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert_eq!(play(input.chunks(3)), play([&input[..]]));
    }
}

// The parts of a long get line do not depend on where the reads ended.
#[test]
fn long_get_lines_are_cut_alike() {
    let keys: String = (0..40_000).map(|n| format!(" key:{n}")).collect();
    let input = format!("mn\r\ngats 60{keys}\r\nget a\r\n");
    let whole = play([input.as_bytes()]);
    assert!(whole.0.len() > 3);
    for size in [1, 1000, 4096, 65_535, 65_536, 65_537, 131_072] {
        assert_eq!(play(input.as_bytes().chunks(size)), whole, "{size}");
    }
    let parts: Vec<u8> = whole.0[1..whole.0.len() - 1]
        .iter()
        .flat_map(|event| match event {
            Event::Request { bytes, debug } => {
                let last = debug.contains("last: true");
                assert_eq!(last, event == &whole.0[whole.0.len() - 2]);
                bytes["gats 60".len()..bytes.len() - 2].to_vec()
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(parts, keys.as_bytes());
}
