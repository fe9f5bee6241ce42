//! What devices are called: a register each, set by the device itself and told in its commits; the
//! later stamp counts. One that was set here and not told yet has none, and waits for its own.

use minicbor::{Decode, Encode};
use rdrivefs_remote::cbor;
use rdrivefs_remote::identity::PublicKey;
use rusqlite::{OptionalExtension as _, params};

use crate::error::Result;
use crate::index::Index;
use crate::record::Stamp;

/// A device's name as the index keeps it; the row is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct DeviceName {
    /// The name.
    #[n(0)]
    pub name: String,
    /// Of the commit that tells it; none while none does.
    #[n(1)]
    pub stamp: Option<Stamp>,
}

const ROW: &str = "device";

impl Index {
    /// What a device is called, if anything.
    ///
    /// # Errors
    /// Of the database, or when the row does not open.
    pub fn device_name(&self, device: &PublicKey) -> Result<Option<DeviceName>> {
        let row: Option<Vec<u8>> = self.with(|db| {
            db.prepare_cached("SELECT row FROM device WHERE key = ?")?
                .query_row([device.0], |row| row.get(0))
                .optional()
        })?;
        let plain = row.map(|row| self.open_row(ROW, &device.0, &row)).transpose()?;
        Ok(plain.map(|plain| cbor::decode("a device's name", &plain)).transpose()?)
    }

    /// Calls a device so.
    ///
    /// # Errors
    /// Of the database.
    pub fn set_device_name(&self, device: &PublicKey, name: &DeviceName) -> Result<()> {
        let row = self.seal_row(ROW, &device.0, &cbor::encode(name));
        self.with(|db| {
            db.prepare_cached("INSERT OR REPLACE INTO device VALUES (?, ?)")?
                .execute(params![device.0, row])
                .map(drop)
        })
    }

    /// Takes note of what a commit calls a device, unless something later counts.
    ///
    /// # Errors
    /// Of the database.
    pub fn hear_device_name(&self, device: &PublicKey, name: String, stamp: Stamp) -> Result<()> {
        let beaten = match self.device_name(device)? {
            None => false,
            Some(known) => known.stamp.is_none_or(|known| known > stamp),
        };
        match beaten {
            true => Ok(()),
            false => self.set_device_name(device, &DeviceName { name, stamp: Some(stamp) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use rdrivefs_remote::env::Env;

    use super::*;
    use crate::id::DeviceNumber;
    use crate::seal::Key;

    #[test]
    fn the_last_writer_counts_in_any_order_and_what_is_not_told_yet_before_all() {
        let stamp = |lamport, device| Stamp { lamport, device: DeviceNumber(device) };
        let heard = [("old", stamp(1, 9)), ("new", stamp(3, 1)), ("newest", stamp(3, 2))];
        let device = PublicKey([7; 32]);
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1], [2, 0, 1], [1, 0, 2]] {
            let dir = tempfile::tempdir().unwrap();
            let key = Key::from([7; 32]);
            let index = Index::open(&dir.path().join("index"), &key, Env::real()).unwrap();
            assert_eq!(index.device_name(&device).unwrap(), None);
            for at in order {
                let (name, stamp) = heard[at];
                index.hear_device_name(&device, name.into(), stamp).unwrap();
            }
            assert_eq!(index.device_name(&device).unwrap().unwrap().name, "newest");
            let own = DeviceName { name: "mine".into(), stamp: None };
            index.set_device_name(&device, &own).unwrap();
            index.hear_device_name(&device, "late".into(), stamp(8, 1)).unwrap();
            assert_eq!(index.device_name(&device).unwrap(), Some(own));
            assert_eq!(index.device_name(&PublicKey([8; 32])).unwrap(), None);
        }
    }
}
