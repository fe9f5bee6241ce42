//! `rdrivefs.toml`: what a person may set, with its defaults (man/rdrivefs.toml.5).
//!
//! Every key has a default, so an empty file and no file are the same. A key that is not known is
//! an error naming it and its line: a misspelt limit must not quietly be no limit. What would break
//! a promise (proofs before an eviction, fsync) cannot be set.

use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use crate::error::{Error, Result};

/// The smallest cache: below it a layer could not be open while another is read.
const CACHE_BYTES_MIN: u64 = 64 << 20;
/// The slowest limit: slower, a node would give up on a layer before all of it has come.
const LIMIT_PER_S_MIN: u64 = 64 << 10;
/// More connections to one remote only take each other's bandwidth.
const CONNECTIONS_MAX: u32 = 64;

/// All settings of a drive on this device.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How many bytes of proven layers are kept locally before the least used are evicted.
    pub cache_size: Size,
    /// How much of the disk stays free of this drive, whatever the cache may take.
    pub disk_reserve: Size,
    /// The mount.
    pub mount: Mount,
    /// The links to remotes.
    pub network: Network,
    /// Proving that remotes still have what they should.
    pub verify: Verify,
}

/// `[mount]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mount {
    /// The folder; a leading `~/` is the person's home.
    pub dir: PathBuf,
    /// Whether other users of this computer may enter, as the modes of files allow.
    pub allow_other: bool,
}

/// `[network]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// Bytes per second sent to all remotes together; 0 is no limit.
    pub upload_limit: Size,
    /// Bytes per second taken from all remotes together; 0 is no limit.
    pub download_limit: Size,
    /// Requests under way to one remote at a time.
    pub requests: u32,
}

/// `[verify]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Verify {
    /// How sure an audit must be …
    pub confidence: Confidence,
    /// … to have met a loss of this share of a remote's bytes.
    pub loss: Confidence,
    /// How many days a clean audit counts when something is to be evicted.
    pub age_days: u32,
    /// Challenges a day in the background, over all remotes; 0 is none.
    pub challenges_per_day: u32,
}

/// A number of bytes: `1048576`, `"1 MiB"`, `"1M"`; `"1MB"` is a million.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A share between 0 and 1, both excluded: `0.999`, `"99.9%"`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Confidence(pub f64);

impl Config {
    /// The file that `init` writes: every key with its default, commented out.
    pub const TEMPLATE: &str = include_str!("rdrivefs.toml");

    /// Reads a configuration; `file` names it in errors.
    ///
    /// # Errors
    /// [`Error::Config`] with the line of the key that is unknown, of a wrong kind or out of range.
    pub fn parse(file: &str, text: &str) -> Result<Self> {
        let fail = |line, why: &str| {
            let (file, why) = (file.to_owned(), why.trim().replace('\n', " "));
            Error::Config { file, line, why }
        };
        let config: Self = toml::from_str(text).map_err(|e| {
            let before = e.span().map_or("", |span| &text[..span.start.min(text.len())]);
            fail(1 + before.matches('\n').count(), e.message())
        })?;
        let line = |key: &str| {
            let at = text.lines().position(|line| line.trim_start().starts_with(key));
            at.map_or(1, |at| at + 1)
        };
        if config.cache_size.0 < CACHE_BYTES_MIN {
            return Err(fail(line("cache_size"), "cache_size must be at least 64MiB"));
        }
        let limits = [
            ("upload_limit", config.network.upload_limit),
            ("download_limit", config.network.download_limit),
        ];
        for (key, limit) in limits {
            if (1..LIMIT_PER_S_MIN).contains(&limit.0) {
                return Err(fail(line(key), &format!("{key} must be 0 or at least 64KiB")));
            }
        }
        if !(1..=CONNECTIONS_MAX).contains(&config.network.requests) {
            return Err(fail(line("requests"), "requests must be from 1 to 64"));
        }
        Ok(config)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cache_size: Size(20 << 30),
            disk_reserve: Size(1 << 30),
            mount: Mount::default(),
            network: Network::default(),
            verify: Verify::default(),
        }
    }
}

impl Default for Mount {
    fn default() -> Self {
        Self { dir: PathBuf::from("~/Drive"), allow_other: false }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self { upload_limit: Size(0), download_limit: Size(0), requests: 16 }
    }
}

impl Default for Verify {
    fn default() -> Self {
        Self {
            confidence: Confidence(0.999),
            loss: Confidence(0.01),
            age_days: 7,
            challenges_per_day: 2_000,
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let unit: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return Err(format!("\"{text}\" is no size such as 512MiB or 20G")),
        };
        let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
        bytes.map(Self).ok_or_else(|| format!("\"{text}\" is no size such as 512MiB or 20G"))
    }
}

impl FromStr for Confidence {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let percent = text.trim().strip_suffix('%');
        let number = percent.unwrap_or(text).trim().parse::<f64>().ok();
        let share = number.map(|number| if percent.is_some() { number / 100.0 } else { number });
        // 99.9% and 0.999 are to be one number.
        let share = share.map(|share| (share * 1e12).round() / 1e12);
        let inside = share.filter(|share| *share > 0.0 && *share < 1.0);
        inside.map(Self).ok_or_else(|| format!("\"{text}\" is no share such as 99.9% or 0.999"))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Spelt("a size such as 512MiB or 20G", PhantomData))
    }
}

impl<'de> Deserialize<'de> for Confidence {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Spelt("a share such as 99.9% or 0.999", PhantomData))
    }
}

/// Reads what may be written as a number or as a text.
struct Spelt<T>(&'static str, PhantomData<T>);

impl<T: FromStr<Err = String>> Visitor<'_> for Spelt<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        number.to_string().parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> (usize, String) {
        match Config::parse("rdrivefs.toml", text) {
            Err(Error::Config { line, why, .. }) => (line, why),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_template_says_every_default() {
        assert_eq!(Config::parse("t", Config::TEMPLATE).unwrap(), Config::default());
        let uncommented: Vec<&str> = Config::TEMPLATE
            .lines()
            .map(|line| line.strip_prefix("#").filter(|l| !l.starts_with(' ')).unwrap_or(line))
            .collect();
        let keys = uncommented.iter().filter(|line| line.contains(" = ")).count();
        let spelt = Config::parse("t", &uncommented.join("\n")).unwrap();
        assert_eq!(spelt, Config::default());
        assert_eq!(keys, 11, "a key was added: say its default in the template too");
    }

    #[test]
    fn what_is_set_counts_and_the_rest_stays() {
        let text =
            "cache_size = \"5G\"\n[verify]\nloss = \"0.5%\"\n[network]\nupload_limit = 100000";
        let config = Config::parse("t", text).unwrap();
        assert_eq!(config.cache_size, Size(5 << 30));
        assert_eq!(config.verify.loss, Confidence(0.005));
        assert_eq!(config.network.upload_limit, Size(100_000));
        assert_eq!(config.verify.age_days, 7);
    }

    #[test]
    fn a_misspelt_key_is_named_with_its_line() {
        let (line, why) = refused("# mine\ncache_size = 100000000\n\n[network]\nupload_limt = 5");
        assert_eq!(line, 5);
        assert!(why.contains("upload_limt"), "{why}");
        let (line, why) = refused("\nspeed = 3");
        assert_eq!(line, 2);
        assert!(why.contains("speed"), "{why}");
    }

    #[test]
    fn values_out_of_range_are_refused_at_their_line() {
        assert_eq!(refused("\ncache_size = \"1MiB\"").0, 2);
        assert_eq!(refused("[network]\nrequests = 0").0, 2);
        assert_eq!(refused("[network]\nupload_limit = \"63KiB\"").0, 2);
        assert_eq!(refused("[network]\ndownload_limit = 1").0, 2);
        assert_eq!(refused("[network]\n\nrequests = 65").0, 3);
        assert_eq!(refused("[verify]\nloss = 1.5").0, 2);
        assert_eq!(refused("cache_size = -1").0, 1);
        assert_eq!(refused("cache_size = \"20 parsecs\"").0, 1);
        assert_eq!(refused("cache_size = \"99999999999T\"").0, 1);
        assert_eq!(refused("cache_size = ").0, 1);
        assert_eq!(refused("[mount]\ndir = 3").0, 2);
    }

    #[test]
    fn sizes_are_spelt_as_on_the_command_line() {
        let spelt = |text: &str| text.parse::<Size>().unwrap().0;
        assert_eq!(spelt("10G"), spelt("10GiB"));
        assert_eq!(spelt("10 gib"), 10 << 30);
        assert_eq!(spelt("10GB"), 10_000_000_000);
        assert_eq!(spelt("0"), 0);
        for bad in ["", "G", "1.5G", "1X", "0x10", "-1", "+1"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }
}
