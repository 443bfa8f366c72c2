//! Whose a remote store is, and what a tier does that has lost its own.

use super::super::store::Spool;
use super::super::store::memory::MemoryRemote;
use super::super::store::remote::Remote;
use super::remote::{
    check_all, filled, open, remote_config, remote_stats, set_all, try_open, uploaded,
};
use super::tape::{Failure, Tape};
use super::*;
use crate::dry::device::{Device, Kind};

fn names(remote: &MemoryRemote) -> Vec<String> {
    let mut names = remote.names();
    names.retain(|name| name.contains('-'));
    names
}

// Of two copies of a spool one dies in a start before its claim. The other one goes on, overwrites and dies, as often or
// more often: it counts to the same number of starts, and yet the first copy is out of date.
#[test]
fn a_copy_that_died_before_its_claim_is_not_believed_later() {
    for starts_of_the_other in 1..4 {
        let dir = tempfile::tempdir().unwrap();
        let (remote, first) = filled(dir.path(), 0..3000);
        first.dry.close(Close::Clean).unwrap();
        drop(first);
        let copy = crash(dir.path());
        let config = remote_config(copy.path());
        remote.frozen.store(true, SeqCst);
        assert!(try_open(&config, &remote, boot()).is_err());
        remote.frozen.store(false, SeqCst);
        for _ in 0..starts_of_the_other {
            let first = open(&remote_config(dir.path()), &remote);
            assert_ne!(*first.dry.start(), Start::New);
            first.delete("key 6");
            first.dry.close(Close::Dirty).unwrap();
        }
        let second = open(&config, &remote);
        assert_eq!(second.get("key 6"), None, "it was deleted");
        assert!(matches!(second.dry.start(), Start::SetAside(_)));
    }
}

// A machine takes the store over and dies before it says so: until somebody else has started, it is done again.
#[test]
fn a_takeover_that_died_before_its_claim_is_done_again() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let config = remote_config(dirs[1].path());
    let (remote, first) = filled(dirs[0].path(), 0..3000);
    first.dry.close(Close::Clean).unwrap();
    remote.frozen.store(true, SeqCst);
    assert!(try_open(&config, &remote, boot()).is_err());
    remote.frozen.store(false, SeqCst);
    let second = open(&config, &remote);
    check_all(&second, 0..3000);
}

// What cannot be read may say that another machine has used the store: nobody is warm on that.
#[test]
fn a_damaged_manifest_is_read_again_and_believed_by_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let config = remote_config(dir.path());
    let (remote, first) = filled(dir.path(), 0..2000);
    first.dry.close(Close::Clean).unwrap();
    drop(first);
    remote.damaged_gets.store(2, SeqCst);
    let second = open(&config, &remote);
    check_all(&second, 0..2000);
    second.dry.close(Close::Clean).unwrap();
    drop(second);
    remote.damaged_gets.store(3, SeqCst);
    let third = open(&config, &remote);
    assert!(matches!(third.dry.start(), Start::SetAside(_)));
    assert_eq!(third.get("key 1"), None);
}

// Two processes on one place: the later one has it, the other one notices with its next segment and gives up.
#[test]
fn whoever_lost_its_store_uploads_nothing_more() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (remote, first) = filled(dirs[0].path(), 0..2000);
    let second = open(&remote_config(dirs[1].path()), &remote);
    let before = names(&remote);
    let mut number = 2000;
    while first.dry.tier_state() != TierState::Failed {
        let _ = first.set(&format!("key {number}"), "more ".repeat(300).as_str());
        number += 1;
        assert!(number < 1_000_000, "it goes on as if nothing had happened");
        first.dry.wait_for_room(Duration::from_millis(1));
    }
    assert_eq!(names(&remote), before);
    set_all(&second, 0..2000);
    uploaded(&second);
    check_all(&second, 0..2000);
}

// A store that somebody emptied is still this run's: its objects are lost, new ones go there.
#[test]
fn an_emptied_store_is_claimed_again() {
    let dir = tempfile::tempdir().unwrap();
    let (remote, caller) = filled(dir.path(), 0..2000);
    for name in remote.names() {
        remote.delete(&name).unwrap();
    }
    set_all(&caller, 2000..4000);
    uploaded(&caller);
    assert_eq!(caller.dry.tier_state(), TierState::Ok);
    check_all(&caller, 2000..4000);
    caller.dry.close(Close::Clean).unwrap();
    drop(caller);
    let again = open(&remote_config(dir.path()), &remote);
    assert_eq!(*again.dry.start(), Start::Clean);
    check_all(&again, 2000..4000);
}

// Where the spool has no room for the rows of an upload that was confirmed, it is not paid for again.
#[test]
fn a_full_spool_does_not_repeat_a_confirmed_upload() {
    let (dir, tape) = (tempfile::tempdir().unwrap(), Arc::new(Tape::default()));
    let device = Device {
        tape: Some(Arc::clone(&tape)),
    };
    let folder = Arc::new(crate::dry::folder::Folder::open_on(dir.path(), device).unwrap());
    let remote = Arc::new(MemoryRemote::default());
    let config = remote_config(dir.path());
    let spool = Spool::new(folder, Arc::clone(&remote) as Arc<dyn Remote>, &config);
    spool.begin(1);
    let segment = spool.create(7).unwrap();
    assert_eq!(segment.append(0, &[1; 1000]).unwrap(), 1000);
    tape.fail(Some(Failure {
        kind: Kind::Write,
        from: 1,
        error: rustix::io::Errno::NOSPC,
    }));
    assert!(spool.upload(7, &[800..900, 900..1000]).is_err());
    assert!(spool.upload(7, &[800..900, 900..1000]).is_err());
    tape.fail(None);
    assert!(spool.upload(7, &[800..900, 900..1000]).unwrap());
    assert_eq!(spool.stats().puts, 1);
}

// Adoption reads each table once.
#[test]
fn a_takeover_reads_no_range_twice() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let (remote, first) = filled(dirs[0].path(), 0..5000);
    first.dry.close(Close::Clean).unwrap();
    let segments = names(&remote).len() as u64;
    let before = remote.reads.load(SeqCst);
    let second = open(&remote_config(dirs[1].path()), &remote);
    let reads = remote.reads.load(SeqCst) - before;
    // A segment of 1 MiB has one table; its footer comes with it.
    assert!(
        (segments..=3 * segments).contains(&reads),
        "{reads} reads for {segments} segments"
    );
    check_all(&second, 0..5000);
    assert_eq!(remote_stats(&second).errors, 0);
}
