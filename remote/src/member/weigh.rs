//! Weighing: which membership entries hold.
//!
//! Everything but revocations is judged in causal order once the revocations are known, and the
//! revocations become known one by one: of those that stand, the one that the most senior signer
//! made or had seen comes first. A revocation once taken is not given up again, so this ends.

use std::collections::{BTreeMap, BTreeSet};

use crate::identity::PublicKey;
use crate::member::change::{Change, Epoch, RECOVERY, WRAP_BYTES_MAX, WRAP_KEY_BYTES};
use crate::member::graph::{Graph, Node};

type Verdict = Result<(), &'static str>;

/// How senior a signer is: steps from the root, then the device number. Less is more.
type Rank = (u32, u16);

/// The revocations that were taken, found by what is asked of them.
#[derive(Default)]
struct Taken<'a> {
    /// In the order in which they were taken.
    order: Vec<usize>,
    all: BTreeSet<usize>,
    by_device: BTreeMap<&'a PublicKey, Vec<usize>>,
}

/// What of a graph holds.
pub(crate) struct Weighed<'a> {
    /// For each node.
    pub(crate) verdicts: Vec<Verdict>,
    /// Revocations in the order in which they were taken.
    pub(crate) revocations: Vec<usize>,
    /// Additions that stand, in causal order, by device.
    pub(crate) additions: BTreeMap<PublicKey, Vec<Addition<'a>>>,
    /// Epochs that stand, each after its parents.
    pub(crate) epochs: Vec<(usize, &'a Epoch)>,
}

pub(crate) struct Addition<'a> {
    pub(crate) index: usize,
    pub(crate) number: u16,
    pub(crate) admin: bool,
    pub(crate) wrap_key: &'a bytes::Bytes,
    rank: Rank,
}

/// One judgement of all nodes under the revocations taken so far.
struct Judge<'a, 't> {
    root: &'a PublicKey,
    nodes: &'a [Node],
    taken: &'t Taken<'a>,
    numbers: BTreeMap<u16, PublicKey>,
    epoch_ids: BTreeSet<[u8; 32]>,
    ranks: Vec<Rank>,
    weighed: Weighed<'a>,
}

/// Weighs all of a graph.
pub(crate) fn weigh<'a>(root: &'a PublicKey, graph: &'a Graph) -> Weighed<'a> {
    let mut taken = Taken::default();
    loop {
        let judge = Judge::run(root, &graph.nodes, &taken);
        let next = judge.next_revocation();
        let weighed = judge.weighed;
        match next {
            Some((next, device)) => taken.add(next, device),
            None => return Weighed { revocations: taken.order, ..weighed },
        }
    }
}

impl<'a> Taken<'a> {
    fn add(&mut self, index: usize, device: &'a PublicKey) {
        self.order.push(index);
        self.all.insert(index);
        self.by_device.entry(device).or_default().push(index);
    }

    fn of(&self, device: &PublicKey) -> &[usize] {
        self.by_device.get(device).map_or(&[], |some| some)
    }
}

impl<'a, 't> Judge<'a, 't> {
    fn run(root: &'a PublicKey, nodes: &'a [Node], taken: &'t Taken<'a>) -> Self {
        let weighed = Weighed {
            verdicts: Vec::new(),
            revocations: Vec::new(),
            additions: BTreeMap::new(),
            epochs: Vec::new(),
        };
        let mut judge = Self {
            root,
            nodes,
            taken,
            numbers: BTreeMap::new(),
            epoch_ids: BTreeSet::new(),
            ranks: Vec::new(),
            weighed,
        };
        for (index, node) in nodes.iter().enumerate() {
            let rank = judge.rank(node);
            judge.ranks.push(rank.unwrap_or((u32::MAX, u16::MAX)));
            let verdict = match (taken.all.contains(&index), rank) {
                (true, _) => Ok(()),
                (false, None) => Err("its author was no admin"),
                (false, Some(rank)) => judge.judge(index, node, rank),
            };
            judge.weighed.verdicts.push(verdict);
        }
        judge
    }

    /// The next revocation to take, if one stands that was not taken, and whom it revokes.
    fn next_revocation(&self) -> Option<(usize, &'a PublicKey)> {
        let stands = |index: &usize| {
            self.weighed.verdicts[*index].is_ok()
                && !self.taken.all.contains(index)
                && self.revoked_by(*index).is_some()
        };
        let open: Vec<usize> = (0..self.nodes.len()).filter(stands).collect();
        let key = |index: &usize| (self.ranks[*index], self.nodes[*index].head.hash);
        let top = open.iter().copied().min_by_key(key)?;
        let seen = |by: usize, index: usize| self.nodes[by].has_seen(index);
        // What the most senior had seen happened before; it is taken first.
        let first = |i: &usize| seen(top, *i) && !open.iter().any(|o| o != i && seen(*i, *o));
        let next = open.iter().copied().filter(first).min_by_key(key)?;
        Some((next, self.revoked_by(next)?))
    }

    /// The rank of the node's author, if they are the root or were an admin by what they had seen.
    fn rank(&self, node: &Node) -> Option<Rank> {
        if node.author() == self.root {
            return Some((0, 0));
        }
        let of_author = self.weighed.additions.get(node.author())?;
        let seen = || of_author.iter().filter(|addition| node.has_seen(addition.index));
        seen().next_back().filter(|newest| newest.admin)?;
        seen().filter(|addition| addition.admin).map(|addition| addition.rank).min()
    }

    fn judge(&mut self, index: usize, node: &'a Node, rank: Rank) -> Verdict {
        let change = node.change.as_ref().map_err(|why| *why)?;
        if self.taken.of(node.author()).iter().any(|by| !self.nodes[*by].has_seen(index)) {
            return Err("its author was revoked");
        }
        match change {
            Change::Add { device, number, admin, wrap_key } => {
                self.judge_addition(node, device, *number, wrap_key)?;
                self.numbers.insert(*number, *device);
                let rank = (rank.0 + 1, *number);
                let addition = Addition { index, number: *number, admin: *admin, wrap_key, rank };
                self.weighed.additions.entry(*device).or_default().push(addition);
                Ok(())
            }
            Change::Revoke { device, .. } if !self.was_added(node, device) => {
                Err("it revokes no device of the drive")
            }
            Change::Revoke { last, .. } if last.is_sorted_by(|a, b| a.instance < b.instance) => {
                Ok(())
            }
            Change::Revoke { .. } => Err("its last commits are out of order"),
            Change::Epoch(epoch) => {
                self.judge_epoch(node, epoch)?;
                self.epoch_ids.insert(epoch.id.0);
                self.weighed.epochs.push((index, epoch));
                Ok(())
            }
        }
    }

    fn judge_addition(&self, node: &Node, device: &PublicKey, number: u16, key: &[u8]) -> Verdict {
        if device == self.root || device.check().is_err() {
            return Err("no device can have this key");
        }
        if key.len() != WRAP_KEY_BYTES {
            return Err("its wrapping key has the wrong length");
        }
        if self.numbers.get(&number).is_some_and(|other| other != device) {
            return Err("another device has this number");
        }
        if self.was_revoked(node, device) {
            return Err("a revoked device does not come back");
        }
        Ok(())
    }

    fn judge_epoch(&self, node: &Node, epoch: &Epoch) -> Verdict {
        if self.epoch_ids.contains(&epoch.id.0) {
            return Err("another epoch has this id");
        }
        let known = |index: &usize| node.has_seen(*index);
        let mut before = self.weighed.epochs.iter().filter(|(index, _)| known(index));
        let parents: BTreeSet<_> = epoch.parents.iter().collect();
        if !epoch.parents.is_sorted_by(|a, b| a < b) {
            return Err("its parents are out of order");
        }
        let found = before.clone().filter(|(_, known)| parents.contains(&known.id)).count();
        if found != parents.len() || (parents.is_empty() && before.next().is_some()) {
            return Err("it does not follow the epochs before it");
        }
        if !epoch.wraps.is_sorted_by(|a, b| a.to < b.to) {
            return Err("its wraps are out of order");
        }
        if epoch.wraps.iter().any(|wrap| !(1..=WRAP_BYTES_MAX).contains(&wrap.sealed.len())) {
            return Err("a wrap has an impossible length");
        }
        let active =
            |device: &PublicKey| self.was_added(node, device) && !self.was_revoked(node, device);
        if epoch.wraps.iter().any(|wrap| wrap.to != RECOVERY && !active(&wrap.to)) {
            return Err("it is wrapped to a stranger");
        }
        let mut owed: Vec<&PublicKey> =
            self.weighed.additions.keys().filter(|device| active(device)).collect();
        owed.push(&RECOVERY);
        if owed.iter().any(|to| epoch.wraps.binary_search_by_key(to, |wrap| &wrap.to).is_err()) {
            return Err("it shuts someone out");
        }
        Ok(())
    }

    fn was_added(&self, node: &Node, device: &PublicKey) -> bool {
        let additions = self.weighed.additions.get(device);
        additions.is_some_and(|some| some.iter().any(|addition| node.has_seen(addition.index)))
    }

    fn was_revoked(&self, node: &Node, device: &PublicKey) -> bool {
        self.taken.of(device).iter().any(|by| node.has_seen(*by))
    }

    fn revoked_by(&self, index: usize) -> Option<&'a PublicKey> {
        match &self.nodes[index].change {
            Ok(Change::Revoke { device, .. }) => Some(device),
            _ => None,
        }
    }
}
