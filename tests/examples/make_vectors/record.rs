//! Cases of records.

use rdrivefs_remote::blob::BlobId;
use rdrivefs_remote::identity::PublicKey;
use rdrivefs_sync::id::{DeviceNumber, FileId, LinkId, VersionId, draw};
use rdrivefs_sync::record::{
    CHUNK_BYTES_MAX, Content, EXTENTS_MAX, Extent, INLINE_BYTES_MAX, Kind, Record, Source, Stamp,
    TimeNs, pack,
};
use rdrivefs_sync::seal::Key;

use crate::{Folder, Inputs, hexed};

const TIME: TimeNs = TimeNs { secs: 1_700_000_000, nanos: 123_456_789 };

fn file(count: u64) -> FileId {
    FileId(draw(DeviceNumber(1), count))
}

fn chunk(len: u64, layer: u8, number: u32, skip: u32) -> Extent {
    Extent { len, source: Source::Chunk { layer: BlobId([layer; 32]), number, skip } }
}

fn hole(len: u64) -> Extent {
    Extent { len, source: Source::Hole }
}

pub(crate) fn made(kind: Kind, rdev: u32, target: &[u8]) -> Record {
    Record::File { file: file(1), kind, rdev, target: target.to_vec(), born: TIME }
}

pub(crate) fn link(name: &[u8]) -> Record {
    let (parent, name) = (FileId::ROOT, name.to_vec());
    Record::Link { link: LinkId(draw(DeviceNumber(1), 2)), parent, name, file: file(1) }
}

pub(crate) fn version(size: u64, content: Content) -> Record {
    let id = VersionId(draw(DeviceNumber(1), 3));
    Record::Version { file: file(1), id, bases: Vec::new(), size, mtime: TIME, content }
}

fn attr(mode: Option<u32>, mtime: Option<TimeNs>) -> Record {
    let (atime, ctime, crtime) = (None, None, None);
    Record::Attr { file: file(1), mode, uid: Some(1000), gid: None, mtime, atime, ctime, crtime }
}

fn xattr(name: &[u8], value: Option<Vec<u8>>) -> Record {
    Record::Xattr { file: file(1), name: name.to_vec(), value }
}

fn named(name: &str, url: &str) -> Record {
    let key = PublicKey([4; 32]);
    Record::Remote { id: [1; 16], name: name.to_owned(), url: url.to_owned(), key }
}

fn unlink(heads: &[u64]) -> Record {
    let saw = Stamp { lamport: 7, device: DeviceNumber(2) };
    let heads = heads.iter().map(|id| VersionId(*id)).collect();
    Record::Unlink { link: LinkId(draw(DeviceNumber(1), 2)), saw, heads }
}

fn input(record: &Record) -> Inputs {
    raw(pack(record))
}

fn raw(bytes: impl AsRef<[u8]>) -> Inputs {
    vec![("record", hexed(bytes))]
}

pub(crate) fn write(folder: &Folder) {
    valid_tree(folder);
    valid_content(folder);
    valid_places(folder);
    refused_names(folder);
    refused_values(folder);
    refused_content(folder);
    refused_spellings(folder);
}

fn valid_tree(folder: &Folder) {
    let put = |name: &str, comment: &str, record: Record, means: &str| {
        folder.valid(name, comment, input(&record), means);
    };
    put("file", "a regular file is made", made(Kind::File, 0, b""), "file 1000000000100 File");
    put("directory", "a directory is made", made(Kind::Directory, 0, b""), "Directory");
    put("symlink", "a symlink is made", made(Kind::Symlink, 0, b"../a"), "target=2e2e2f61");
    put("device", "a character device is made", made(Kind::CharDevice, 0x103, b""), "rdev=259");
    let early = TimeNs { secs: -1, nanos: 999_999_999 };
    put("attr", "mode, owner and a time before 1970", attr(Some(0o7777), Some(early)), "4095 1000");
    put("attr_owner", "the owner alone", attr(None, None), "attr 1000000000100 - 1000 -");
    put("xattr", "an attribute is set", xattr(b"user.a", Some(vec![0, 255])), "00ff");
    put("xattr_empty", "an attribute with no value", xattr(b"user.a", Some(vec![])), "2e61 value=");
    put("xattr_gone", "an attribute is removed", xattr(b"user.a", None), "value=-");
    put("link", "a name in the root", link(b"name"), "in=0 6e616d65");
    put("link_bytes", "any bytes but two make a name", link(&[0xff; 255]), "ffffff");
    put("link_dots", "three dots are a name", link(b"..."), "2e2e2e");
    put("unlink", "a tombstone", unlink(&[256, 512]), "saw=7/2 heads=100,200");
}

fn valid_content(folder: &Folder) {
    let put = |name: &str, comment: &str, record: Record, means: &str| {
        folder.valid(name, comment, input(&record), means);
    };
    put("empty", "an empty version", version(0, Content::EMPTY), "inline=");
    let most = Content::Inline(vec![b'x'; INLINE_BYTES_MAX]);
    put("inline", "the longest content in a record", version(512, most), "inline=7878");
    let chunks = vec![chunk(4096, 1, 0, 0), hole(10), chunk(1, 2, 5, 9), chunk(7, 1, 1, 3)];
    let means = format!("10:hole 1:{}/5+9 7:{}/1+3", "02".repeat(32), "01".repeat(32));
    let record = version(4114, Content::Extents(chunks));
    put("extents", "stretches of two layers and a hole", record, &means);
    let whole = Content::Extents(vec![chunk(u64::from(CHUNK_BYTES_MAX), 1, 0, 0)]);
    put("whole_chunk", "all of the largest chunk", version(4 << 20, whole), "extents=");
    let sparse = Content::Extents(vec![hole(i64::MAX as u64)]);
    put("largest", "a hole as long as a file can be", version(i64::MAX as u64, sparse), ":hole");
    let listed = Content::Listed { list: vec![chunk(900, 1, 2, 0)], count: 65_537 };
    put("listed", "a list that lies in a chunk", version(1 << 40, listed), "listed=65537 ");
}

fn valid_places(folder: &Folder) {
    let put = |name: &str, comment: &str, record: Record, means: &str| {
        folder.valid(name, comment, input(&record), means);
    };
    let (one, two) = (BlobId([1; 32]), BlobId([2; 32]));
    let (key, toc) = (Key::from([3; 32]), vec![0x80]);
    let layer = Record::Layer { id: one, len: 9_000, key, epoch: [4; 32], nonce: [5; 24], toc };
    put("layer", "a layer and what opens it", layer, "len=9000 key=0303");
    put("moved", "chunks lie elsewhere now", Record::Moved { from: one, to: two }, "moved 0101");
    let held = Record::Held { layer: one, shard: 0xffff, remote: [6; 16] };
    put("held", "a remote holds a whole copy", held, "shard=65535");
    put("remote", "a remote", named("home", "rdrive://[::1]:7"), "\"home\"");
    put("remote_gone", "a remote was removed", named("home", ""), "\"home\" \"\"");
    let (device, number) = (PublicKey([8; 32]), DeviceNumber(65_535));
    let record = Record::Device { device, number, name: "Büro".to_owned() };
    put("device_name", "a device's name", record, "65535 \"Büro\"");
    let record = Record::Policy { folder: FileId::ROOT, rule: "copies(2)".to_owned() };
    put("policy", "what the root's layers need", record, "policy 0 \"copies(2)\"");
}

fn refused_names(folder: &Folder) {
    let put = |name: &str, comment: &str, record: Record, why: &str| {
        folder.refused(name, comment, input(&record), why);
    };
    put("name_empty", "a name of no bytes", link(b""), "wrong length");
    put("name_long", "a name of 256 bytes", link(&[b'x'; 256]), "wrong length");
    put("name_dot", "the name of the directory itself", link(b"."), "means a directory");
    put("name_dots", "the name of the directory above", link(b".."), "means a directory");
    put("name_slash", "a name that is a path", link(b"a/../../b"), "slash");
    put("name_nul", "a name with a NUL", link(b"a\0"), "NUL");
    let root = Record::Link {
        link: LinkId(256),
        parent: file(9),
        name: b"root".to_vec(),
        file: FileId::ROOT,
    };
    put("link_root", "the root under a name of its own", root, "link to the root");
    put("xattr_name", "an attribute without a name", xattr(b"", None), "wrong length");
    put("xattr_nul", "an attribute's name with a NUL", xattr(b"user.\0", None), "NUL");
    put("xattr_long", "an attribute's name too long", xattr(&[b'u'; 256], None), "wrong length");
}

fn refused_values(folder: &Folder) {
    let put = |name: &str, comment: &str, record: Record, why: &str| {
        folder.refused(name, comment, input(&record), why);
    };
    let again = Record::File {
        file: FileId::ROOT,
        kind: Kind::Directory,
        rdev: 0,
        target: Vec::new(),
        born: TIME,
    };
    put("root_again", "the root made anew", again, "root made again");
    put("rdev", "a device number on a file", made(Kind::File, 1, b""), "no device");
    put("target", "a target on a directory", made(Kind::Directory, 0, b"x"), "no symlink");
    put("no_target", "a symlink that leads nowhere", made(Kind::Symlink, 0, b""), "wrong length");
    put("target_nul", "a target with a NUL", made(Kind::Symlink, 0, b"a\0b"), "NUL");
    let long = vec![b'x'; 4096];
    put("target_long", "a target too long", made(Kind::Symlink, 0, &long), "wrong length");
    let mode = attr(Some(0o100_644), None);
    put("mode", "a mode with the kind of file in it", mode, "permission bits");
    let late = TimeNs { secs: 0, nanos: 1_000_000_000 };
    put("nanos", "a second with too many nanoseconds", attr(None, Some(late)), "nanoseconds");
    put("heads_order", "versions not in order", unlink(&[512, 256]), "ascending");
    put("heads_twice", "a version named twice", unlink(&[256, 256]), "ascending");
    let moved = Record::Moved { from: BlobId([1; 32]), to: BlobId([1; 32]) };
    put("moved_nowhere", "a layer moved to itself", moved, "itself");
    put("control", "a name that would move the cursor", named("a\x1b[2J", "x"), "control");
    put("text_long", "an address too long", named("a", &"x".repeat(1025)), "too long");
}

fn refused_content(folder: &Folder) {
    let put = |name: &str, comment: &str, record: Record, why: &str| {
        folder.refused(name, comment, input(&record), why);
    };
    let inline = |len: usize| Content::Inline(vec![0; len]);
    put("inline_long", "too much content in a record", version(513, inline(513)), "too much");
    put("inline_size", "content shorter than the size", version(5, inline(4)), "differ");
    let extents = |list: &[Extent]| Content::Extents(list.to_vec());
    put(
        "extents_size",
        "stretches shorter than the size",
        version(9, extents(&[hole(8)])),
        "differ",
    );
    put("extent_empty", "a stretch of no bytes", version(0, extents(&[hole(0)])), "empty extent");
    let past = extents(&[chunk(2, 1, 0, CHUNK_BYTES_MAX - 1)]);
    put("extent_past", "a stretch past its chunk's end", version(2, past), "beyond its chunk");
    let far = extents(&[chunk(1, 1, 0, u32::MAX)]);
    put(
        "extent_far",
        "a stretch that begins past every chunk",
        version(1, far),
        "beyond its chunk",
    );
    let over = extents(&[hole(u64::MAX), hole(2)]);
    put("size_wraps", "stretches whose sum wraps round", version(1, over), "beyond every size");
    let huge = extents(&[hole(1 << 63)]);
    put("size_huge", "a size beyond what a file can have", version(1 << 63, huge), "beyond what");
    let listed = |list: Vec<Extent>, count| version(1, Content::Listed { list, count });
    let (one, most) = (chunk(9, 1, 0, 0), EXTENTS_MAX as u64);
    put("listed_short", "a short list stored as a long one", listed(vec![one], most), "short list");
    put("listed_hole", "a list with a hole in it", listed(vec![one, hole(1)], most + 1), "hole");
}

fn refused_spellings(folder: &Folder) {
    let parse = "does not parse";
    let put = |name: &str, comment: &str, bytes: &[u8], why: &str| {
        folder.refused(name, comment, raw(bytes), why);
    };
    let good = pack(&link(b"name"));
    put("nothing", "no bytes", &[], parse);
    put("cut", "the last byte is missing", &good[..good.len() - 1], parse);
    put("trailing", "a byte behind the end", &[&good[..], &[0]].concat(), "one encoding");
    let with = |from: &[u8], to: &[u8]| {
        let at = good.windows(from.len()).position(|window| window == from);
        let at = at.expect("the bytes to replace are there");
        [&good[..at], to, &good[at + from.len()..]].concat()
    };
    // 82 80 85 03: a table and a record, no layers, a record of five parts, the third kind.
    put("unknown_kind", "a kind of record not known", &with(&[0x85, 3], &[0x85, 24, 99]), parse);
    put("wide_integer", "3 in two bytes", &with(&[0x85, 3], &[0x85, 24, 3]), "one encoding");
    let endless = [&with(&[0x85, 3], &[0x9f, 3])[..], &[0xff]].concat();
    put("endless_array", "an array of no given length", &endless, "");
    put("text_name", "a name as text", &with(&[0x44, b'n'], &[0x64, b'n']), parse);
    put("more_fields", "a field more", &[&with(&[0x85, 3], &[0x86, 3])[..], &[0]].concat(), "one");
    put("fewer_fields", "a field less", &with(&[0x85, 3], &[0x84, 3]), parse);
    put("no_table", "the record alone", &good[2..], parse);
    let idle = [&[0x82, 0x81, 0x58, 32][..], &[7; 32], &good[2..]].concat();
    put("idle_layer", "a layer that no stretch names", &idle, "one encoding");
    let lie =
        [&[0x82, 0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..], &good[2..]].concat();
    put("huge_table", "a table of 2^64 layers", &lie, parse);
    let extents = pack(&version(3, Content::Extents(vec![chunk(1, 1, 0, 0), chunk(2, 2, 0, 0)])));
    let mut swapped = extents.clone();
    swapped[4..36].copy_from_slice(&[2; 32]);
    swapped[38..70].copy_from_slice(&[1; 32]);
    let ones = swapped.windows(5).position(|w| w == [0x84, 1, 0, 0, 0]).expect("an extent");
    (swapped[ones + 2], swapped[ones + 7]) = (1, 0);
    put("table_order", "layers not in the order of their use", &swapped, "one encoding");
    let mut beyond = extents;
    beyond[ones + 2] = 2;
    put("layer_beyond", "a layer that is not in the table", &beyond, parse);
}
