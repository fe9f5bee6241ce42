//! What a keybag holds, and how it is written: one CBOR array.
//!
//! ```text
//! keys  = [drive, root, recovery: [wrap key, signature], device: seed, wrap: seed, number, instance,
//!          chunker, local, epochs: [+ epoch]]
//! shared = [root, recovery, chunker, epochs]      what one device hands to another
//! epoch = [key, parents: [* [id, key]]]          its id follows from these
//! ```

use minicbor::{Decode, Encode};
use rdrivefs_remote::identity::{DriveId, PublicKey, SecretKey, Signature};
use rdrivefs_remote::member::{EpochId, Membership};
use zeroize::Zeroizing;

use crate::id::DeviceNumber;
use crate::keys::{Epoch, PARENTS_MAX, RecoveryKey, WrapPublic, WrapSecret};
use crate::seal::Key;

/// More epochs than a drive that starts one every day has in twenty years.
pub const EPOCHS_MAX: usize = 8192;

/// Room for everything but the epochs.
const FIXED_BYTES: usize = 2048;
/// An epoch's key, and what its list of parents costs.
const EPOCH_BYTES: usize = 64;
const PARENT_BYTES: usize = 80;

/// Every secret of one device, with what it must not lose sight of.
#[derive(Clone)]
pub struct Secrets {
    /// The key of the drive's root, whose hash names the drive.
    pub root: PublicKey,
    /// Recovery's public key, vouched for by the root.
    pub recovery: RecoveryKey,
    /// This device's identity.
    pub device: SecretKey,
    /// What epochs are wrapped to for this device.
    pub wrap: WrapSecret,
    /// The number of this instance, in every id it makes.
    pub number: DeviceNumber,
    /// Which life of the device this is; its log's name has it.
    pub instance: u32,
    /// What the chunker's keys grow from: the drive's, for good.
    pub chunker: Key,
    /// Seals index, journal and cache on this computer alone.
    pub local: Key,
    /// The epochs, each after its parents; the last one seals what is new. Never empty.
    pub epochs: Vec<Epoch>,
}

/// What every device of a drive knows alike.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The key of the drive's root.
    pub root: PublicKey,
    /// Recovery's public key, vouched for by the root.
    pub recovery: RecoveryKey,
    /// What the chunker's keys grow from.
    pub chunker: Key,
    /// The epochs, each after its parents. Never empty.
    pub epochs: Vec<Epoch>,
}

/// As it travels.
#[derive(Encode, Decode)]
#[cbor(array)]
pub(crate) struct WireShared {
    #[n(0)]
    root: PublicKey,
    #[n(1)]
    recovery: WireRecovery,
    #[n(2)]
    chunker: Key,
    #[n(3)]
    epochs: Vec<WireEpoch>,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct Wire {
    #[n(0)]
    drive: DriveId,
    #[n(1)]
    root: PublicKey,
    #[n(2)]
    recovery: WireRecovery,
    #[n(3)]
    device: Key,
    #[n(4)]
    wrap: Key,
    #[n(5)]
    number: DeviceNumber,
    #[n(6)]
    instance: u32,
    #[n(7)]
    chunker: Key,
    #[n(8)]
    local: Key,
    #[n(9)]
    epochs: Vec<WireEpoch>,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct WireRecovery {
    #[cbor(n(0), with = "minicbor::bytes")]
    key: Vec<u8>,
    #[n(1)]
    signature: Signature,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct WireEpoch {
    #[n(0)]
    key: Key,
    #[n(1)]
    parents: Vec<(EpochId, Key)>,
}

impl Secrets {
    /// The drive.
    pub fn drive(&self) -> DriveId {
        DriveId::of(&self.root)
    }

    /// The epoch that seals what is new.
    pub fn epoch(&self) -> &Epoch {
        self.epochs.last().expect("a device has an epoch from its first moment")
    }

    /// The epoch of this name, if this device was let into it.
    pub fn epoch_of(&self, id: &EpochId) -> Option<&Epoch> {
        self.epochs.iter().rev().find(|epoch| epoch.id() == *id)
    }

    /// What other devices know as well.
    pub fn shared(&self) -> Shared {
        Shared {
            root: self.root,
            recovery: self.recovery.clone(),
            chunker: self.chunker.clone(),
            epochs: self.epochs.clone(),
        }
    }

    /// The epochs that no other one of these follows.
    pub fn newest_epochs(&self) -> impl Iterator<Item = &Epoch> {
        let followed =
            |id| self.epochs.iter().any(|epoch| epoch.parents().any(|parent| parent == id));
        self.epochs.iter().filter(move |epoch| !followed(epoch.id()))
    }

    /// Takes more epochs, in the order in which the membership has them, so that every device seals
    /// what is new in the same one.
    pub(crate) fn add_epochs(&mut self, more: Vec<Epoch>, membership: &Membership) {
        self.epochs.extend(more);
        let place =
            |epoch: &Epoch| membership.epochs().iter().position(|record| record.id == epoch.id());
        self.epochs.sort_by_key(place);
    }

    pub(super) fn encode(&self) -> Zeroizing<Vec<u8>> {
        assert!(!self.epochs.is_empty() && self.epochs.len() <= EPOCHS_MAX, "a bag's bounds");
        let recovery = WireRecovery::of(&self.recovery);
        let epochs: Vec<WireEpoch> = self.epochs.iter().map(WireEpoch::of).collect();
        let parents: usize = epochs.iter().map(|epoch| epoch.parents.len()).sum();
        let room = FIXED_BYTES + epochs.len() * EPOCH_BYTES + parents * PARENT_BYTES;
        let wire = Wire {
            drive: self.drive(),
            root: self.root,
            recovery,
            device: Key::from(*self.device.seed()),
            wrap: self.wrap.seed().clone(),
            number: self.number,
            instance: self.instance,
            chunker: self.chunker.clone(),
            local: self.local.clone(),
            epochs,
        };
        // A vector that grew would leave its old bytes behind.
        let mut out = Zeroizing::new(Vec::with_capacity(room));
        minicbor::encode(&wire, &mut *out).expect("memory takes every write");
        assert!(out.len() <= room, "the room was counted from the layout");
        out
    }

    /// The reverse of [`Secrets::encode`]; an error says what is wrong.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let wire: Wire = minicbor::decode(bytes).map_err(|_| "its CBOR is not that of keys")?;
        if wire.drive != DriveId::of(&wire.root) {
            return Err("its root is not its drive's");
        }
        let Wire { root, recovery, chunker, epochs, .. } = wire;
        let shared = WireShared { root, recovery, chunker, epochs }.opened()?;
        let secrets = Self {
            root,
            recovery: shared.recovery,
            device: SecretKey::from_seed(*wire.device.as_bytes()),
            wrap: WrapSecret::from_seed(wire.wrap),
            number: wire.number,
            instance: wire.instance,
            chunker: shared.chunker,
            local: wire.local,
            epochs: shared.epochs,
        };
        if *secrets.encode() != bytes {
            return Err("it is not in its one encoding");
        }
        Ok(secrets)
    }
}

impl WireShared {
    pub(crate) fn of(shared: &Shared) -> Self {
        Self {
            root: shared.root,
            recovery: WireRecovery::of(&shared.recovery),
            chunker: shared.chunker.clone(),
            epochs: shared.epochs.iter().map(WireEpoch::of).collect(),
        }
    }

    /// An error says what is wrong.
    pub(crate) fn opened(self) -> Result<Shared, &'static str> {
        if self.epochs.is_empty() || self.epochs.len() > EPOCHS_MAX {
            return Err("the number of its epochs is out of range");
        }
        if self.epochs.iter().any(|epoch| !epoch.is_sound()) {
            return Err("an epoch's parents are not in order");
        }
        let key = WrapPublic::decode(&self.recovery.key).map_err(|_| "no key of recovery")?;
        let recovery = RecoveryKey { key, signature: self.recovery.signature };
        recovery.verify(&self.root).map_err(|_| "the root does not vouch for recovery's key")?;
        let drive = DriveId::of(&self.root);
        let epochs = self.epochs.into_iter().map(|epoch| epoch.opened(drive)).collect();
        Ok(Shared { root: self.root, recovery, chunker: self.chunker, epochs })
    }
}

impl WireRecovery {
    fn of(recovery: &RecoveryKey) -> Self {
        Self { key: recovery.key.as_bytes().to_vec(), signature: recovery.signature }
    }
}

impl WireEpoch {
    fn of(epoch: &Epoch) -> Self {
        let (key, parents) = epoch.parts();
        Self { key: key.clone(), parents: parents.to_vec() }
    }

    fn is_sound(&self) -> bool {
        self.parents.len() <= PARENTS_MAX && self.parents.is_sorted_by(|a, b| a.0 < b.0)
    }

    fn opened(self, drive: DriveId) -> Epoch {
        Epoch::of_parts(drive, self.key, self.parents)
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({}, device {})", self.drive(), self.number.0)
    }
}
