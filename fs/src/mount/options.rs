//! What follows `-o`: the words of `mount(8)` and a few of our own.

use super::error::MountError;

/// How a drive is to be mounted. The default is what a person wants of a folder of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Other users may reach the mount, within its permissions.
    pub allow_other: bool,
    /// Nothing may be changed through the mount.
    pub read_only: bool,
    /// The mount point may hold files; they are covered while the mount lasts.
    pub nonempty: bool,
    /// Set-user-id and set-group-id bits count.
    pub suid: bool,
    /// Device nodes open devices.
    pub dev: bool,
    /// Programs may be run from the mount.
    pub exec: bool,
    /// Reading changes no access time.
    pub noatime: bool,
    /// What the table of mounts shows as the source.
    pub fsname: String,
    /// Threads of the request loop; by default enough for the processors at hand.
    pub threads: Option<usize>,
}

/// A request loop needs one thread to wait in and one to answer WRITEs; beyond this many nothing
/// is gained, and each may hold a request of 1 MiB.
const THREADS: std::ops::RangeInclusive<usize> = 4..=64;

/// Every word that [`Options::parse`] knows, for who met one that it does not.
pub const KNOWN: &str = "allow_other, atime, auto, comment=, default_permissions, defaults, dev, \
    exec, fsname=, noatime, noauto, nodev, noexec, nofail, nonempty, nosuid, nouser, relatime, ro, \
    rw, suid, threads=, user, users, _netdev, x-*";

impl Default for Options {
    fn default() -> Self {
        Self {
            allow_other: false,
            read_only: false,
            nonempty: false,
            suid: false,
            dev: false,
            exec: true,
            noatime: false,
            fsname: "rdrivefs".into(),
            threads: None,
        }
    }
}

impl Options {
    /// The options in a list such as `ro,allow_other`, over those there are.
    pub fn parse(mut self, list: &str) -> Result<Self, MountError> {
        for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            self.take(word)?;
        }
        Ok(self)
    }

    fn take(&mut self, word: &str) -> Result<(), MountError> {
        let refused = |why: &str| MountError::Option { option: word.into(), why: why.into() };
        let (key, value) = word.split_once('=').map_or((word, None), |(k, v)| (k, Some(v)));
        match (key, value) {
            ("allow_other", None) => self.allow_other = true,
            ("ro", None) => self.read_only = true,
            ("rw", None) => self.read_only = false,
            ("nonempty", None) => self.nonempty = true,
            ("suid", None) => self.suid = true,
            ("nosuid", None) => self.suid = false,
            ("dev", None) => self.dev = true,
            ("nodev", None) => self.dev = false,
            ("exec", None) => self.exec = true,
            ("noexec", None) => self.exec = false,
            ("noatime", None) => self.noatime = true,
            ("atime" | "relatime", None) => self.noatime = false,
            ("defaults", None) => (self.suid, self.dev, self.exec) = (false, false, true),
            ("fsname", Some(name)) if is_plain(name) => self.fsname = name.into(),
            ("fsname", Some(_)) => return Err(refused("a name without control characters")),
            ("threads", Some(count)) => {
                let count = count.parse().ok().filter(|count| THREADS.contains(count));
                self.threads = Some(count.ok_or_else(|| refused("a number from 4 to 64"))?);
            }
            // Always so here: the kernel checks permissions.
            ("default_permissions", None) => {}
            // For `mount`, systemd and fstab, who have heeded them.
            ("auto" | "noauto" | "user" | "nouser" | "users" | "nofail" | "_netdev", None)
            | ("comment", Some(_)) => {}
            (key, _) if key.starts_with("x-") => {}
            _ => return Err(refused("not an option of rdrivefs")),
        }
        Ok(())
    }
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c.is_control() || c == '\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_counts() {
        let options = Options::default().parse("ro,suid, allow_other,rw,threads=6,x-gvfs").unwrap();
        assert!(!options.read_only && options.suid && options.allow_other && !options.dev);
        assert_eq!(options.threads, Some(6));
    }

    #[test]
    fn every_known_word_is_taken() {
        for word in KNOWN.split(',').map(str::trim) {
            let word = match word {
                "threads=" => "threads=8".to_owned(),
                word if word.ends_with('=') => format!("{word}name"),
                word => word.replace('*', "any"),
            };
            assert!(Options::default().parse(&word).is_ok(), "{word}");
        }
    }

    #[test]
    fn an_unknown_or_bad_word_is_named() {
        for list in ["ro,allowother", "threads=1", "threads=many", "ro=1", "fsname=", "direct_io"] {
            let error = Options::default().parse(list).unwrap_err().to_string();
            let word = list.rsplit(',').next().unwrap();
            assert!(error.contains(word), "{error}");
        }
    }
}
