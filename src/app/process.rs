//! The process: limits, identity, locked memory, the file with its id. Before any thread exists.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{
    DumpableBehavior, Gid, Resource, Rlimit, Uid, getrlimit, set_dumpable_behavior, setrlimit,
    umask,
};
use rustix::thread::{set_no_new_privs, set_thread_gid, set_thread_groups, set_thread_uid};

use crate::config::Process;

/// File descriptors beside those of connections: listeners, runtimes, files of the dry tier.
const DESCRIPTORS_BESIDE: u64 = 4096;

/// Of these, what a start insists on.
const DESCRIPTORS_BESIDE_MIN: u64 = 64;

/// memcached's rule: root's rights are given up, or kept on purpose (`-u root`).
pub(super) fn check_identity(process: &Process) -> anyhow::Result<()> {
    if process.user.is_none() && rustix::process::geteuid().is_root() {
        bail!(
            "can't run as root without the -u switch (-u USER gives root's rights up, -u root keeps them)"
        );
    }
    Ok(())
}

/// Prepares the process. Returns lines that the start has to show.
pub(super) fn prepare(process: &Process, connections_max: usize) -> anyhow::Result<Vec<String>> {
    let mut notices = Vec::new();
    // Files hold what clients stored, sockets let clients in: neither is everybody's unless asked.
    umask(Mode::from_raw_mode(0o077));
    raise_descriptors(connections_max as u64)?;
    if process.core_dumps {
        raise_core_limit()?;
    } else {
        forbid_cores();
    }
    match (&process.user, rustix::process::geteuid().is_root()) {
        (Some(user), true) => become_user(user)?,
        (Some(user), false) => {
            notices.push(format!("not started as root, so -u {user} changes nothing"))
        }
        (None, _) => {}
    }
    if process.core_dumps {
        // Changing the user took that away.
        set_dumpable_behavior(DumpableBehavior::Dumpable).context("-r: allow core files")?;
    }
    set_no_new_privs(true).context("give up gaining rights by starting other programs")?;
    if process.lock_memory {
        // On fault: what is reserved but not used yet need not be in memory.
        let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
        if let Err(error) = mlockall(flags) {
            notices.push(format!("-k: memory is not locked: {error}"));
        }
    }
    Ok(notices)
}

fn raise_descriptors(connections_max: u64) -> anyhow::Result<()> {
    let now = getrlimit(Resource::Nofile);
    // No current limit is an unlimited one.
    let Some(current) = now.current else {
        return Ok(());
    };
    let wanted = connections_max + DESCRIPTORS_BESIDE;
    if current >= wanted {
        return Ok(());
    }
    let within = now.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let higher = Rlimit {
        current: Some(wanted),
        maximum: Some(now.maximum.unwrap_or(wanted).max(wanted)),
    };
    // Only root may raise the hard limit.
    if setrlimit(Resource::Nofile, higher).is_ok() {
        return Ok(());
    }
    let raised = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(within),
            maximum: now.maximum,
        },
    );
    let reached = if raised.is_ok() { within } else { current };
    if reached < connections_max + DESCRIPTORS_BESIDE_MIN {
        bail!(
            "{connections_max} connections need more open files than the {reached} that are allowed; \
             raise the limit (ulimit -n) or lower -c"
        );
    }
    Ok(())
}

fn raise_core_limit() -> anyhow::Result<()> {
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    if setrlimit(Resource::Core, unlimited).is_err() {
        let maximum = getrlimit(Resource::Core).maximum;
        // It fails no more than the first try: the check below tells what was reached.
        let _ = setrlimit(
            Resource::Core,
            Rlimit {
                current: maximum,
                maximum,
            },
        );
    }
    match getrlimit(Resource::Core).current {
        Some(0) => bail!("-r: core files cannot be had, their hard limit is 0"),
        _ => Ok(()),
    }
}

/// A core file holds what clients stored. Only the limit in force is lowered: `-r` may raise it again.
fn forbid_cores() {
    let maximum = getrlimit(Resource::Core).maximum;
    let none = Rlimit {
        current: Some(0),
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "forbid core files");
    }
}

/// Gives up root's rights. The identity is the thread's, so this comes before all other threads.
fn become_user(name: &str) -> anyhow::Result<()> {
    let accounts = fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
    let Some((uid, gid)) = find_user(&accounts, name) else {
        bail!("-u: there is no user {name} in /etc/passwd");
    };
    match set_thread_groups(&[]) {
        Ok(()) | Err(Errno::PERM) => {}
        Err(error) => bail!("-u {name}: give up supplementary groups: {error}"),
    }
    set_thread_gid(Gid::from_raw(gid)).with_context(|| format!("-u {name}: change the group"))?;
    set_thread_uid(Uid::from_raw(uid)).with_context(|| format!("-u {name}: change the user"))?;
    if uid != 0 && set_thread_uid(Uid::ROOT).is_ok() {
        bail!("-u {name}: root's rights could be taken back");
    }
    Ok(())
}

/// The user and group id of an account, by name or user id.
fn find_user(accounts: &str, name: &str) -> Option<(u32, u32)> {
    accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (account, _, uid, gid) = (
            fields.next()?,
            fields.next()?,
            fields.next()?,
            fields.next()?,
        );
        (account == name || uid == name).then_some(())?;
        Some((uid.parse().ok()?, gid.parse().ok()?))
    })
}

/// The file with the process id; removed when dropped.
#[derive(Debug)]
pub(super) struct PidFile(PathBuf);

impl PidFile {
    /// Writes it, whole or not at all.
    pub(super) fn write(path: &Path) -> anyhow::Result<PidFile> {
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".tmp");
        let write = || {
            let mut file = fs::File::create(&unfinished)?;
            // Whoever supervises the process may be anybody.
            file.set_permissions(fs::Permissions::from_mode(0o644))?;
            writeln!(file, "{}", std::process::id())?;
            fs::rename(&unfinished, path)
        };
        write().with_context(|| format!("write the process id to {}", path.display()))?;
        Ok(PidFile(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "remove the file with the process id");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_by_number() {
        let accounts = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/:/bin/false\nbroken\n";
        assert_eq!(find_user(accounts, "web"), Some((33, 34)));
        assert_eq!(find_user(accounts, "0"), Some((0, 0)));
        assert_eq!(find_user(accounts, "broken"), None);
        assert_eq!(find_user(accounts, "we"), None);
    }
}
