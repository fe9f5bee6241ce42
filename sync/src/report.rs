//! What a drive tells about itself: the reports that commands print and scripts read.
//!
//! Every struct here is one JSON document, or one line of a JSON stream, of the command line, and
//! travels over the control socket in the same form: *the field names are a contract*. Fields may be
//! added; none is renamed, removed or given another meaning. Sizes are bytes, times are
//! milliseconds since the Unix epoch (`_ms`), ids and keys are lower-case hexadecimal.
//! An unknown or absent value is `null`, never a magic number. No sentence for people is made here,
//! save `why` and `detail`, which name the object and the check. No logic belongs here.

mod authority;
mod conflicts;
mod history;
mod status;
mod moved;
mod verify;
mod list;
mod news;
mod path;

pub use authority::{EpochReport, RevokeReport};
pub use conflicts::{Conflict, Dispute, Keep, ResolveReport};
pub use history::{RestoreReport, RewindReport, VersionLine};
pub use list::{FileKind, FileState, Holder, LayerUse, ListEntry, LogKind, LogLine, Stage};
pub use moved::{
    EvictReport, FetchReport, Kept, KeptReason, Phase, PinReport, ProgressEvent, RemoteOutcome,
    SyncReport,
};
pub use news::{Changed, NewsReport};
pub use path::DrivePath;
pub use status::{
    CacheUse, DeviceInfo, Health, Joiner, KeptUnder, KeyInfo, MountInfo, PairingOffer, PathStatus,
    Pending, RemoteInfo, Status, TreeUse,
};
pub use verify::{
    Check, CheckState, Damaged, DoctorReport, Samples, VerifyPlan, VerifyReport, VerifyTarget,
};
