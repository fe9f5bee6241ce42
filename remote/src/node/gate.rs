//! The gate: who is welcomed. Nothing is stored for anyone before both proofs hold: the drive is
//! authorised (or brings an invite) and the device belongs to the drive. Who proves neither may
//! name a mailbox that a member opened, and leave one message in it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncRead;

use crate::error::{Error, Result};
use crate::identity::{DriveId, PublicKey};
use crate::link::tls;
use crate::node::allow::Grant;
use crate::node::invite::USELESS;
use crate::node::keeper::Keeper;
use crate::node::mailbox::Guest;
use crate::node::session::Ticket;
use crate::node::space;
use crate::wire::{
    Call, InviteSecret, PAIR_REQUEST_BYTES_MAX, Request, VERSION, VERSIONS_MAX, frame, record,
};

/// What a hello's body may take while others wait for its turn, beside the time its bytes need.
const BODY_MS: u64 = 1_000;
/// 2 Mbit/s; whoever is slower has its quarter of a megabyte here before its turn comes.
const BODY_BYTES_PER_MS: u64 = 256;

/// Who came in.
pub(super) enum Came {
    /// A member of a drive.
    Member(Ticket),
    /// Somebody whose message lies in a mailbox, and who waits for the answer.
    Guest(Guest),
}

/// Reads how a connection begins and decides; the caller sends the answer.
pub(super) async fn introduced(
    keeper: &Arc<Keeper>,
    connection: &quinn::Connection,
    from: &mut (impl AsyncRead + Unpin),
) -> Result<Came> {
    let request = frame::read_head::<Request>(from, "hello").await;
    let guest = matches!(&request, Ok(Request { call: Call::PairJoin { .. }, .. }));
    keeper.metrics.request(if guest { "pair_join" } else { "hello" });
    let request = request?;
    let (Call::Hello { versions, .. } | Call::PairJoin { versions, .. }) = &request.call else {
        return Err(Error::malformed("hello", "a connection begins with one"));
    };
    if versions.len() > VERSIONS_MAX || !versions.contains(&VERSION) {
        return Err(Error::UnknownVersion { what: "the node", version: VERSION.into() });
    }
    match request.call {
        Call::PairJoin { mailbox, .. } => {
            let key = tls::peer(connection)?;
            let max = PAIR_REQUEST_BYTES_MAX as u64;
            let body = frame::read_body(from, request.body, max, "pairing").await?;
            keeper.mailboxes.join(mailbox, key, body).await.map(Came::Guest)
        }
        _ => hello(keeper, connection, request, from).await.map(Came::Member),
    }
}

async fn hello(
    keeper: &Arc<Keeper>,
    connection: &quinn::Connection,
    request: Request,
    from: &mut (impl AsyncRead + Unpin),
) -> Result<Ticket> {
    let device = tls::peer(connection)?;
    let max = request.call.body_max();
    let Call::Hello { drive, root, invite, .. } = request.call else {
        unreachable!("the caller has looked");
    };
    if DriveId::of(&root) != drive {
        return Err(Error::Refused("the root key is not this drive's".to_owned()));
    }
    check_drive(keeper, &root, invite.as_ref())?;
    // Only now is anything larger read, and only so many at a time.
    let _lane = keeper.lanes.take((drive, keeper.knows(&drive, &device).await)).await;
    let _turn = keeper.hellos.acquire().await.expect("the semaphore is never closed");
    let wait_ms = BODY_MS + request.body.min(max) / BODY_BYTES_PER_MS;
    let body = frame::read_body(from, request.body, max, "hello");
    let shown = tokio::time::timeout(Duration::from_millis(wait_ms), body).await;
    let shown = record::read_entries(&shown.unwrap_or(Err(Error::TimedOut(wait_ms)))?)?;
    let grant = match keeper.allow.get(&root) {
        Some(grant) => grant,
        None => redeem(keeper, &root, &device, &shown, invite.as_ref()).await?,
    };
    let space = keeper.space(&root, grant.quota).await?;
    let certified = space.clone();
    keeper.carry(&space, async move { certified.certify(&device, shown).await }).await?;
    let env = &keeper.config.env;
    let ticket = keeper.sessions.enter(connection.clone(), device, space, env)?;
    // Who was denied or revoked since it was looked at could not be cut before it entered.
    if keeper.allow.get(&root).is_none() || !ticket.0.space.admits(&device).await {
        return Err(Error::Refused("no longer welcome".to_owned()));
    }
    keeper.metrics.welcomed.fetch_add(1, Ordering::Relaxed);
    Ok(ticket)
}

/// Authorises a drive by its invite. It is proven against nothing but what it shows, before the
/// invite is spent and a space made.
async fn redeem(
    keeper: &Keeper,
    root: &PublicKey,
    device: &PublicKey,
    shown: &[Bytes],
    invite: Option<&InviteSecret>,
) -> Result<Grant> {
    let secret = invite.ok_or_else(unknown)?;
    space::certified(root, device, shown).await?;
    let now = keeper.config.env.wall_ms();
    let redeemed = keeper.invites.redeem(secret, root, &keeper.allow, now);
    // Another hello of the same drive may have been faster with the same invite.
    let grant = keeper.allow.get(root);
    match (redeemed, grant) {
        (_, Some(grant)) => Ok(grant),
        (redeemed, None) => Err(redeemed.err().unwrap_or_else(unknown)),
    }
}

fn check_drive(keeper: &Keeper, root: &PublicKey, invite: Option<&InviteSecret>) -> Result<()> {
    if keeper.allow.get(root).is_some() {
        return Ok(());
    }
    match invite {
        Some(secret) if keeper.invites.is_good(secret, keeper.config.env.wall_ms()) => Ok(()),
        Some(_) => Err(Error::Refused(USELESS.to_owned())),
        None => Err(unknown()),
    }
}

fn unknown() -> Error {
    let why = "this node does not know the drive: ask its keeper for an invite";
    Error::Refused(why.to_owned())
}
