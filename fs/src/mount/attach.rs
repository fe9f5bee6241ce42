//! Asking the kernel for a mount, and giving it back.
//!
//! Root mounts directly; others by `fusermount3`, which is set-user-id and hands the descriptor
//! back over a socket. fuser's own way is not used, since it ties who may send requests to who may
//! reach the mount, and would so refuse the kernel's own requests, made as root.

use std::ffi::CString;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use super::error::MountError;
use super::options::Options;

/// What the table of mounts shows as the kind of filesystem.
pub(super) const KIND: &str = "fuse.rdrivefs";
const DEVICE: &str = "/dev/fuse";
const HELPER: &str = "fusermount3";

/// Mounts on `point`; the descriptor is the kernel's end of it.
pub(super) fn attach(point: &Path, options: &Options) -> Result<OwnedFd, MountError> {
    match direct(point, options) {
        Ok(fuse) => Ok(fuse),
        // The helper opens the device and mounts with root's rights.
        Err(Errno::PERM | Errno::ACCESS) => by_helper(point, options),
        Err(e @ (Errno::NOENT | Errno::NXIO | Errno::NODEV)) => {
            Err(MountError::NoFuse { source: e.into() })
        }
        Err(e) => Err(MountError::io("mounting on", point)(e.into())),
    }
}

fn open_device() -> Result<OwnedFd, Errno> {
    rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

/// Whether each thread of the loop can have a descriptor of its own: who may only mount by the
/// helper may not be allowed to open the device.
pub(super) fn can_clone() -> bool {
    open_device().is_ok()
}

fn direct(point: &Path, options: &Options) -> Result<OwnedFd, Errno> {
    let fuse = open_device()?;
    let mut data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions",
        fuse.as_fd().as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    if options.allow_other {
        data.push_str(",allow_other");
    }
    let data = CString::new(data).expect("numbers and words hold no NUL");
    rustix::mount::mount(options.fsname.as_str(), point, KIND, mount_flags(options), &*data)?;
    Ok(fuse)
}

fn mount_flags(options: &Options) -> MountFlags {
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::RDONLY, options.read_only);
    flags.set(MountFlags::NOSUID, !options.suid);
    flags.set(MountFlags::NODEV, !options.dev);
    flags.set(MountFlags::NOEXEC, !options.exec);
    flags.set(MountFlags::NOATIME, options.noatime);
    flags
}

fn by_helper(point: &Path, options: &Options) -> Result<OwnedFd, MountError> {
    let words = [
        Some("default_permissions"),
        options.allow_other.then_some("allow_other"),
        Some(if options.read_only { "ro" } else { "rw" }),
        Some(if options.suid { "suid" } else { "nosuid" }),
        Some(if options.dev { "dev" } else { "nodev" }),
        Some(if options.exec { "exec" } else { "noexec" }),
        options.noatime.then_some("noatime"),
    ];
    let words: Vec<_> = words.into_iter().flatten().collect();
    // The helper takes a backslash for an escape; the name has none.
    let fsname = options.fsname.replace(',', "\\,");
    let list = format!("{},subtype=rdrivefs,fsname={fsname}", words.join(","));
    let (ours, theirs) = UnixStream::pair().map_err(MountError::io("a socket for", point))?;
    // The socket goes in as standard input, the one descriptor that is passed on without `unsafe`.
    let mut helper = Command::new(HELPER)
        .args(["-o", &list, "--"])
        .arg(point)
        .env("_FUSE_COMMFD", "0")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| MountError::NoHelper { source })?;
    let fuse = receive(&ours);
    if let Some(fuse) = fuse {
        let _status = helper.wait();
        return Ok(fuse);
    }
    let output = helper.wait_with_output().map_err(|source| MountError::NoHelper { source })?;
    Err(MountError::Helper { why: String::from_utf8_lossy(&output.stderr).trim().into() })
}

/// The descriptor the helper sends; nothing if it gives up.
fn receive(socket: &UnixStream) -> Option<OwnedFd> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut byte)];
    rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
    })
    .ok()?;
    ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut sent) => sent.next(),
        _ => None,
    })
}

/// Ends the mount on `point`; `lazy` takes it out of sight now and ends it when it is no more used.
pub(super) fn detach(point: &Path, lazy: bool) -> Result<(), MountError> {
    let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    match rustix::mount::unmount(point, flags | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => detach_by_helper(point, lazy),
        Err(Errno::BUSY) => Err(MountError::Busy { point: point.into() }),
        Err(e) => Err(MountError::io("unmounting", point)(e.into())),
    }
}

fn detach_by_helper(point: &Path, lazy: bool) -> Result<(), MountError> {
    let output = Command::new(HELPER)
        .arg("-u")
        .args(lazy.then_some("-z"))
        .arg("--")
        .arg(point)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| MountError::NoHelper { source })?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if why.contains("busy") {
        return Err(MountError::Busy { point: point.into() });
    }
    Err(MountError::Helper { why })
}
