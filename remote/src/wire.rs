//! The protocol `rdrivefs/1`: what a client and a node say to each other, byte by byte.
//!
//! This module knows no QUIC, only bytes that come in order; the lane below brings identities that
//! are already proven (raw ed25519 keys on both sides) and many independent streams.
//!
//! **Exchange.** Each stream carries one exchange: the client sends a request head and its body and
//! ends its half; the node sends a reply head and its body and ends its half. A node may reply
//! before it has read the whole body, and then reads no further. The first exchange of a connection
//! is `Hello`; before it was answered with `Welcome` a node accepts no other stream. Who is to
//! become a device of a drive says `PairJoin` instead, and nothing else.
//!
//! **Head.** `length u32 ‖ CBOR`, the length at most 4,096. The CBOR must be the one canonical
//! encoding: shortest integers, definite lengths, nothing behind it.
//! ```text
//! request = [call, body: uint]                reply  = [answer, body: uint]   ; body: bytes to follow
//! call    = [0, [[*uint], drive, root, invite / null]]   ; Hello: versions offered   body: entries
//!         / [1, [id]]                                    ; Put                       body: the blob
//!         / [2, [id, start: uint, end: uint]]            ; Get                       reply: a slice
//!         / [3, []]                                      ; GetMany  body: wants      reply: items
//!         / [4, []]                                      ; Has      body: ids        reply: lengths
//!         / [5, [id / null, limit: uint]]                ; List, ids above           reply: helds
//!         / [6, [id]]                                    ; Delete
//!         / [7, []]                                      ; Space
//!         / [8, []]                                      ; Append   body: an entry
//!         / [9, [log, from: uint, bytes: uint]]          ; ReadLog                   reply: entries
//!         / [10, []]                                     ; Heads                     reply: heads
//!         / [11, [timeout-ms: uint]]                     ; Watch    body: heads seen reply: heads
//!         / [12, [mailbox, lifetime-ms: uint]]           ; PairOpen
//!         / [13, [mailbox, timeout-ms: uint]]            ; PairWait                  reply: a request
//!         / [14, [mailbox]]                              ; PairAnswer body: an answer
//!         / [15, [[*uint], mailbox]]                     ; PairJoin body: a request  reply: an answer
//! answer  = [0, []]                                      ; Done
//!         / [1, [version: uint]]                         ; Welcome
//!         / [2, [used: uint, quota: uint / null, blobs: uint]] ; Space
//!         / [3, [fault]]                                 ; Failed, no body
//! fault   = [0, [id]]            ; missing         / [1, [id, offset]]       ; corrupt
//!         / [2, [text]]          ; not authentic   / [3, [text]]             ; refused
//!         / [4, [used, quota]]   ; quota           / [5, []]                 ; disk full
//!         / [6, [expected, got]] ; log conflict    / [7, [text]]             ; malformed
//!         / [8, [version]]       ; unknown version / [9, [retry-ms]]         ; busy
//!         / [10, [text]]         ; the node failed
//!         / [11, [0 / 1 / 2]]    ; no such mailbox, its time is over, another device has it
//! drive, root, id, mailbox = bytes .size 32      invite = bytes .size 16      log = bytes .size 37
//! ```
//! **Bodies** are concatenated records, integers little-endian:
//! ```text
//! entries  n × (length u32 ‖ the entry's exact bytes)      ids      n × 32 bytes
//! wants    n × (id 32 ‖ start u64 ‖ end u64)               lengths  n × u64, 2⁶⁴−1 = not held
//! items    n × (0 u8 ‖ length u32 ‖ slice), in the order   helds    n × (id 32 ‖ length u64)
//!              of the wants; or (1 u8 ‖ length u32 ‖       heads    n × (log 37 ‖ number u64
//!              CBOR fault) where one failed                              ‖ hash 32)
//! ```
//! A slice is the Bao slice of the range widened to whole 4 KiB groups (its length first, then
//! hashes and groups in pre-order). Ranges are bytes of the blob, `end` exclusive and clamped to its
//! length. A want or an id for a blob that belongs to another drive is one for a blob not held.
//!
//! **Lane.** Over QUIC (RFC 9000) with TLS 1.3: ALPN `rdrivefs/1`, key exchange X25519MLKEM768 alone,
//! ed25519 raw public keys (RFC 7250) on both sides, no 0-RTT, no tickets. Streams are bidirectional
//! and opened by the client, 128 at a time at most. Connections are closed with code 0 (done),
//! 1 (refused; the reason is text), 2 (the node stops) or 3 (busy). A reply whose rest cannot be
//! sent is reset with code 1 (the blob is damaged) or 2 (the node failed). Bounds are in `wire::limits`;
//! what passes one is answered with "malformed".

pub mod frame;
pub mod call;
pub mod record;
pub mod fault;
pub mod limits;

pub use call::{Answer, Call, InviteSecret, MailboxId, Reply, Request, slice_max};
pub use fault::Fault;
pub use limits::*;
