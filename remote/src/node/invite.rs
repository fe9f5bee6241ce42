//! Invites: secrets that authorise one drive, once.
//!
//! On disk there is only the hash of the secret. To redeem one, the grant (which names the invite)
//! becomes durable first and the invite goes second: after a crash between the two the grant says
//! that the invite is used up, so it never counts twice.

use std::fs;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::env::{Env, WallMs};
use crate::error::{Error, Result};
use crate::identity::PublicKey;
use crate::node::allow::{Allow, Grant};
use crate::node::place::Place;
use crate::wire::InviteSecret;

/// Separates the hash of an invite from every other hash.
const CONTEXT: &str = "rdrivefs v1 invite";
/// What everyone learns whose invite is of no use: not which of the reasons it is.
pub(super) const USELESS: &str = "the invite is unknown, used or expired: ask for a new one";

/// An invite that was not used yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invite {
    /// Bytes the drive may use; without it the node's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<u64>,
    /// When it ends, in milliseconds since 1970 by the node's clock.
    pub expires_ms: u64,
}

/// The invites of a store.
#[derive(Debug)]
pub struct Invites {
    place: Place,
    /// Held while one is redeemed: of two who come at a time one is too late.
    turn: Mutex<()>,
}

impl Invites {
    /// The invites under `place`.
    pub fn new(place: &Place) -> Self {
        Self { place: place.clone(), turn: Mutex::default() }
    }

    /// Makes an invite; the secret is known to the caller alone.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(&self, invite: &Invite, env: &Env) -> Result<InviteSecret> {
        let secret = InviteSecret(env.random());
        let text = toml::to_string(invite).expect("an invite is plain data");
        self.place.write(&file(&hash(&secret)), text.as_bytes())?;
        Ok(secret)
    }

    /// Whether redeeming this now would succeed, as far as one can tell.
    pub fn is_good(&self, secret: &InviteSecret, now: WallMs) -> bool {
        self.read(&hash(secret), now).is_ok()
    }

    /// Uses an invite up for the drive of `root`, who is authorised when this returns.
    ///
    /// # Errors
    /// [`Error::Refused`] when it is unknown, used or expired.
    pub fn redeem(
        &self,
        secret: &InviteSecret,
        root: &PublicKey,
        allow: &Allow,
        now: WallMs,
    ) -> Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let hash = hash(secret);
        let invite = self.read(&hash, now)?;
        let taken = allow.all().iter().any(|(_, grant)| grant.invite.as_ref() == Some(&hash));
        if !taken {
            let grant =
                Grant { quota: invite.quota, added_ms: Some(now.0), invite: Some(hash.clone()) };
            allow.add(root, grant)?;
        }
        self.place.remove(&file(&hash))?;
        if taken { Err(useless()) } else { Ok(()) }
    }

    /// How many wait to be used, and removes those that ended.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sweep(&self, now: WallMs) -> Result<usize> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let io = || Error::io("reading invites");
        let mut waiting = 0;
        for entry in fs::read_dir(self.place.invites()).map_err(io())? {
            let name = entry.map_err(io())?.file_name();
            let Some(hash) = name.to_str().and_then(|n| n.strip_suffix(".toml")) else { continue };
            match self.read(hash, now) {
                Ok(_) => waiting += 1,
                Err(Error::Refused(_)) => drop(self.place.remove(&file(hash))?),
                Err(error) => tracing::warn!(%error, "an invite does not parse"),
            }
        }
        Ok(waiting)
    }

    fn read(&self, hash: &str, now: WallMs) -> Result<Invite> {
        let path = self.place.root().join(file(hash));
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(useless()),
            Err(e) => return Err(Error::io(format!("reading {}", path.display()))(e)),
        };
        let invite: Invite =
            toml::from_str(&text).map_err(|e| Error::malformed("invite", e.message()))?;
        if invite.expires_ms <= now.0 { Err(useless()) } else { Ok(invite) }
    }
}

fn useless() -> Error {
    Error::Refused(USELESS.to_owned())
}

fn hash(secret: &InviteSecret) -> String {
    hex::encode(blake3::derive_key(CONTEXT, &secret.0))
}

fn file(hash: &str) -> String {
    format!("invites/{hash}.toml")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> (tempfile::TempDir, Invites, Allow) {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::open(dir.path()).unwrap();
        let (invites, allow) = (Invites::new(&place), Allow::open(&place).unwrap());
        (dir, invites, allow)
    }

    #[test]
    fn an_invite_counts_once_even_in_a_race() {
        let (_dir, invites, allow) = world();
        let invite = Invite { quota: Some(9), expires_ms: 1000 };
        let secret = invites.create(&invite, &Env::real()).unwrap();
        let wins = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..16)
                .map(|i| {
                    let (secret, invites, allow) = (&secret, &invites, &allow);
                    scope.spawn(move || {
                        invites.redeem(secret, &PublicKey([i; 32]), allow, WallMs(5)).is_ok()
                    })
                })
                .collect();
            racers.into_iter().filter_map(|r| r.join().unwrap().then_some(())).count()
        });
        assert_eq!(wins, 1);
        assert_eq!(allow.all().len(), 1);
        assert_eq!(allow.all()[0].1.quota, Some(9));
    }

    #[test]
    fn a_crash_between_grant_and_removal_does_not_make_it_count_twice() {
        let (dir, invites, allow) = world();
        let invite = Invite { quota: None, expires_ms: 1000 };
        let secret = invites.create(&invite, &Env::real()).unwrap();
        let path = dir.path().join(file(&hash(&secret)));
        let before = fs::read(&path).unwrap();
        invites.redeem(&secret, &PublicKey([1; 32]), &allow, WallMs(5)).unwrap();
        fs::write(&path, before).unwrap();
        let again = invites.redeem(&secret, &PublicKey([2; 32]), &allow, WallMs(5));
        assert!(matches!(again, Err(Error::Refused(_))));
        assert!(allow.get(&PublicKey([2; 32])).is_none());
    }

    #[test]
    fn expired_and_invented_invites_are_refused() {
        let (_dir, invites, allow) = world();
        let invite = Invite { quota: None, expires_ms: 1000 };
        let secret = invites.create(&invite, &Env::real()).unwrap();
        assert!(invites.is_good(&secret, WallMs(999)));
        assert!(invites.redeem(&secret, &PublicKey([1; 32]), &allow, WallMs(1000)).is_err());
        let invented = InviteSecret([7; 16]);
        assert!(invites.redeem(&invented, &PublicKey([1; 32]), &allow, WallMs(1)).is_err());
        assert_eq!(invites.sweep(WallMs(1)).unwrap(), 1);
        assert_eq!(invites.sweep(WallMs(1000)).unwrap(), 0);
        assert!(allow.all().is_empty());
    }
}
