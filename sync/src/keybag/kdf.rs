//! From a passphrase to a key: Argon2id (version 1.3), its cost kept within bounds.
//!
//! The cost stands in the keybag's header, which an adversary may have written: below the floor a
//! guess would be cheap, above the cap opening would exhaust the computer. Both are refused before
//! anything is computed. Running it is the caller's, since a process of its own can give the memory
//! back; [`argon2id`] is the plain way.

use argon2::{Algorithm, Argon2, Params, Version};

use crate::error::{Error, Result};
use crate::seal::{KEY_BYTES, Key};

/// Length of a salt: no two keybags ever share one.
pub const SALT_BYTES: usize = 32;

/// The weaker of the two settings RFC 9106 recommends.
const MEMORY_KIB_MIN: u32 = 64 << 10;
const PASSES_MIN: u32 = 3;
/// What a small computer can still give for a second.
const MEMORY_KIB_MAX: u32 = 1 << 20;
const PASSES_MAX: u32 = 10;
const LANES_MAX: u32 = 16;

/// The cost of one guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfCost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes that could run at the same time.
    pub lanes: u32,
}

/// What to derive a key from.
pub struct KdfRequest<'a> {
    /// The passphrase, as typed, in UTF-8.
    pub passphrase: &'a str,
    /// The keybag's salt.
    pub salt: [u8; SALT_BYTES],
    /// The cost, checked to be within bounds.
    pub cost: KdfCost,
}

/// Runs a [`KdfRequest`], here or in a process of its own.
pub type Kdf<'a> = dyn Fn(&KdfRequest<'_>) -> Result<Key> + 'a;

impl KdfCost {
    /// 256 MiB, three passes, four lanes: a second on one core.
    pub const DEFAULT: Self = Self { memory_kib: 256 << 10, passes: 3, lanes: 4 };
    /// The least that is accepted: 64 MiB, three passes, four lanes.
    pub const FLOOR: Self = Self { memory_kib: MEMORY_KIB_MIN, passes: PASSES_MIN, lanes: 4 };

    /// Whether it is neither too cheap nor too dear.
    ///
    /// # Errors
    /// [`Error::Refused`] saying which.
    pub fn check(&self) -> Result<()> {
        let Self { memory_kib, passes, lanes } = *self;
        let refuse = |why: &str| {
            let cost = format!("{memory_kib} KiB, {passes} passes, {lanes} lanes");
            Err(Error::Refused(format!("a passphrase stretched with {cost}: {why}")))
        };
        if memory_kib < MEMORY_KIB_MIN || passes < PASSES_MIN || lanes == 0 {
            return refuse("less than 64 MiB and 3 passes makes guessing cheap");
        }
        if memory_kib > MEMORY_KIB_MAX || passes > PASSES_MAX || lanes > LANES_MAX {
            return refuse("more than 1 GiB, 10 passes and 16 lanes is out of reason");
        }
        Ok(())
    }
}

/// Runs Argon2id in this process, which takes the memory asked for while it lasts.
///
/// # Errors
/// [`Error::Refused`] for a cost out of bounds.
pub fn argon2id(request: &KdfRequest<'_>) -> Result<Key> {
    request.cost.check()?;
    let KdfCost { memory_kib, passes, lanes } = request.cost;
    let params = Params::new(memory_kib, passes, lanes, Some(KEY_BYTES))
        .expect("within the bounds, which lie within Argon2's");
    let mut key = zeroize::Zeroizing::new([0; KEY_BYTES]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(request.passphrase.as_bytes(), &request.salt, &mut *key)
        .map_err(|e| Error::Refused(format!("a passphrase that cannot be stretched: {e}")))?;
    Ok(Key::from(*key))
}

impl std::fmt::Debug for KdfRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KdfRequest({:?})", self.cost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s14_a_cost_out_of_bounds_is_refused_before_it_is_paid() {
        let default @ KdfCost { memory_kib, passes, lanes } = KdfCost::DEFAULT;
        assert!(default.check().is_ok());
        assert!(KdfCost::FLOOR.check().is_ok());
        for bad in [
            KdfCost { memory_kib: MEMORY_KIB_MIN - 1, passes, lanes },
            KdfCost { memory_kib: MEMORY_KIB_MAX + 1, passes, lanes },
            KdfCost { memory_kib, passes: 2, lanes },
            KdfCost { memory_kib, passes: 11, lanes },
            KdfCost { memory_kib, passes, lanes: 0 },
            KdfCost { memory_kib, passes, lanes: 17 },
            KdfCost { memory_kib: u32::MAX, passes: u32::MAX, lanes: u32::MAX },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
            let request = KdfRequest { passphrase: "x", salt: [0; SALT_BYTES], cost: bad };
            assert!(argon2id(&request).is_err());
        }
    }

    #[test]
    fn every_input_counts() {
        let run = |passphrase, salt, lanes| {
            let cost = KdfCost { lanes, ..KdfCost::FLOOR };
            argon2id(&KdfRequest { passphrase, salt: [salt; SALT_BYTES], cost }).unwrap()
        };
        let one = run("one", 1, 4);
        assert!(one != run("two", 1, 4));
        assert!(one != run("one", 2, 4));
        assert!(one != run("one", 1, 2));
    }
}
