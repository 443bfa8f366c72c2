//! How much memory the machine, or the container the process lives in, has to offer.

use std::path::{Path, PathBuf};

use crate::units::ByteSize;

/// What the defaults depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Bytes of memory: the lowest of the machine's and the control groups' limits.
    pub memory: ByteSize,
    /// Cores this process may use.
    pub cores: usize,
}

impl Machine {
    /// Asks the kernel.
    pub fn probe() -> Machine {
        let info = rustix::system::sysinfo();
        // The field's width differs between architectures.
        #[allow(clippy::unnecessary_cast)]
        let installed = (info.totalram as u64).saturating_mul(u64::from(info.mem_unit));
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let limit = control_group_limit(&groups, Path::new("/sys/fs/cgroup"));
        Machine {
            memory: ByteSize(limit.map_or(installed, |limit| limit.min(installed))),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// The lowest memory limit of the control groups that `/proc/self/cgroup` names, versions 1 and 2.
fn control_group_limit(groups: &str, root: &Path) -> Option<u64> {
    groups
        .lines()
        .filter_map(|line| group_limit(line, root))
        .min()
}

/// The lowest limit on the way from one group up to the root.
fn group_limit(line: &str, root: &Path) -> Option<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    let (base, file): (PathBuf, &str) = match controllers {
        "" => (root.to_owned(), "memory.max"),
        names if names.split(',').any(|name| name == "memory") => {
            (root.join("memory"), "memory.limit_in_bytes")
        }
        _ => return None,
    };
    let group = base.join(path.trim_start_matches('/'));
    // A container sees its own group as the root while the file names the path outside.
    let above = group
        .ancestors()
        .take_while(|folder| folder.starts_with(&base));
    above
        .filter_map(|folder| {
            std::fs::read_to_string(folder.join(file))
                .ok()?
                .trim()
                .parse()
                .ok()
        })
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    // The tightest limit counts, also one that stands on a group further up.
    #[test]
    fn the_lowest_limit_on_the_path_counts() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("a/b")).unwrap();
        std::fs::write(root.path().join("a/memory.max"), "1000\n").unwrap();
        std::fs::write(root.path().join("a/b/memory.max"), "max\n").unwrap();
        assert_eq!(control_group_limit("0::/a/b\n", root.path()), Some(1000));
        assert_eq!(
            control_group_limit("0::/elsewhere\n3:cpu:/a\n", root.path()),
            None
        );
    }
}
