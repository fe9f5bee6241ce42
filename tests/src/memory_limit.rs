//! A memory limit for a process and those it starts: a control group of its own, of either kind.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::world::run;

/// How far apart the limits are that are tried.
const STEP_BYTES: u64 = 256 << 10;

/// A control group; what is in it is killed when it is dropped.
pub struct MemoryLimit {
    group: PathBuf,
}

impl MemoryLimit {
    /// A group of that name and so many bytes, swap among them; none, said why, where this machine
    /// does not let us.
    pub fn new(name: &str, bytes: u64) -> Option<Self> {
        let name = format!("rdrivefs-{name}-{}", std::process::id());
        let root = PathBuf::from("/sys/fs/cgroup");
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let one = own.lines().find(|line| line.split(':').nth(1) == Some("memory"));
        let (group, limits) = match one {
            Some(_) => {
                (root.join("memory").join(name), ["memory.limit_in_bytes", "memory.swappiness"])
            }
            None => (root.join(name), ["memory.max", "memory.swap.max"]),
        };
        // The second kind lends its controllers to the groups below by name.
        drop(fs::write(root.join("cgroup.subtree_control"), "+memory"));
        if let Err(e) = fs::create_dir(&group) {
            println!("skipped: no control group can be made: {e}");
            return None;
        }
        let limit = Self { group };
        if !limit.group.join(limits[0]).exists() {
            println!("skipped: nobody counts memory here");
            return None;
        }
        if let Err(e) = fs::write(limit.group.join(limits[0]), bytes.to_string()) {
            println!("skipped: no limit of memory can be set: {e}");
            return None;
        }
        // Without swap the limit is met sooner; where nobody counts it, nothing is lost.
        drop(fs::write(limit.group.join(limits[1]), "0"));
        let said = run(&mut limit.inside(&Command::new("true")));
        if said.code != Some(0) {
            println!("skipped: nobody can be put under a limit of memory: {said:?}");
            return None;
        }
        Some(limit)
    }

    /// The same command, inside; what it starts is inside too.
    pub fn inside(&self, command: &Command) -> Command {
        let mut sh = Command::new("sh");
        sh.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(self.group.join("cgroup.procs"));
        sh.arg(command.get_program()).args(command.get_args());
        sh.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        sh
    }

    /// Narrows the limit to what is used, or as far below as the kernel lets us: whoever then needs
    /// more is killed.
    pub fn squeeze(&self) {
        let files = ["memory.usage_in_bytes", "memory.current"].map(|file| self.group.join(file));
        let text = files.iter().find_map(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        let mut bytes = text.trim().parse().unwrap_or(0);
        while bytes > STEP_BYTES && self.set(bytes) {
            bytes -= STEP_BYTES;
        }
    }

    /// How many processes the kernel has killed in it.
    pub fn kills(&self) -> u64 {
        let files = ["memory.events", "memory.oom_control"].map(|file| self.group.join(file));
        let text = files.iter().find_map(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.parse().ok()).unwrap_or(0)
    }

    /// Changes the limit; whether the kernel could shrink the group to it.
    pub fn set(&self, bytes: u64) -> bool {
        let files = ["memory.limit_in_bytes", "memory.max"].map(|file| self.group.join(file));
        let file = files.iter().find(|file| file.exists());
        file.is_some_and(|file| fs::write(file, bytes.to_string()).is_ok())
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        let pids = fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
        for pid in pids.split_whitespace() {
            drop(run(Command::new("kill").arg("-9").arg(pid)));
        }
        // A process that was killed leaves the group a little later.
        for _ in 0..500 {
            if fs::remove_dir(&self.group).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
