//! Answers: what the core gave, in the shape of each request's reply.

use std::time::Duration;

use fuser::{
    Errno, Generation, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyWrite, ReplyXattr,
};
use rdrivefs_sync::Result;

use super::convert::file_attr;
use super::core::words::Attr;
use super::errno::errno;

/// How long the kernel may remember names and attributes. Nothing expires: what changes behind its
/// back is invalidated. An hour is the limit of the harm, should an invalidation ever be missed.
pub(super) const TTL: Duration = Duration::from_secs(3600);

pub(super) fn reply_empty(op: &'static str, reply: ReplyEmpty, result: Result<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(op, &error)),
    }
}

pub(super) fn reply_entry(op: &'static str, reply: ReplyEntry, result: Result<Attr>) {
    match result {
        Ok(attr) => reply.entry(&TTL, &file_attr(&attr), Generation(attr.generation)),
        Err(error) => reply.error(errno(op, &error)),
    }
}

pub(super) fn reply_attr(op: &'static str, reply: ReplyAttr, result: Result<Attr>) {
    match result {
        Ok(attr) => reply.attr(&TTL, &file_attr(&attr)),
        Err(error) => reply.error(errno(op, &error)),
    }
}

pub(super) fn reply_data(op: &'static str, reply: ReplyData, result: Result<Vec<u8>>) {
    match result {
        Ok(data) => reply.data(&data),
        Err(error) => reply.error(errno(op, &error)),
    }
}

pub(super) fn reply_written(op: &'static str, reply: ReplyWrite, result: Result<u32>) {
    match result {
        Ok(count) => reply.written(count),
        Err(error) => reply.error(errno(op, &error)),
    }
}

/// Answers with a value, or with its length where `size` is zero.
pub(super) fn reply_xattr(op: &'static str, reply: ReplyXattr, size: u32, result: Result<Vec<u8>>) {
    match result {
        Ok(value) if size == 0 => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        Ok(value) if value.len() > size as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(&value),
        Err(error) => reply.error(errno(op, &error)),
    }
}
