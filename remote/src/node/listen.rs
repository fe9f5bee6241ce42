//! Listening: from the first packet of a connection to its last stream.
//!
//! Whoever has not said hello costs little and for a short time: one stream, a small window, a
//! deadline, and of too many such connections the oldest gives way, so that a flood of idle
//! handshakes delays an honest client by milliseconds instead of locking it out.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, Endpoint, Incoming, SendStream, VarInt};
use tokio::task::{AbortHandle, JoinSet};

use crate::error::{Error, Result};
use crate::link::quic;
use crate::node::answer;
use crate::node::gate::{self, Came};
use crate::node::keeper::Keeper;
use crate::node::mailbox::Guest;
use crate::node::pace::patience;
use crate::node::session::Ticket;
use crate::wire::{Answer, Fault, Reply, VERSION, close, frame};

/// Above so many connections without a hello, an address must prove itself before we answer more.
const RETRY_ABOVE: usize = 32;
/// How long a client that was turned away may take to read why.
const GOODBYE: Duration = Duration::from_secs(2);
/// What a connection may send ahead before it was welcomed.
pub(super) const GATE_WINDOW: u32 = 256 << 10;

/// Connections that have not said hello, oldest first.
#[derive(Default)]
struct Pending {
    next: u64,
    tasks: VecDeque<(u64, AbortHandle)>,
}

/// Takes its connection off the list when dropped, also by a panic.
struct Waiting {
    pending: Arc<Mutex<Pending>>,
    id: u64,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.tasks.retain(|(other, _)| *other != self.id);
    }
}

/// Accepts connections until the node stops, then waits for their requests.
pub(super) async fn run(endpoint: Endpoint, keeper: Arc<Keeper>) {
    let pending = Arc::new(Mutex::new(Pending::default()));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => {
                let Some(incoming) = incoming else { break };
                admit(incoming, &keeper, &pending, &mut connections);
            }
            Some(ended) = connections.join_next() => {
                if ended.is_err_and(|e| e.is_panic()) {
                    tracing::error!("a connection's task panicked");
                }
            }
            () = keeper.stopped() => break,
        }
    }
    endpoint.set_server_config(None);
    while connections.join_next().await.is_some() {}
}

fn admit(
    incoming: Incoming,
    keeper: &Arc<Keeper>,
    pending: &Arc<Mutex<Pending>>,
    connections: &mut JoinSet<()>,
) {
    let mut list = pending.lock().unwrap_or_else(PoisonError::into_inner);
    if list.tasks.len() > RETRY_ABOVE
        && incoming.may_retry()
        && !incoming.remote_address_validated()
    {
        let _ = incoming.retry();
        return;
    }
    list.next += 1;
    let id = list.next;
    let task = connections.spawn(connection(incoming, keeper.clone(), pending.clone(), id));
    list.tasks.push_back((id, task));
    if list.tasks.len() > keeper.config.limits.pending
        && let Some((_, oldest)) = list.tasks.pop_front()
    {
        keeper.metrics.turned_away.fetch_add(1, Ordering::Relaxed);
        oldest.abort();
    }
}

async fn connection(
    incoming: Incoming,
    keeper: Arc<Keeper>,
    pending: Arc<Mutex<Pending>>,
    id: u64,
) {
    let address = incoming.remote_address();
    let wait = Duration::from_millis(keeper.config.limits.hello_ms);
    let waiting = Waiting { pending, id };
    let welcomed = tokio::time::timeout(wait, welcome(incoming, &keeper)).await;
    drop(waiting);
    match welcomed {
        Ok(Ok((connection, to, Came::Member(ticket)))) => {
            drop(to);
            tracing::debug!(%address, device = %ticket.0.device, "welcomed");
            serve(connection, ticket, keeper).await;
            tracing::debug!(%address, "gone");
        }
        Ok(Ok((connection, to, Came::Guest(guest)))) => {
            tracing::info!(%address, "waits at a mailbox");
            serve_guest(connection, to, guest, keeper).await;
            tracing::debug!(%address, "gone");
        }
        Ok(Err(error)) => {
            keeper.metrics.turned_away.fetch_add(1, Ordering::Relaxed);
            keeper.metrics.failure(&error);
            tracing::info!(%address, %error, "turned away");
        }
        Err(_) => {
            keeper.metrics.turned_away.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%address, "said no hello in time");
        }
    }
}

/// Handshake and hello, which is answered; what a guest asked for is answered later.
async fn welcome(
    incoming: Incoming,
    keeper: &Arc<Keeper>,
) -> Result<(Connection, SendStream, Came)> {
    let broken = |e: quinn::ConnectionError| Error::Unreachable(e.to_string());
    let connection = incoming.accept().map_err(broken)?.await.map_err(broken)?;
    let (mut to, mut from) = connection.accept_bi().await.map_err(broken)?;
    let decided = gate::introduced(keeper, &connection, &mut from).await;
    let answer = match &decided {
        Ok(Came::Guest(_)) => return decided.map(|came| (connection, to, came)),
        Ok(Came::Member(_)) => Answer::Welcome { version: VERSION },
        Err(error) => Answer::Failed(Fault::from(error)),
    };
    if decided.is_ok() {
        connection.set_max_concurrent_bi_streams(VarInt::from_u32(quic::STREAMS_MAX));
    }
    let said = async {
        frame::send(&mut to, &Reply { answer, body: 0 }, &[]).await?;
        frame::end(&mut to).await
    };
    let said = said.await;
    match decided {
        Ok(came) => said.map(|()| (connection, to, came)),
        Err(error) => {
            // The client hangs up once it has read why.
            let _ = tokio::time::timeout(GOODBYE, connection.closed()).await;
            connection.close(VarInt::from_u32(close::REFUSED), b"not welcome");
            Err(error)
        }
    }
}

/// Serves the streams of a welcomed connection until it ends or the node stops.
async fn serve(connection: Connection, ticket: Ticket, keeper: Arc<Keeper>) {
    let mut requests = JoinSet::new();
    loop {
        tokio::select! {
            stream = connection.accept_bi() => {
                let Ok((to, from)) = stream else { break };
                requests.spawn(answer::serve(keeper.clone(), ticket.0.clone(), from, to));
            }
            Some(_) = requests.join_next() => {}
            () = keeper.stopped() => break,
        }
    }
    // Those under way end by themselves: done, or with the connection.
    while requests.join_next().await.is_some() {}
    if *keeper.stopping.borrow() {
        // What was answered last must arrive before the connection ends.
        tokio::time::sleep(LAST_WORDS).await;
        ticket.0.close(close::STOPPING, "the node is stopping");
    }
}

/// Waits with a guest for the answer, and brings it.
async fn serve_guest(
    connection: Connection,
    mut to: SendStream,
    guest: Guest,
    keeper: Arc<Keeper>,
) {
    let answered = tokio::select! {
        answered = keeper.mailboxes.answered(&guest) => answered,
        _ = connection.closed() => return,
        () = keeper.stopped() => {
            return connection.close(VarInt::from_u32(close::STOPPING), b"the node is stopping");
        }
    };
    let (answer, body) = match answered {
        Ok(body) => (Answer::Done, body),
        Err(error) => {
            keeper.metrics.failure(&error);
            (Answer::Failed(Fault::from(&error)), Bytes::new())
        }
    };
    let bytes = body.len() as u64;
    let said = async {
        frame::send(&mut to, &Reply { answer, body: bytes }, &body).await?;
        frame::end(&mut to).await
    };
    if let Ok(Ok(())) = tokio::time::timeout(patience(bytes), said).await {
        // The client hangs up once it has read it.
        let _ = tokio::time::timeout(GOODBYE, connection.closed()).await;
    }
    connection.close(VarInt::from_u32(close::DONE), b"");
}

/// How long the last answers may travel: a slow round trip.
const LAST_WORDS: Duration = Duration::from_millis(300);
