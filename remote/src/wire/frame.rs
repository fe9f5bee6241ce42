//! Frames: heads and bodies over any pair of byte streams.
//!
//! What comes from outside is bounded before a byte of it is kept, and memory grows with what has
//! arrived, never with what was announced.

use bytes::Bytes;
use minicbor::{Decode, Encode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::cbor;
use crate::error::{Error, Result};
use crate::store::Body;
use crate::wire::call::{Answer, Call, Reply, Request};
use crate::wire::limits::HEAD_BYTES_MAX;

/// Bodies are copied in steps of this many bytes: large enough that the cost per step vanishes.
const COPY_BYTES: usize = 64 << 10;

/// Sends a head and a body that is in memory.
///
/// # Errors
/// [`Error::Unreachable`] when the stream breaks.
pub async fn send<T: Encode<()>>(
    to: &mut (impl AsyncWrite + Unpin),
    head: &T,
    body: &[u8],
) -> Result<()> {
    let head = cbor::encode(head);
    let mut frame = Vec::with_capacity(4 + head.len() + body.len().min(COPY_BYTES));
    frame.extend_from_slice(&u32::try_from(head.len()).expect("heads are short").to_le_bytes());
    frame.extend_from_slice(&head);
    let first = body.len().min(COPY_BYTES);
    frame.extend_from_slice(&body[..first]);
    to.write_all(&frame).await.map_err(broken)?;
    to.write_all(&body[first..]).await.map_err(broken)
}

/// Sends more of a body.
///
/// # Errors
/// [`Error::Unreachable`] when the stream breaks.
pub async fn send_bytes(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<()> {
    to.write_all(bytes).await.map_err(broken)
}

/// Says that nothing more follows.
///
/// # Errors
/// [`Error::Unreachable`] when the stream breaks.
pub async fn end(to: &mut (impl AsyncWrite + Unpin)) -> Result<()> {
    to.shutdown().await.map_err(broken)
}

/// Reads a head.
///
/// # Errors
/// [`Error::Malformed`] for anything but the exact encoding of one.
pub async fn read_head<T>(from: &mut (impl AsyncRead + Unpin), what: &'static str) -> Result<T>
where
    T: for<'b> Decode<'b, ()> + Encode<()>,
{
    let len = from.read_u32_le().await.map_err(broken)?;
    if len > HEAD_BYTES_MAX {
        return Err(Error::malformed(what, "its head is too long"));
    }
    let mut head = vec![0; len as usize];
    from.read_exact(&mut head).await.map_err(broken)?;
    cbor::decode(what, &head)
}

/// Reads a body of `len` bytes, `max` at most.
///
/// # Errors
/// [`Error::Malformed`] when it is announced longer, [`Error::Unreachable`] when it ends early.
pub async fn read_body(
    from: &mut (impl AsyncRead + Unpin),
    len: u64,
    max: u64,
    what: &'static str,
) -> Result<Bytes> {
    if len > max {
        return Err(Error::malformed(what, format!("a body of {len} bytes, {max} at most")));
    }
    let len = usize::try_from(len).map_err(|_| Error::malformed(what, "too long to hold"))?;
    let mut body = Vec::with_capacity(len.min(COPY_BYTES));
    while body.len() < len {
        // Doubling: never more than twice what has arrived.
        let room = (len - body.len()).min(body.capacity().max(COPY_BYTES));
        body.reserve_exact(room);
        let got = from.take(room as u64).read_buf(&mut body).await.map_err(broken)?;
        if got == 0 {
            return Err(Error::Unreachable("the stream ended early".to_owned()));
        }
    }
    Ok(body.into())
}

/// The client's side of an exchange: sends `call` with `body`, gives the answer and its body.
///
/// # Errors
/// What the node answered, or how the stream broke.
pub async fn ask<R, W>(mut from: R, mut to: W, call: Call, body: Body) -> Result<(Answer, Bytes)>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let reply_max = call.reply_max();
    let head = Request { call, body: body.len };
    let sent = match send_request(&mut to, &head, body).await {
        // A node that refuses stops reading; what it says then counts more than the broken pipe.
        Err(broken @ Error::Unreachable(_)) => Some(broken),
        other => other.map(|()| None)?,
    };
    let reply: Reply = match (read_head(&mut from, "reply").await, sent) {
        (Err(Error::Unreachable(_)), Some(broken)) => return Err(broken),
        (Ok(Reply { answer: Answer::Failed(fault), .. }), _) => return Err(fault.into()),
        (Ok(_), Some(broken)) => return Err(broken),
        (reply, _) => reply?,
    };
    let body = read_body(&mut from, reply.body, reply_max, "reply").await?;
    Ok((reply.answer, body))
}

async fn send_request<W: AsyncWrite + Unpin>(to: &mut W, head: &Request, body: Body) -> Result<()> {
    send(to, head, &[]).await?;
    copy(body, to).await?;
    end(to).await
}

/// Copies a body out, exactly as long as it said.
async fn copy<W: AsyncWrite + Unpin>(body: Body, to: &mut W) -> Result<()> {
    let mut left = body.len;
    if left == 0 {
        return Ok(());
    }
    let mut from = body.reader();
    let mut step = vec![0; COPY_BYTES.min(usize::try_from(left).unwrap_or(COPY_BYTES))];
    while left > 0 {
        let room = step.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let got =
            from.read(&mut step[..room]).await.map_err(Error::io("reading a blob to send"))?;
        if got == 0 {
            return Err(Error::malformed("blob", "it ended before its length"));
        }
        to.write_all(&step[..got]).await.map_err(broken)?;
        left -= got as u64;
    }
    Ok(())
}

fn broken(error: std::io::Error) -> Error {
    Error::Unreachable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::BlobId;

    #[tokio::test]
    async fn an_exchange_over_a_plain_pipe() {
        let (client, mut node) = tokio::io::duplex(1 << 16);
        let (from, to) = tokio::io::split(client);
        let call = Call::Put { id: BlobId([1; 32]) };
        let asked = tokio::spawn(ask(from, to, call.clone(), Body::bytes(Bytes::from("hello"))));
        let request: Request = read_head(&mut node, "request").await.unwrap();
        assert_eq!(request, Request { call, body: 5 });
        let body = read_body(&mut node, 5, 5, "blob").await.unwrap();
        assert_eq!(&body[..], b"hello");
        send(&mut node, &Reply { answer: Answer::Done, body: 0 }, &[]).await.unwrap();
        assert_eq!(asked.await.unwrap().unwrap().0, Answer::Done);
    }

    #[tokio::test]
    async fn lies_about_lengths_cost_nothing() {
        for len in [HEAD_BYTES_MAX + 1, 1 << 31, u32::MAX] {
            let mut bytes = &len.to_le_bytes()[..];
            let error = read_head::<Request>(&mut bytes, "request").await.unwrap_err();
            assert!(error.is_corrupt(), "{error}");
        }
        let mut nothing = &b""[..];
        assert!(read_body(&mut nothing, 1 << 63, 100, "body").await.unwrap_err().is_corrupt());
        let mut short = &b"abc"[..];
        assert!(read_body(&mut short, 1 << 20, 1 << 20, "body").await.is_err());
    }

    #[tokio::test]
    async fn a_reply_longer_than_asked_for_is_refused() {
        let (client, mut node) = tokio::io::duplex(1 << 16);
        let (from, to) = tokio::io::split(client);
        let call = Call::Get { id: BlobId([1; 32]), start: 0, end: 10 };
        let asked = tokio::spawn(ask(from, to, call, Body::bytes(Bytes::new())));
        send(&mut node, &Reply { answer: Answer::Done, body: 1 << 40 }, &[]).await.unwrap();
        assert!(asked.await.unwrap().unwrap_err().is_corrupt());
    }
}
