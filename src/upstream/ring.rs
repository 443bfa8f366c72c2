//! The ring: which server of a pool has a key.
//!
//! Points and placement are those of libmemcached (`ketama`, `ketama_weighted`) and of twemproxy
//! (`distribution: ketama`), bit for bit, so that other clients of the same servers find the same
//! keys in the same places. A server that is down keeps its points: a miss is better than a key in
//! two places.

use serde::{Deserialize, Serialize};

use super::hash::{KeyHash, md5, md5_point};

/// Which points a server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Points {
    /// libmemcached's `ketama`: 100 points for each server if all weights are 1, else as
    /// [`KetamaWeighted`](Self::KetamaWeighted); keys are hashed one-at-a-time unless told otherwise.
    Ketama,
    /// libmemcached's `ketama_weighted`, twemproxy's `ketama`: about 160 points for each server, by
    /// weight.
    #[default]
    KetamaWeighted,
}

impl Points {
    /// The key hash that libmemcached uses with these points.
    pub fn key_hash(self) -> KeyHash {
        match self {
            Points::Ketama => KeyHash::OneAtATime,
            Points::KetamaWeighted => KeyHash::Md5,
        }
    }
}

/// A server as a ring sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// What is hashed for its points: `host:port`, or only `host` for the port 11211, or any name.
    pub name: String,
    /// Its share of the keys, relative to the others'.
    pub weight: u32,
}

/// The points of all servers of a pool, in order.
#[derive(Debug, Clone)]
pub struct Ring {
    points: Vec<(u32, u32)>,
    key_hash: KeyHash,
    hash_tag: Option<(u8, u8)>,
}

/// Points of a server without regard to weight.
const KETAMA_POINTS: u32 = 100;
/// Points of a server of mean weight.
const WEIGHTED_POINTS: f32 = 160.0;
/// Points that one MD5 digest gives.
const POINTS_PER_DIGEST: usize = 4;

impl Ring {
    /// The ring of `members`, whose places in it are their indexes. With `hash_tag`, only what
    /// stands between the two characters is hashed of a key that has both of them.
    pub fn new(
        members: &[Member],
        points: Points,
        key_hash: KeyHash,
        hash_tag: Option<(u8, u8)>,
    ) -> Ring {
        let weighted = points == Points::KetamaWeighted || members.iter().any(|m| m.weight != 1);
        let weights: u32 = members.iter().map(|member| member.weight).sum();
        let mut ring = Vec::new();
        for (index, member) in (0..).zip(members) {
            if !weighted {
                ring.extend((0..KETAMA_POINTS).map(|number| {
                    let point = format!("{}-{number}", member.name);
                    (KeyHash::OneAtATime.place(point.as_bytes()), index)
                }));
                continue;
            }
            for number in 0..digests(member.weight, weights, members.len()) {
                let digest = md5(format!("{}-{number}", member.name).as_bytes());
                ring.extend((0..POINTS_PER_DIGEST).map(|part| (md5_point(&digest, part), index)));
            }
        }
        ring.sort_unstable();
        Ring {
            points: ring,
            key_hash,
            hash_tag,
        }
    }

    /// The index of the member that has `key`; 0 for a ring without points.
    #[inline]
    pub fn member(&self, key: &[u8]) -> usize {
        let hashed = self.hashed_part(key);
        if hashed.is_empty() {
            return 0;
        }
        let place = self.key_hash.place(hashed);
        let at = self.points.partition_point(|(point, _)| *point < place);
        let found = self.points.get(at).or(self.points.first());
        found.map_or(0, |(_, index)| *index as usize)
    }

    fn hashed_part<'k>(&self, key: &'k [u8]) -> &'k [u8] {
        let Some((open, close)) = self.hash_tag else {
            return key;
        };
        let Some(begin) = memchr::memchr(open, key).map(|at| at + 1) else {
            return key;
        };
        match memchr::memchr(close, &key[begin..]) {
            Some(length) if length > 0 => &key[begin..begin + length],
            _ => key,
        }
    }
}

/// Digests of a member's points, in the single-precision steps of the C programs.
fn digests(weight: u32, weights: u32, members: usize) -> u32 {
    let share = weight as f32 / weights as f32;
    let digests = share * WEIGHTED_POINTS / POINTS_PER_DIGEST as f32 * members as f32;
    (f64::from(digests) + 0.000_000_000_1) as f32 as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const EQUAL: &[(&str, u32)] = &[
        ("127.0.0.1:22122", 1),
        ("127.0.0.1:22123", 1),
        ("127.0.0.1:22124", 1),
    ];
    const WEIGHTS: &[(&str, u32)] = &[
        ("10.0.0.1:22122", 1),
        ("10.0.0.2:22122", 2),
        ("10.0.0.3:22122", 5),
    ];
    // Two of them at port 11211, which their names leave out.
    const DEFAULT_PORT: &[(&str, u32)] = &[
        ("cache-a", 1),
        ("cache-b", 1),
        ("cache-c:11212", 3),
        ("cache-d", 7),
    ];

    fn members(names: &[(&str, u32)]) -> Vec<Member> {
        let member = |(name, weight): &(&str, u32)| Member {
            name: (*name).to_owned(),
            weight: *weight,
        };
        names.iter().map(member).collect()
    }

    /// CRC-32 of the members of `key:0` to `key:9999`, and how many of them the first two have.
    fn placement(ring: &Ring) -> (u32, [usize; 2]) {
        let key = |number| format!("key:{number}").into_bytes();
        let places: Vec<u8> = (0..10_000).map(|n| ring.member(&key(n)) as u8).collect();
        let count = |member| places.iter().filter(|place| **place == member).count();
        (crc32fast::hash(&places), [count(0), count(1)])
    }

    // The figures are what libmemcached 1.1.4 itself answers for these servers and keys.
    #[test]
    fn keys_are_where_libmemcached_puts_them() {
        use Points::{Ketama, KetamaWeighted};
        let many: Vec<(String, u32)> = (0..17)
            .map(|i| match 11211 + i % 3 {
                11211 => (format!("10.1.0.{i}"), 1 + i % 4),
                port => (format!("10.1.0.{i}:{port}"), 1 + i % 4),
            })
            .collect();
        let many: Vec<(&str, u32)> = many.iter().map(|(name, w)| (name.as_str(), *w)).collect();
        for (servers, points, expected) in [
            (EQUAL, Ketama, (0xaa8e_05b5, [3517, 2976])),
            (EQUAL, KetamaWeighted, (0x1a8e_a86c, [3324, 3136])),
            (WEIGHTS, Ketama, (0x1980_3d52, [1181, 2635])),
            (WEIGHTS, KetamaWeighted, (0x8d14_6b37, [1170, 2665])),
            (DEFAULT_PORT, Ketama, (0x2d45_e086, [772, 715])),
            (DEFAULT_PORT, KetamaWeighted, (0xac73_5d86, [786, 737])),
            (&many, Ketama, (0xe3da_f18d, [237, 518])),
            (&many, KetamaWeighted, (0x7c83_3da6, [206, 518])),
        ] {
            let ring = Ring::new(&members(servers), points, points.key_hash(), None);
            assert_eq!(placement(&ring), expected, "{points:?} {servers:?}");
        }
    }

    #[test]
    fn a_hash_tag_decides_alone() {
        let ring = |tag| {
            Ring::new(
                &members(EQUAL),
                Points::KetamaWeighted,
                KeyHash::Fnv1a64,
                tag,
            )
        };
        let (tagged, plain) = (ring(Some((b'{', b'}'))), ring(None));
        for key in ["{user1}:name", "a{user1}b", "{user1}"] {
            assert_eq!(
                tagged.member(key.as_bytes()),
                plain.member(b"user1"),
                "{key}"
            );
        }
        for key in ["{}x", "user1}{", "{user1", "none"] {
            assert_eq!(
                tagged.member(key.as_bytes()),
                plain.member(key.as_bytes()),
                "{key}"
            );
        }
    }

    // The empty text and "foobar" are in the hashes' published test vectors.
    #[test]
    fn fnv_gives_its_published_values() {
        assert_eq!(KeyHash::Fnv1a32.place(b""), 0x811c_9dc5);
        assert_eq!(KeyHash::Fnv1a32.place(b"foobar"), 0xbf9c_f968);
        assert_eq!(KeyHash::Fnv1_32.place(b"foobar"), 0x31f0_b262);
        assert_eq!(KeyHash::Fnv1_64.place(b"foobar"), 0xa4dd_a9c2);
    }
}
