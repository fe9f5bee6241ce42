//! Failures on the terminal: what failed, why, what to do next; and the exit codes.

use std::process::ExitCode;

use crate::error::Error;

/// It failed.
const FAILED: u8 = 1;
/// Something is corrupt or missing.
pub(super) const CORRUPT: u8 = 3;
/// It would break a promise.
const REFUSED: u8 = 5;
/// Another process holds it.
const BUSY: u8 = 7;

/// Why a command did not do its work.
#[derive(Debug)]
pub(super) struct Failure {
    code: u8,
    what: String,
    next: Option<String>,
}

impl Failure {
    /// A failure with an exit code and, where there is one, the next step.
    pub(super) fn new(code: u8, what: impl Into<String>, next: Option<&str>) -> Self {
        Self { code, what: what.into(), next: next.map(str::to_owned) }
    }

    /// Tells the person (or the script) and gives the exit code.
    pub(super) fn report(&self, json: bool) -> ExitCode {
        if json {
            let error = serde_json::json!({ "error": self.what, "next": self.next });
            println!("{error}");
        }
        eprintln!("rdrivefs-node: {}", self.what);
        if let Some(next) = &self.next {
            eprintln!("  {next}");
        }
        ExitCode::from(self.code)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        use std::io::ErrorKind;
        let (code, next) = match &error {
            Error::Io { source, .. } => match source.kind() {
                ErrorKind::ResourceBusy => {
                    (BUSY, Some("a node runs there: stop it first, or name another --store"))
                }
                ErrorKind::AddrInUse => {
                    (BUSY, Some("another program has the port: stop it, or name another --listen"))
                }
                ErrorKind::PermissionDenied => {
                    (FAILED, Some("run it as the owner of the store, or name another --store"))
                }
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                    (FAILED, Some("the disk is full: free some space"))
                }
                ErrorKind::AddrNotAvailable => {
                    (FAILED, Some("this machine has no such address: see `ip address`"))
                }
                _ => (FAILED, None),
            },
            Error::Full => (FAILED, Some("the disk is full: free some space")),
            Error::UnknownVersion { .. } => {
                (FAILED, Some("a newer rdrivefs-node wrote it: install that version"))
            }
            Error::Malformed { what: "node key", .. } => {
                (CORRUPT, Some("restore node.key from a copy: clients know the node by it"))
            }
            Error::Malformed { .. } | Error::Corrupt { .. } | Error::Forged(_) => {
                (CORRUPT, Some("run `rdrivefs-node scrub` to see what is damaged"))
            }
            Error::Refused(_) => (REFUSED, None),
            _ => (FAILED, None),
        };
        Self::new(code, error.to_string(), next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_contract() {
        let io = |kind: std::io::ErrorKind| Failure::from(Error::io("x")(kind.into())).code;
        assert_eq!(io(std::io::ErrorKind::AddrInUse), 7);
        assert_eq!(io(std::io::ErrorKind::ResourceBusy), 7);
        assert_eq!(io(std::io::ErrorKind::StorageFull), 1);
        assert_eq!(Failure::from(Error::Forged("x")).code, 3);
        assert_eq!(Failure::from(Error::Refused("x".into())).code, 5);
    }
}
