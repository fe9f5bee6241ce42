//! The gate: who is welcomed. Nothing is stored for anyone before both proofs hold: the drive is
//! authorised (or brings an invite) and the device belongs to the drive.

use std::sync::atomic::Ordering;

use tokio::io::AsyncRead;

use crate::error::{Error, Result};
use crate::identity::{DriveId, PublicKey};
use crate::link::tls;
use crate::node::invite::USELESS;
use crate::node::keeper::Keeper;
use crate::node::session::Ticket;
use crate::node::space;
use crate::wire::{Call, InviteSecret, Request, VERSION, VERSIONS_MAX, frame, record};

/// Reads a hello and decides; the caller sends the answer.
pub(super) async fn hello(
    keeper: &Keeper,
    connection: &quinn::Connection,
    from: &mut (impl AsyncRead + Unpin),
) -> Result<Ticket> {
    let device = tls::peer(connection)?;
    let request: Request = frame::read_head(from, "hello").await?;
    let max = request.call.body_max();
    let Call::Hello { versions, drive, root, invite } = request.call else {
        return Err(Error::malformed("hello", "a connection begins with one"));
    };
    if versions.len() > VERSIONS_MAX || !versions.contains(&VERSION) {
        return Err(Error::UnknownVersion { what: "the node", version: VERSION.into() });
    }
    if DriveId::of(&root) != drive {
        return Err(Error::Refused("the root key is not this drive's".to_owned()));
    }
    check_drive(keeper, &root, invite.as_ref())?;
    // Only now is anything larger read, and only so many at a time.
    let _turn = keeper.hellos.acquire().await.expect("the semaphore is never closed");
    let shown = frame::read_body(from, request.body, max, "hello").await?;
    let shown = record::read_entries(&shown)?;
    let grant = keeper.allow.get(&root);
    if grant.is_none() {
        // Proven against nothing but what it shows, before the invite is spent and a space made.
        space::certified(&root, &device, &shown)?;
        let secret = invite.as_ref().expect("checked above");
        keeper.invites.redeem(secret, &root, &keeper.allow, keeper.config.env.wall_ms())?;
        tracing::info!(%drive, "an invite was used");
    }
    let quota = keeper.allow.get(&root).and_then(|grant| grant.quota);
    let space = keeper.space(&root, quota).await?;
    if space.certify(&device, shown).await? {
        keeper.sessions.cut_revoked(&space).await;
    }
    let env = &keeper.config.env;
    let ticket = keeper.sessions.enter(connection.clone(), device, space, env)?;
    keeper.metrics.welcomed.fetch_add(1, Ordering::Relaxed);
    Ok(ticket)
}

fn check_drive(keeper: &Keeper, root: &PublicKey, invite: Option<&InviteSecret>) -> Result<()> {
    if keeper.allow.get(root).is_some() {
        return Ok(());
    }
    match invite {
        Some(secret) if keeper.invites.is_good(secret, keeper.config.env.wall_ms()) => Ok(()),
        Some(_) => Err(Error::Refused(USELESS.to_owned())),
        None => Err(Error::Refused(
            "this node does not know the drive: ask its keeper for an invite".to_owned(),
        )),
    }
}
