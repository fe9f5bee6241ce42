//! The graph of membership entries: what follows what, in an order that nobody can choose.
//!
//! Entries of keys that were never named admin by anyone who matters are left out, and so is what
//! follows an entry that is not there; neither can keep the rest from being weighed. Adding
//! entries to a set never changes the order of those that were in it.

use std::collections::{BTreeMap, BTreeSet};

use crate::cbor;
use crate::entry::{Entry, Head, LogId};
use crate::error::{Error, Result};
use crate::identity::PublicKey;
use crate::member::change::{Change, Deed};

/// Most entries that count: a device's whole life takes a handful; bounds the work of a replay.
pub(crate) const ENTRIES_MAX: usize = 4_096;

/// An entry that changes nothing, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Void {
    /// The entry's hash.
    pub hash: [u8; 32],
    /// Why it does not hold.
    pub why: &'static str,
}

/// The entries in causal order.
pub(crate) struct Graph {
    pub(crate) nodes: Vec<Node>,
    /// What is not in the graph, and why.
    pub(crate) outside: Vec<Void>,
}

pub(crate) struct Node {
    pub(crate) head: Head,
    /// What the entry says, or why it says nothing.
    pub(crate) change: Result<Change, &'static str>,
    /// The node itself and all it follows, one bit each.
    past: Vec<u64>,
}

/// An entry with the hashes of what it follows directly.
struct Link {
    head: Head,
    change: Result<Change, &'static str>,
    after: Vec<Head>,
}

impl Node {
    /// Whether the author of this entry had seen that one; an entry has seen itself.
    pub(crate) fn has_seen(&self, index: usize) -> bool {
        self.past[index / 64] >> (index % 64) & 1 == 1
    }

    pub(crate) fn author(&self) -> &PublicKey {
        &self.head.log.author
    }
}

impl Graph {
    /// # Errors
    /// [`Error::Malformed`] when there are more than [`ENTRIES_MAX`].
    pub(crate) fn of(root: &PublicKey, entries: &[Entry]) -> Result<Self> {
        let mut links: BTreeMap<[u8; 32], Link> =
            entries.iter().map(|entry| (entry.hash(), Link::of(entry))).collect();
        let authors = authors(root, &links);
        let mut outside = Vec::new();
        links.retain(|hash, link| {
            let counts = authors.contains(&link.head.log.author);
            if !counts {
                outside.push(Void { hash: *hash, why: "its author never was an admin" });
            }
            counts
        });
        if links.len() > ENTRIES_MAX {
            let why = format!("{} entries, more than {ENTRIES_MAX}", links.len());
            return Err(Error::malformed("membership", why));
        }
        let mut graph = Self { nodes: Vec::with_capacity(links.len()), outside };
        graph.grow(links);
        Ok(graph)
    }

    /// Moves links into the graph once all they follow is there, the least hash first.
    fn grow(&mut self, mut links: BTreeMap<[u8; 32], Link>) {
        let mut waiting: BTreeMap<[u8; 32], usize> = BTreeMap::new();
        let mut followers: BTreeMap<[u8; 32], Vec<[u8; 32]>> = BTreeMap::new();
        let mut ready = BTreeSet::new();
        for (hash, link) in &links {
            let distinct: BTreeSet<_> = link.after.iter().map(|head| head.hash).collect();
            if link.after.iter().all(|head| links.get(&head.hash).is_some_and(|l| l.head == *head))
            {
                waiting.insert(*hash, distinct.len());
                distinct.iter().for_each(|at| followers.entry(*at).or_default().push(*hash));
                ready.extend(distinct.is_empty().then_some(*hash));
            }
        }
        let mut index = BTreeMap::new();
        while let Some(hash) = ready.pop_first() {
            let link = links.remove(&hash).expect("a link is ready once");
            let after: Vec<usize> = link.after.iter().map(|head| index[&head.hash]).collect();
            index.insert(hash, self.nodes.len());
            self.push(link, &after);
            for follower in followers.remove(&hash).unwrap_or_default() {
                let left = waiting.get_mut(&follower).expect("followers wait");
                *left -= 1;
                ready.extend((*left == 0).then_some(follower));
            }
        }
        let missing = "an entry it follows is missing";
        self.outside.extend(links.into_keys().map(|hash| Void { hash, why: missing }));
    }

    fn push(&mut self, link: Link, after: &[usize]) {
        let index = self.nodes.len();
        let mut past = vec![0; ENTRIES_MAX / 64];
        past[index / 64] |= 1 << (index % 64);
        for before in after {
            past.iter_mut().zip(&self.nodes[*before].past).for_each(|(into, from)| *into |= from);
        }
        self.nodes.push(Node { head: link.head, change: link.change, past });
    }

    /// The newest entry of each log; of a fork's branches the longest, then the least hash.
    pub(crate) fn heads(&self) -> Vec<Head> {
        let mut heads: BTreeMap<LogId, Head> = BTreeMap::new();
        for Node { head, .. } in &self.nodes {
            let newest = heads.entry(head.log).or_insert(*head);
            if (head.number, newest.hash) > (newest.number, head.hash) {
                *newest = *head;
            }
        }
        heads.into_values().collect()
    }
}

impl Link {
    fn of(entry: &Entry) -> Self {
        let head = entry.head();
        let previous = Head { number: head.number - 1, hash: entry.previous, ..head };
        let mut after = Vec::new();
        after.extend((previous.number > 0).then_some(previous));
        let change = match cbor::decode::<Deed>("membership change", entry.body()) {
            Err(_) => Err("not a change that this build knows"),
            Ok(deed) if !is_canonical(&deed.seen, &head.log) => Err("what it saw is out of order"),
            Ok(deed) => {
                after.extend(deed.seen);
                Ok(deed.change)
            }
        };
        Self { head, change, after }
    }
}

/// Heads of other logs in ascending order, none twice.
fn is_canonical(seen: &[Head], own: &LogId) -> bool {
    seen.is_sorted_by(|a, b| a < b)
        && seen.iter().all(|head| head.log != *own && head.log.kind == own.kind && head.number > 0)
}

/// The root and every key that an author among these ever named admin.
fn authors(root: &PublicKey, links: &BTreeMap<[u8; 32], Link>) -> BTreeSet<PublicKey> {
    let mut authors = BTreeSet::from([*root]);
    loop {
        let named =
            links.values().filter(|l| authors.contains(&l.head.log.author)).filter_map(|link| {
                match &link.change {
                    Ok(Change::Add { device, admin: true, .. }) => Some(*device),
                    _ => None,
                }
            });
        let more: Vec<PublicKey> = named.filter(|device| !authors.contains(device)).collect();
        if more.is_empty() {
            return authors;
        }
        authors.extend(more);
    }
}
