//! How much memory there is for this process: the cgroup's limit, else the machine's.

use std::fs;
use std::path::Path;

/// In bytes. `None` where the system does not say.
pub fn available() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let group = fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|text| group_limit(&text, Path::new("/sys/fs/cgroup")));
    // A cgroup may be given more than there is.
    machine.into_iter().chain(group).min()
}

/// `MemTotal:       16316412 kB`.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The smallest limit from this process's cgroup up to the root, of cgroup v2 (`0::/path`) or v1
/// (`4:memory:/path`). Inside a container the path may not be visible; then the root's own file counts.
///
/// <https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files>
fn group_limit(cgroup: &str, root: &Path) -> Option<u64> {
    let mut limits = Vec::new();
    for line in cgroup.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (mount, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            list if list.split(',').any(|name| name == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let group = mount.join(path.trim_start_matches('/'));
        for level in group.ancestors().take_while(|level| level.starts_with(&mount)) {
            let text = fs::read_to_string(level.join(file)).unwrap_or_default();
            limits.extend(text.trim().parse::<u64>().ok());
        }
    }
    limits.into_iter().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_cgroup_counts() {
        let root = tempfile::tempdir().unwrap();
        let pod = root.path().join("kubepods/pod");
        fs::create_dir_all(&pod).unwrap();
        fs::write(pod.join("memory.max"), "max\n").unwrap();
        fs::write(root.path().join("kubepods/memory.max"), "1048576\n").unwrap();
        assert_eq!(group_limit("0::/kubepods/pod\n", root.path()), Some(1 << 20));
        fs::write(pod.join("memory.max"), "4096\n").unwrap();
        assert_eq!(group_limit("0::/kubepods/pod\n", root.path()), Some(4096));
        assert_eq!(group_limit("0::/elsewhere\n", root.path()), None);
    }

    #[test]
    fn the_machine_says_what_it_has() {
        assert_eq!(total("MemTotal:        2048 kB\nMemFree: 1 kB\n"), Some(2 << 20));
        assert!(available().is_some_and(|bytes| bytes > 0));
    }
}
