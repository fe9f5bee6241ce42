//! Readers of the formats of logs: entry, record, commit.

use rdrivefs_remote::entry::{Entry, LogKind};
use rdrivefs_remote::identity::DriveId;
use rdrivefs_remote::member::EpochId;
use rdrivefs_sync::keys::Epoch;
use rdrivefs_sync::record::{Commit, Content, Extent, Record, Source, TimeNs, unpack};
use rdrivefs_sync::seal::Key;

use super::case::{Case, unhex};

/// `entry`: the bytes of an entry.
pub(super) fn entry(case: &Case) -> Result<String, String> {
    let entry = Entry::decode(&case.bytes("entry")).map_err(|e| e.to_string())?;
    let kind = match entry.log.kind {
        LogKind::Membership => "membership",
        LogKind::Commits => "commits",
    };
    Ok(format!(
        "drive={} kind={kind} author={} instance={} number={} previous={} epoch={} body={} hash={}",
        entry.drive,
        entry.log.author,
        entry.log.instance,
        entry.number,
        hex::encode(entry.previous),
        hex::encode(entry.epoch),
        hex::encode(entry.body()),
        hex::encode(entry.hash()),
    ))
}

/// `record`: `[layers, record]`.
pub(super) fn record(case: &Case) -> Result<String, String> {
    let record: Record = unpack("a record", &case.bytes("record")).map_err(|e| e.to_string())?;
    record.check()?;
    Ok(describe(&record))
}

/// `drive`, `key` of the epoch, `parent` of the epoch a line (`id/key`), `entry`; where the Lamport
/// time is to be checked, `seen` a line.
pub(super) fn commit(case: &Case) -> Result<String, String> {
    let parents = case.all("parent").into_iter().map(|parent| {
        let (id, key) = parent.split_once('/').expect("a parent is id/key");
        let array = |text| <[u8; 32]>::try_from(unhex(text)).expect("32 bytes");
        (EpochId(array(id)), Key::from(array(key)))
    });
    let drive = DriveId(case.array("drive"));
    let epoch = Epoch::of_parts(drive, Key::from(case.array("key")), parents.collect());
    let entry = Entry::decode(&case.bytes("entry")).expect("the entry itself holds");
    let commit = Commit::open(&epoch, &entry).map_err(|e| e.to_string())?;
    let seen = case.all("seen").into_iter().map(|n| n.parse().expect("a Lamport time"));
    let seen: Vec<u64> = seen.collect();
    if !seen.is_empty() {
        commit.check_lamport(seen).map_err(|e| e.to_string())?;
    }
    let heads: Vec<String> = commit
        .seen
        .iter()
        .map(|head| {
            format!("{}/{}/{}", hex::encode(head.log.encode()), head.number, hex::encode(head.hash))
        })
        .collect();
    let records: Vec<String> = commit.records.iter().map(describe).collect();
    Ok(format!(
        "lamport={} wall_ms={} seen=[{}] records=[{}]",
        commit.lamport,
        commit.wall_ms.0,
        heads.join(" "),
        records.join("; ")
    ))
}

/// All that a record says, in one line.
fn describe(record: &Record) -> String {
    match record {
        Record::File { file, kind, rdev, target, born } => {
            let (target, born) = (hex::encode(target), time(born));
            format!("file {:x} {kind:?} rdev={rdev} target={target} born={born}", file.0)
        }
        Record::Attr { file, mode, uid, gid, mtime, atime, ctime, crtime } => {
            let times = [mtime, atime, ctime, crtime].map(|t| option(t.as_ref().map(time)));
            let [mode, uid, gid] = [mode, uid, gid].map(|n| option(n.as_ref()));
            format!("attr {:x} {mode} {uid} {gid} {}", file.0, times.join(" "))
        }
        Record::Xattr { file, name, value } => {
            let value = option(value.as_ref().map(hex::encode));
            format!("xattr {:x} {} value={value}", file.0, hex::encode(name))
        }
        Record::Link { link, parent, name, file } => {
            format!("link {:x} in={:x} {} file={:x}", link.0, parent.0, hex::encode(name), file.0)
        }
        Record::Unlink { link, saw, heads } => {
            let heads: Vec<String> = heads.iter().map(|id| format!("{:x}", id.0)).collect();
            let saw = format!("{}/{}", saw.lamport, saw.device.0);
            format!("unlink {:x} saw={saw} heads={}", link.0, heads.join(","))
        }
        Record::Version { file, id, bases, size, mtime, content: what } => {
            let bases: Vec<String> = bases.iter().map(|id| format!("{:x}", id.0)).collect();
            let (bases, mtime, what) = (bases.join(","), time(mtime), content(what));
            let (file, id) = (file.0, id.0);
            format!("version {id:x} of={file:x} bases={bases} size={size} mtime={mtime} {what}")
        }
        other => describe_places(other),
    }
}

/// As [`describe`], for the records about layers, remotes and devices.
fn describe_places(record: &Record) -> String {
    match record {
        Record::Layer { id, len, key, epoch, nonce, toc } => {
            let [key, epoch, nonce, toc] =
                [&key.as_bytes()[..], epoch, nonce, toc].map(hex::encode);
            format!("layer {id} len={len} key={key} epoch={epoch} nonce={nonce} toc={toc}")
        }
        Record::Moved { from, to } => format!("moved {from} {to}"),
        Record::Held { layer, shard, remote } => {
            format!("held {layer} shard={shard} remote={}", hex::encode(remote))
        }
        Record::Remote { id, name, url, key } => {
            format!("remote {} {name:?} {url:?} {key}", hex::encode(id))
        }
        Record::Device { device, number, name } => format!("device {device} {} {name:?}", number.0),
        Record::Policy { folder, rule } => format!("policy {:x} {rule:?}", folder.0),
        other => unreachable!("described above: {other:?}"),
    }
}

fn content(content: &Content) -> String {
    match content {
        Content::Inline(bytes) => format!("inline={}", hex::encode(bytes)),
        Content::Extents(list) => format!("extents=[{}]", extents(list)),
        Content::Listed { list, count } => format!("listed={count} [{}]", extents(list)),
    }
}

fn extents(extents: &[Extent]) -> String {
    let one = |extent: &Extent| match extent.source {
        Source::Hole => format!("{}:hole", extent.len),
        Source::Chunk { layer, number, skip } => format!("{}:{layer}/{number}+{skip}", extent.len),
    };
    extents.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn time(time: &TimeNs) -> String {
    format!("{}.{:09}", time.secs, time.nanos)
}

fn option(value: Option<impl ToString>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}
