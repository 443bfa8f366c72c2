//! One request, items in all three tiers: the answer is complete and in the order of the keys.

use tempfile::TempDir;
use tiercache_integration::client::{Client, Hit, Stats};
use tiercache_integration::load::Items;
use tiercache_integration::server::Server;

const ITEMS: Items = Items { value_bytes: 1024 };
/// Several times the 8 MiB of RAM.
const COUNT: u64 = 40_000;
/// Items that were read before others pushed them out of hot, so that they move to cold.
const READ_BEFORE: std::ops::Range<u64> = 27_000..30_000;
/// Reading moves items to other tiers: each try takes keys that no try before it took.
const TRIES_MAX: u64 = 10;
/// Hits that each tier must give to one multi-get.
const PER_TIER_MIN: u64 = 5;

// However many tiers a request touches, its answer is that of one cache.
#[test]
fn a_multi_get_over_all_tiers_is_complete_and_in_order() {
    let folder = TempDir::new().expect("a temporary folder can be made");
    let server = filled(&folder);
    let mut client = server.connect();
    let mut seen = Vec::new();
    for attempt in 0..TRIES_MAX {
        let numbers = mixed(attempt, 100);
        let before = server.stats();
        client
            .send(&get_request(&numbers))
            .expect("the server reads");
        let hits = client.hits().expect("the server answers");
        check_hits(&numbers, &hits);
        let tiers = growth(&before, &server.stats());
        assert_eq!(tiers.iter().sum::<u64>(), 100, "{tiers:?}");
        if tiers.iter().all(|&hits| hits >= PER_TIER_MIN) {
            println!("hits by hot, cold and dry: {tiers:?}");
            return;
        }
        seen.push(tiers);
    }
    panic!("no multi-get met {PER_TIER_MIN} items of each tier: {seen:?}");
}

// The replies of a pipeline keep its order although some of them must wait for the disk.
#[test]
fn a_pipeline_over_all_tiers_is_answered_in_order() {
    let folder = TempDir::new().expect("a temporary folder can be made");
    let server = filled(&folder);
    let mut client = server.connect();
    let mut seen = Vec::new();
    for attempt in 0..TRIES_MAX {
        let numbers = mixed(attempt, 16);
        let before = server.stats();
        let pipeline: Vec<u8> = numbers
            .iter()
            .flat_map(|number| get_request(&[*number]))
            .collect();
        client.send(&pipeline).expect("the server reads");
        for number in &numbers {
            check_hits(&[*number], &client.hits().expect("the server answers"));
        }
        let tiers = growth(&before, &server.stats());
        if tiers.iter().all(|&hits| hits > 0) {
            println!("hits by hot, cold and dry: {tiers:?}");
            return;
        }
        seen.push(tiers);
    }
    panic!("no pipeline met items of each tier: {seen:?}");
}

fn filled(folder: &TempDir) -> Server {
    let dry = folder.path().join("dry").display().to_string();
    let server = Server::tiercache(&["-m", "8", "--dry", &dry, "--dry-wait", "1s"]);
    let mut client = server.connect();
    store(&mut client, 0..READ_BEFORE.end);
    for _ in 0..2 {
        ITEMS
            .read(&mut client, READ_BEFORE, |_| Some(0))
            .expect("the server answers");
    }
    store(&mut client, READ_BEFORE.end..COUNT);
    server
}

fn store(client: &mut Client, numbers: std::ops::Range<u64>) {
    ITEMS
        .store(client, numbers, 0)
        .expect("every item is stored");
}

/// Numbers that take turns between the oldest items, those read before, and the newest.
fn mixed(attempt: u64, count: u64) -> Vec<u64> {
    (attempt * count..(attempt + 1) * count)
        .map(|index| match index % 3 {
            0 => index * 7,
            1 => READ_BEFORE.end - 1 - index,
            _ => COUNT - 1 - index,
        })
        .collect()
}

fn get_request(numbers: &[u64]) -> Vec<u8> {
    let mut request = b"get".to_vec();
    for number in numbers {
        request.push(b' ');
        request.extend(Items::key(*number));
    }
    request.extend_from_slice(b"\r\n");
    request
}

fn check_hits(numbers: &[u64], hits: &[Hit]) {
    let expected: Vec<Hit> = numbers
        .iter()
        .map(|&number| (Items::key(number), ITEMS.value(number, 0)))
        .collect();
    // Compared by key first: a difference in megabytes of values is no message.
    let keys = |hits: &[Hit]| -> Vec<String> {
        hits.iter()
            .map(|(key, _)| key.escape_ascii().to_string())
            .collect()
    };
    assert_eq!(keys(hits), keys(&expected));
    assert!(hits == expected, "the values are not those of their keys");
}

fn growth(before: &Stats, after: &Stats) -> [u64; 3] {
    ["hot_hits", "cold_hits", "dry_hits"].map(|name| after.growth(before, name))
}
