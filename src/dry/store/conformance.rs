//! What every store must do, checked on each: local, in memory, S3, GridFS.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::super::config::DryConfig;
use super::super::folder::Folder;
use super::memory::MemoryRemote;
use super::remote::Remote;
use super::{LocalStore, SegmentFile, SegmentStore, Spool};

/// Bytes that tell every place from every other one.
fn content(bytes: usize) -> Vec<u8> {
    (0..bytes as u32)
        .map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect()
}

fn read(file: &dyn SegmentFile, at: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    let filled = file.read_range(at, &mut out).unwrap();
    out.truncate(filled);
    out
}

/// Segments are appended to, completed, read in ranges from any place, listed, and deleted whole.
/// `complete` does what the store wants done with a complete segment.
fn check_segments(store: &dyn SegmentStore, complete: &dyn Fn(u32)) {
    let content = content(700_000);
    assert_eq!(store.list().unwrap(), [0; 0]);
    let segment = store.create(7).unwrap();
    assert!(store.create(7).is_err(), "numbers are never overwritten");
    let mut at = 0;
    while at < content.len() {
        let until = content.len().min(at + 100_000);
        at += segment.append(at as u64, &content[at..until]).unwrap();
    }
    segment.sync().unwrap();
    drop(store.create(9).unwrap());
    let check = |segment: &dyn SegmentFile| {
        assert_eq!(segment.bytes().unwrap(), content.len() as u64);
        // Around the places where stores cut: chunks of 255 KiB, blocks, the end.
        for at in [0, 1, 4095, 261_119, 261_120, 300_000, 522_239, 699_990] {
            for bytes in [1, 10, 4096, 300_000] {
                let end = content.len().min(at + bytes);
                assert!(
                    read(segment, at as u64, bytes) == content[at..end],
                    "{bytes} at {at}"
                );
            }
        }
        assert_eq!(read(segment, content.len() as u64, 5), [0; 0]);
    };
    check(&*segment);
    complete(7);
    check(&*segment);
    check(&*store.open(7).unwrap());
    let mut segments = store.list().unwrap();
    segments.sort_unstable();
    assert_eq!(segments, [7, 9]);
    store.delete(7).unwrap();
    store.delete(7).unwrap();
    assert!(store.open(7).is_err());
    assert_eq!(store.list().unwrap(), [9]);
}

/// Objects are put whole, read in ranges, listed with their age, and deleted; a small one is replaced by
/// whoever knows it.
fn check_remote(remote: &dyn Remote) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("content");
    let content = content(600_000);
    std::fs::write(&path, &content).unwrap();
    remote.check().unwrap();
    assert_eq!(remote.list().unwrap(), []);
    let mut out = vec![0; 10];
    let missing = remote.read("1-1", 0, &mut out).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound, "{missing}");
    remote.put("1-1", &path, content.len() as u64).unwrap();
    // As after an answer that was lost.
    remote.put("1-1", &path, content.len() as u64).unwrap();
    remote.put("1-2", &path, content.len() as u64).unwrap();
    for at in [0, 261_115, 599_990] {
        remote.read("1-1", at as u64, &mut out).unwrap();
        assert_eq!(out, content[at..at + 10]);
    }
    let mut most = vec![0; 599_999];
    remote.read("1-2", 1, &mut most).unwrap();
    assert!(most == content[1..]);
    let beyond = remote.read("1-1", 599_995, &mut out);
    assert!(beyond.is_err_and(|error| error.kind() != io::ErrorKind::NotFound));
    let mut listed = remote.list().unwrap();
    listed.sort_by(|one, other| one.name.cmp(&other.name));
    let names: Vec<&str> = listed.iter().map(|object| object.name.as_str()).collect();
    assert_eq!(names, ["1-1", "1-2"]);
    assert!(
        listed
            .iter()
            .all(|object| object.age < Duration::from_secs(600))
    );
    remote.delete("1-1").unwrap();
    remote.delete("1-1").unwrap();
    assert_eq!(remote.list().unwrap().len(), 1);
    remote.delete("1-2").unwrap();

    assert_eq!(remote.get("manifest").unwrap(), None);
    let first = remote
        .replace("manifest", b"one".to_vec(), None)
        .unwrap()
        .unwrap();
    assert_eq!(
        remote.replace("manifest", b"two".to_vec(), None).unwrap(),
        None
    );
    assert_eq!(
        remote.get("manifest").unwrap(),
        Some((b"one".to_vec(), first.clone()))
    );
    let second = remote
        .replace("manifest", b"two".to_vec(), Some(&first))
        .unwrap()
        .unwrap();
    assert_eq!(
        remote
            .replace("manifest", b"three".to_vec(), Some(&first))
            .unwrap(),
        None
    );
    assert_eq!(
        remote.get("manifest").unwrap(),
        Some((b"two".to_vec(), second))
    );
    remote.delete("manifest").unwrap();
}

/// Checks a remote store by itself, and as the store of a spool.
fn check(remote: Arc<dyn Remote>) {
    check_remote(&*remote);
    let dir = tempfile::tempdir().unwrap();
    let folder = Arc::new(Folder::open(dir.path()).unwrap());
    let spool = Spool::new(folder, Arc::clone(&remote), &DryConfig::default());
    spool.begin(1);
    check_segments(&spool, &|segment| {
        assert!(
            spool
                .upload(segment, &[100..200, 600_000..700_000])
                .unwrap()
        );
        assert!(!spool.upload(segment, &[]).unwrap(), "it is there already");
    });
    while let Some(deleted) = spool.delete_one() {
        deleted.unwrap();
    }
    assert_eq!(remote.list().unwrap(), []);
}

#[test]
fn local_segments_conform() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Arc::new(Folder::open(dir.path()).unwrap());
    check_segments(&LocalStore::new(folder), &|_| {});
}

#[test]
fn remote_segments_in_memory_conform() {
    check(Arc::new(MemoryRemote::default()));
}

#[cfg(feature = "s3")]
#[test]
fn segments_in_a_bucket_conform() {
    use tiercache_integration::s3::{BUCKET, S3Server};

    use super::super::config::{Checksums, S3Config};
    use super::s3::S3Store;

    let server = S3Server::start(1);
    for checksums in [Checksums::WhenSupported, Checksums::WhenRequired] {
        let config = S3Config {
            bucket: BUCKET.to_owned(),
            prefix: format!("{checksums:?}"),
            endpoint: Some(server.endpoint()),
            path_style: true,
            checksums,
            ..S3Config::default()
        };
        let keys = S3Server::credentials();
        check(Arc::new(
            S3Store::open_as(&config, Duration::from_secs(30), Some(keys)).unwrap(),
        ));
    }
}

#[cfg(feature = "mongodb")]
#[test]
fn segments_in_gridfs_conform() {
    use tiercache_integration::mongodb::MongoServer;

    use super::super::config::MongoDbConfig;
    use super::gridfs::GridFs;

    let server = MongoServer::start();
    let config = MongoDbConfig {
        uri: server.uri().to_owned(),
        database: server.database(),
        bucket: "conformance".to_owned(),
    };
    let limit = Duration::from_secs(30);
    check(Arc::new(GridFs::open(&config, limit, limit).unwrap()));
}
