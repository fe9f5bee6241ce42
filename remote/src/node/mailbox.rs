//! Mailboxes: where a device that joins a drive and one that lets it in leave each other a message.
//!
//! A member opens one under a name that only the holders of a pairing code know. The first key that
//! puts a message into it has it to itself, and gets what the member answers; whoever comes after it
//! learns that the code was used. What lies in a mailbox is sealed for its reader, so that a node can
//! withhold it and no more. Nothing of it touches the disk: a node that ends has forgotten it.
//!
//! Mailboxes are few and small, end by the node's own clock, and are remembered for a while after
//! that, so that who comes late is told so. Guesses at names are answered ever later.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

use crate::env::{Env, Instant};
use crate::error::{Error, NoPairing, Result};
use crate::identity::{DriveId, PublicKey};
use crate::node::pace::Bucket;
use crate::wire::{MailboxId, PAIR_MS_MAX};

/// All mailboxes, the remembered ones too: full of answers they take 32 MiB.
const ALL_MAX: usize = 128;
/// Of these, those of one drive: a person adds devices one by one.
const DRIVE_MAX: usize = 8;
/// How long one is remembered after its end.
const REMEMBERED: Duration = Duration::from_millis(PAIR_MS_MAX);
/// Names nobody opened that are answered in a second; who waits to be answered is in the way of
/// nobody, and gives way to others who have not said hello.
const MISSES_PER_S: u32 = 16;
/// When to come back where all mailboxes are taken.
const RETRY_MS: u64 = 60_000;

/// The drive and the device that opened a mailbox.
pub(super) type Owner = (DriveId, PublicKey);

/// The mailboxes of a node.
pub(super) struct Mailboxes {
    env: Env,
    misses: Bucket,
    boxes: Mutex<HashMap<MailboxId, Mailbox>>,
}

struct Mailbox {
    owner: Owner,
    begun: Instant,
    lifetime: Duration,
    request: Option<(PublicKey, Bytes)>,
    answer: Option<Bytes>,
    /// Counts how often its one guest came: the last connection waits, those before it do not.
    turn: u64,
    /// Wakes who waits, also when the mailbox goes away.
    changed: watch::Sender<()>,
}

/// One whose message lies in a mailbox.
pub(super) struct Guest {
    mailbox: MailboxId,
    turn: u64,
}

impl Mailbox {
    /// What is left of its time; none once it is over.
    fn left(&self, now: Instant) -> Option<Duration> {
        self.lifetime.checked_sub(now.since(self.begun)).filter(|left| !left.is_zero())
    }

    fn is_forgotten(&self, now: Instant) -> bool {
        now.since(self.begun) >= self.lifetime + REMEMBERED
    }
}

impl Mailboxes {
    pub(super) fn new(env: &Env) -> Self {
        let misses = Bucket::new(MISSES_PER_S, env);
        Self { env: env.clone(), misses, boxes: Mutex::default() }
    }

    /// Opens one. What its owner opened before and has not answered is given up.
    pub(super) fn open(&self, id: MailboxId, owner: Owner, lifetime_ms: u64) -> Result<()> {
        let (now, mut boxes) = (self.env.instant(), self.lock());
        if let Some(known) = boxes.get(&id) {
            // A request that a break interrupted is made again.
            return match known.owner == owner && known.left(now).is_some() {
                true => Ok(()),
                false => Err(Error::Pairing(NoPairing::Used)),
            };
        }
        boxes.retain(|_, m| {
            let given_up = m.owner == owner && m.answer.is_none() && m.left(now).is_some();
            !given_up && !m.is_forgotten(now)
        });
        for ended in boxes.values_mut().filter(|m| m.left(now).is_none()) {
            (ended.request, ended.answer) = (None, None);
        }
        if !make_room(&mut boxes, now, DRIVE_MAX, |m| m.owner.0 == owner.0) {
            let why = "too many devices are joining this drive: wait until some have";
            return Err(Error::Refused(why.to_owned()));
        }
        if !make_room(&mut boxes, now, ALL_MAX, |_| true) {
            return Err(Error::Busy { retry_ms: RETRY_MS });
        }
        let mailbox = Mailbox {
            owner,
            begun: now,
            lifetime: Duration::from_millis(lifetime_ms.min(PAIR_MS_MAX)),
            request: None,
            answer: None,
            turn: 0,
            changed: watch::Sender::new(()),
        };
        boxes.insert(id, mailbox);
        Ok(())
    }

    /// Waits for the message that is put into it.
    pub(super) async fn request(&self, id: MailboxId, owner: Owner) -> Result<Bytes> {
        self.wait(id, |mailbox| {
            check(mailbox, &owner)?;
            Ok(mailbox.request.as_ref().map(|(_, request)| request.clone()))
        })
        .await
    }

    /// Leaves the answer in it, once.
    pub(super) fn answer(&self, id: MailboxId, owner: Owner, answer: Bytes) -> Result<()> {
        let mut boxes = self.lock();
        let mailbox = self.find(&mut boxes, &id)?;
        check(mailbox, &owner)?;
        if mailbox.request.is_none() || mailbox.answer.as_ref().is_some_and(|a| *a != answer) {
            let why = "nobody waits for this answer, or there was another before it";
            return Err(Error::Refused(why.to_owned()));
        }
        mailbox.answer = Some(answer);
        mailbox.changed.send_replace(());
        Ok(())
    }

    /// Puts a message into it, unless another key did.
    pub(super) async fn join(
        &self,
        id: MailboxId,
        key: PublicKey,
        request: Bytes,
    ) -> Result<Guest> {
        let put = self.put(id, key, request);
        if let Err(Error::Pairing(NoPairing::Unknown)) = put {
            self.misses.take(1).await;
        }
        put
    }

    /// Waits for what the guest is answered.
    pub(super) async fn answered(&self, guest: &Guest) -> Result<Bytes> {
        self.wait(guest.mailbox, |mailbox| match mailbox.turn == guest.turn {
            true => Ok(mailbox.answer.clone()),
            false => Err(Error::Busy { retry_ms: RETRY_MS }),
        })
        .await
    }

    fn put(&self, id: MailboxId, key: PublicKey, request: Bytes) -> Result<Guest> {
        let mut boxes = self.lock();
        let mailbox = self.find(&mut boxes, &id)?;
        let own = (key, request);
        if mailbox.request.as_ref().is_some_and(|there| *there != own) {
            return Err(Error::Pairing(NoPairing::Used));
        }
        mailbox.request = Some(own);
        mailbox.turn += 1;
        mailbox.changed.send_replace(());
        Ok(Guest { mailbox: id, turn: mailbox.turn })
    }

    /// Waits until `look` finds something in a mailbox, or the mailbox ends.
    async fn wait(
        &self,
        id: MailboxId,
        look: impl Fn(&Mailbox) -> Result<Option<Bytes>>,
    ) -> Result<Bytes> {
        loop {
            let (mut changed, left) = {
                let mut boxes = self.lock();
                let mailbox = self.find(&mut boxes, &id)?;
                if let Some(found) = look(mailbox)? {
                    return Ok(found);
                }
                let left = mailbox.left(self.env.instant()).unwrap_or_default();
                (mailbox.changed.subscribe(), left)
            };
            // Whether it changed, ended or went away shows when it is looked at.
            let _ = tokio::time::timeout(left, changed.changed()).await;
        }
    }

    /// A mailbox whose time is not over.
    fn find<'a>(
        &self,
        boxes: &'a mut HashMap<MailboxId, Mailbox>,
        id: &MailboxId,
    ) -> Result<&'a mut Mailbox> {
        let now = self.env.instant();
        let known = boxes.get_mut(id).filter(|mailbox| !mailbox.is_forgotten(now));
        let mailbox = known.ok_or(Error::Pairing(NoPairing::Unknown))?;
        match mailbox.left(now) {
            Some(_) => Ok(mailbox),
            None => Err(Error::Pairing(NoPairing::Expired)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<MailboxId, Mailbox>> {
        self.boxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// To others a mailbox is none.
fn check(mailbox: &Mailbox, owner: &Owner) -> Result<()> {
    if mailbox.owner == *owner { Ok(()) } else { Err(Error::Pairing(NoPairing::Unknown)) }
}

/// Whether there is room for one more of those that count; of these the first that ended gives way.
fn make_room(
    boxes: &mut HashMap<MailboxId, Mailbox>,
    now: Instant,
    max: usize,
    counts: impl Fn(&Mailbox) -> bool,
) -> bool {
    if boxes.values().filter(|m| counts(m)).count() < max {
        return true;
    }
    let ended = boxes.iter().filter(|(_, m)| counts(m) && m.left(now).is_none());
    let first = ended.min_by_key(|(_, m)| m.begun).map(|(id, _)| *id);
    first.is_some_and(|id| boxes.remove(&id).is_some())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::env::World;

    #[derive(Clone, Default)]
    struct Clock(Arc<AtomicU64>);

    impl Clock {
        fn pass(&self, ms: u64) {
            self.0.fetch_add(ms * 1_000_000, Ordering::Relaxed);
        }
    }

    impl World for Clock {
        fn wall_ns(&self) -> u64 {
            0
        }
        fn instant(&self) -> Instant {
            Instant(self.0.load(Ordering::Relaxed))
        }
        fn fill(&self, _: &mut [u8]) {}
    }

    fn boxes() -> (Clock, Mailboxes) {
        let clock = Clock::default();
        (clock.clone(), Mailboxes::new(&Env::of(clock)))
    }

    fn id(n: u8) -> MailboxId {
        MailboxId([n; 32])
    }

    fn owner(drive: u8, device: u8) -> Owner {
        (DriveId([drive; 32]), PublicKey([device; 32]))
    }

    fn key(n: u8) -> PublicKey {
        PublicKey([n; 32])
    }

    fn why<T>(result: Result<T>) -> Option<NoPairing> {
        match result.err() {
            Some(Error::Pairing(why)) => Some(why),
            _ => None,
        }
    }

    #[tokio::test]
    async fn one_device_puts_a_message_and_takes_the_answer() {
        let (_, boxes) = boxes();
        let mine = owner(1, 1);
        boxes.open(id(1), mine, PAIR_MS_MAX).unwrap();
        boxes.open(id(1), mine, PAIR_MS_MAX).unwrap();
        assert_eq!(why(boxes.open(id(1), owner(2, 2), PAIR_MS_MAX)), Some(NoPairing::Used));
        assert!(boxes.answer(id(1), mine, Bytes::from("early")).is_err());
        let guest = boxes.join(id(1), key(7), Bytes::from("hello")).await.unwrap();
        assert_eq!(
            why(boxes.join(id(1), key(8), Bytes::from("hello")).await),
            Some(NoPairing::Used)
        );
        assert_eq!(
            why(boxes.join(id(1), key(7), Bytes::from("other")).await),
            Some(NoPairing::Used)
        );
        assert_eq!(boxes.request(id(1), mine).await.unwrap(), "hello");
        for other in [owner(2, 1), owner(1, 2)] {
            assert_eq!(why(boxes.request(id(1), other).await), Some(NoPairing::Unknown));
            let answer = Bytes::from("forged");
            assert_eq!(why(boxes.answer(id(1), other, answer)), Some(NoPairing::Unknown));
        }
        boxes.answer(id(1), mine, Bytes::from("welcome")).unwrap();
        boxes.answer(id(1), mine, Bytes::from("welcome")).unwrap();
        assert!(boxes.answer(id(1), mine, Bytes::from("again")).is_err());
        assert_eq!(boxes.answered(&guest).await.unwrap(), "welcome");
        let again = boxes.join(id(1), key(7), Bytes::from("hello")).await.unwrap();
        assert_eq!(boxes.answered(&again).await.unwrap(), "welcome", "after a break");
        assert!(matches!(boxes.answered(&guest).await, Err(Error::Busy { .. })));
    }

    #[tokio::test]
    async fn who_waits_is_woken_and_what_ends_says_so() {
        let (clock, boxes) = boxes();
        let boxes = Arc::new(boxes);
        boxes.open(id(1), owner(1, 1), 60_000).unwrap();
        let waiting = boxes.clone();
        let waiting = tokio::spawn(async move { waiting.request(id(1), owner(1, 1)).await });
        tokio::task::yield_now().await;
        boxes.join(id(1), key(7), Bytes::from("hello")).await.unwrap();
        assert_eq!(waiting.await.unwrap().unwrap(), "hello");
        clock.pass(59_999);
        boxes.join(id(1), key(7), Bytes::from("hello")).await.unwrap();
        clock.pass(1);
        assert_eq!(why(boxes.join(id(1), key(7), Bytes::new()).await), Some(NoPairing::Expired));
        assert_eq!(why(boxes.request(id(1), owner(1, 1)).await), Some(NoPairing::Expired));
        clock.pass(PAIR_MS_MAX);
        assert_eq!(why(boxes.join(id(1), key(7), Bytes::new()).await), Some(NoPairing::Unknown));
        boxes.open(id(2), owner(1, 1), u64::MAX).unwrap();
        clock.pass(PAIR_MS_MAX);
        assert_eq!(why(boxes.put(id(2), key(7), Bytes::new())), Some(NoPairing::Expired));
    }

    #[tokio::test(start_paused = true)]
    async fn names_that_are_guessed_are_answered_ever_later() {
        let boxes = Mailboxes::new(&Env::of(Clock::default()));
        let begun = tokio::time::Instant::now();
        for n in 0..3 * MISSES_PER_S {
            let guess = boxes.join(id(n as u8), key(7), Bytes::new()).await;
            assert_eq!(why(guess), Some(NoPairing::Unknown));
        }
        assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    }

    #[test]
    fn there_are_only_so_many_and_the_ended_give_way_first() {
        let (clock, boxes) = boxes();
        for n in 0..DRIVE_MAX as u8 {
            boxes.open(id(n), owner(1, n), 1_000).unwrap();
        }
        let full = boxes.open(id(99), owner(1, 99), 1_000);
        assert!(matches!(full, Err(Error::Refused(_))), "{full:?}");
        boxes.open(id(98), owner(1, 0), 1_000).unwrap();
        assert_eq!(why(boxes.put(id(0), key(7), Bytes::new())), Some(NoPairing::Unknown));
        clock.pass(1_000);
        boxes.open(id(99), owner(1, 99), 1_000).unwrap();
        for n in 0..ALL_MAX - DRIVE_MAX {
            let name = MailboxId(*blake3::hash(&n.to_le_bytes()).as_bytes());
            boxes.open(name, owner(2 + (n / DRIVE_MAX) as u8, n as u8), 1_000).unwrap();
        }
        // The seven that ended give way, and then there is no more room.
        let more =
            |n: u8| boxes.open(MailboxId([n, 1].repeat(16).try_into().unwrap()), owner(n, n), 9);
        for n in 200..207 {
            more(n).unwrap();
        }
        assert!(matches!(more(207), Err(Error::Busy { .. })));
    }
}
