//! Where a node is and how to know it: `rdrive://HOST:PORT?key=<64 hex>[&invite=<32 hex>]`.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::identity::PublicKey;
use crate::wire::{INVITE_BYTES, InviteSecret};

/// The port a node listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 7480;
/// The longest name of a host that DNS allows.
const HOST_BYTES_MAX: usize = 253;
const SCHEME: &str = "rdrive://";
const WHAT: &str = "rdrive URL";

/// The address of a node, its pinned key, and perhaps a one-time invite.
#[derive(Clone, PartialEq, Eq)]
pub struct NodeUrl {
    /// A name or an address; an IPv6 address without its brackets.
    pub host: String,
    /// The UDP port.
    pub port: u16,
    /// The key the node must prove to have.
    pub key: PublicKey,
    /// Authorises one drive, once: 32 hexadecimal digits.
    pub invite: Option<String>,
}

impl NodeUrl {
    /// The same node without the invite, fit to be kept and shown.
    pub fn without_invite(&self) -> Self {
        Self { invite: None, ..self.clone() }
    }
}

/// Reads the secret of an invite.
///
/// # Errors
/// [`Error::Malformed`] for anything but 32 lower-case hexadecimal digits.
pub fn parse_invite(text: &str) -> Result<InviteSecret> {
    hex_array::<INVITE_BYTES>(text).map(InviteSecret)
}

impl FromStr for NodeUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| bad("it begins with rdrive://"))?;
        let (place, query) =
            rest.split_once('?').ok_or_else(|| bad("the node's key is missing"))?;
        let (host, port) = split_place(place.strip_suffix('/').unwrap_or(place))?;
        let (mut key, mut invite) = (None, None);
        for part in query.split('&') {
            let (name, value) =
                part.split_once('=').ok_or_else(|| bad("a part without a value"))?;
            let twice = match name {
                "key" => key.replace(PublicKey(hex_array(value)?)).is_some(),
                "invite" => {
                    parse_invite(value)?;
                    invite.replace(value.to_owned()).is_some()
                }
                _ => return Err(bad(&format!("unknown part '{name}'"))),
            };
            if twice {
                return Err(bad(&format!("'{name}' stands there twice")));
            }
        }
        let key = key.ok_or_else(|| bad("the node's key is missing"))?;
        Ok(Self { host, port, key, invite })
    }
}

impl fmt::Display for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        write!(f, "{SCHEME}{host}:{}?key={}", self.port, self.key)?;
        match &self.invite {
            Some(invite) => write!(f, "&invite={invite}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for NodeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Debug output ends up in logs, where no invite belongs.
        write!(f, "NodeUrl({})", self.without_invite())
    }
}

fn split_place(place: &str) -> Result<(String, u16)> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(|| bad("a bracket stays open"))?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| bad("not an IPv6 address"))?;
            (host, port)
        }
        None => place.split_at(place.find(':').unwrap_or(place.len())),
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || host.len() > HOST_BYTES_MAX || !host.chars().all(fits) {
        return Err(bad("not a host"));
    }
    let port = match port.strip_prefix(':') {
        Some(digits) => digits.parse().ok().filter(|p| *p != 0).ok_or_else(|| bad("not a port"))?,
        None if port.is_empty() => DEFAULT_PORT,
        None => return Err(bad("not a port")),
    };
    Ok((host.to_owned(), port))
}

fn hex_array<const N: usize>(text: &str) -> Result<[u8; N]> {
    let mut out = [0; N];
    let lower = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !lower || hex::decode_to_slice(text, &mut out).is_err() {
        return Err(bad(&format!("not {} lower-case hexadecimal digits", 2 * N)));
    }
    Ok(out)
}

fn bad(why: &str) -> Error {
    Error::malformed(WHAT, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_come_back_as_they_went() {
        let key = "ab".repeat(32);
        let invite = "01".repeat(16);
        for text in [
            format!("rdrive://example.org:7480?key={key}"),
            format!("rdrive://127.0.0.1:1?key={key}&invite={invite}"),
            format!("rdrive://[::1]:65535?key={key}"),
        ] {
            assert_eq!(text.parse::<NodeUrl>().unwrap().to_string(), text);
        }
        let short: NodeUrl = format!("rdrive://host/?key={key}").parse().unwrap();
        assert_eq!((short.host.as_str(), short.port), ("host", DEFAULT_PORT));
    }

    #[test]
    fn what_is_not_a_url_is_refused() {
        let key = "ab".repeat(32);
        for text in [
            String::new(),
            format!("http://h:1?key={key}"),
            "rdrive://h:1".to_owned(),
            "rdrive://h:1?key=".to_owned(),
            format!("rdrive://h:1?key={}", key.to_uppercase()),
            format!("rdrive://h:0?key={key}"),
            format!("rdrive://h:65536?key={key}"),
            format!("rdrive://:1?key={key}"),
            format!("rdrive://h:1?key={key}&key={key}"),
            format!("rdrive://h:1?key={key}&invite=xyz"),
            format!("rdrive://h:1?key={key}&colour=red"),
            format!("rdrive://[::1:1?key={key}"),
            format!("rdrive://a b:1?key={key}"),
            format!("rdrive://{}:1?key={key}", "a".repeat(254)),
        ] {
            assert!(text.parse::<NodeUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn logs_do_not_see_the_invite() {
        let url = format!("rdrive://h:1?key={}&invite={}", "ab".repeat(32), "01".repeat(16));
        let url: NodeUrl = url.parse().unwrap();
        assert!(!format!("{url:?}").contains("invite"));
    }
}
