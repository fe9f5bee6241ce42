//! The short commands: they work on the store's files, whether a node runs or not.

use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use crate::env::Env;
use crate::error::Error;
use crate::identity::{DriveId, PublicKey};
use crate::link::NodeUrl;
use crate::link::url::DEFAULT_PORT;
use crate::node::allow::{Allow, Grant};
use crate::node::cli::explain::{CORRUPT, Failure};
use crate::node::cli::units::{Size, Span, human};
use crate::node::invite::{Invite, Invites};
use crate::node::place::Place;
use crate::node::scrub;
use crate::node::status::{SpaceStatus, Status};

/// A node that runs says how it is within this time.
const STATUS_WAIT: Duration = Duration::from_secs(5);
/// A status is text of about a hundred bytes for each connection.
const STATUS_BYTES_MAX: u64 = 16 << 20;

pub(super) fn key(place: &Place, json: bool) -> Result<(), Failure> {
    let url = url(place)?;
    let fingerprint = url.key.fingerprint();
    let report = json!({
        "key": url.key.to_string(), "fingerprint": fingerprint, "url": url.to_string(),
    });
    say(json, &report, || {
        println!("key          {}", url.key);
        println!("fingerprint  {fingerprint}");
        println!("url          {url}");
    });
    Ok(())
}

pub(super) fn invite(
    place: &Place,
    quota: Option<Size>,
    expires: Span,
    json: bool,
) -> Result<(), Failure> {
    let env = Env::real();
    let invites = Invites::new(place);
    invites.sweep(env.wall_ms())?;
    let expires_ms = env.wall_ms().0.saturating_add(expires.0);
    let invite = Invite { quota: quota.map(|size| size.0), expires_ms };
    let secret = invites.create(&invite, &env)?;
    let url = NodeUrl { invite: Some(hex::encode(secret.0)), ..url(place)? };
    let report = json!({
        "url": url.to_string(), "expires_ms": expires_ms, "quota_bytes": invite.quota,
    });
    say(json, &report, || println!("{url}"));
    Ok(())
}

pub(super) fn allow(
    place: &Place,
    key: &PublicKey,
    quota: Option<Size>,
    json: bool,
) -> Result<(), Failure> {
    let allow = Allow::open(place)?;
    let before = allow.get(key).unwrap_or_default();
    let quota = quota.map(|size| size.0);
    let added_ms = before.added_ms.or(Some(Env::real().wall_ms().0));
    allow.add(key, Grant { quota, added_ms, ..before })?;
    let report = json!({
        "key": key.to_string(), "drive": DriveId::of(key).to_string(), "allowed": true,
        "quota_bytes": quota,
    });
    say(json, &report, || println!("allowed {key}"));
    Ok(())
}

pub(super) fn deny(place: &Place, key: &PublicKey, json: bool) -> Result<(), Failure> {
    let drive = DriveId::of(key);
    if !Allow::open(place)?.remove(key)? {
        return Err(Failure::new(
            1,
            format!("{key} was not authorised"),
            Some("see `rdrivefs-node list`"),
        ));
    }
    let kept = place.space(&drive);
    let report = json!({ "key": key.to_string(), "drive": drive.to_string(), "allowed": false });
    say(json, &report, || {
        println!("denied {key}");
        if kept.exists() {
            eprintln!("Its bytes stay in {}", kept.display());
        }
    });
    Ok(())
}

pub(super) fn list(place: &Place, json: bool) -> Result<(), Failure> {
    let invites = Invites::new(place).sweep(Env::real().wall_ms())?;
    let all = Allow::open(place)?.all();
    let drives: Vec<Value> = all
        .iter()
        .map(|(key, grant)| {
            json!({
                "key": key.to_string(), "drive": DriveId::of(key).to_string(),
                "quota_bytes": grant.quota, "added_ms": grant.added_ms,
            })
        })
        .collect();
    say(json, &json!({ "drives": drives, "invites": invites }), || {
        for (key, grant) in &all {
            println!("{key}  {}", grant.quota.map_or("default quota".to_owned(), human));
        }
        eprintln!("{} authorised, {invites} invites open", all.len());
    });
    Ok(())
}

pub(super) fn scrub(
    place: &Place,
    rate: Option<Size>,
    json: bool,
    quiet: bool,
) -> Result<ExitCode, Failure> {
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr()) && !quiet;
    let report = scrub::scrub(place, rate.map(|size| size.0), &Env::real(), |so_far| {
        if terminal {
            eprint!("\r{} blobs, {} ", so_far.blobs, human(so_far.bytes));
        }
    })?;
    if terminal {
        eprintln!();
    }
    say(json, &serde_json::to_value(&report).expect("a report is plain data"), || {
        for damage in &report.damaged {
            println!("{}: {}", damage.path.display(), damage.why);
        }
        let (blobs, entries, bytes) = (report.blobs, report.entries, human(report.bytes));
        println!("{blobs} blobs, {entries} entries, {bytes}, {} damaged", report.damaged.len());
    });
    if report.damaged.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!(
        "Delete the damaged blobs; the drives' devices will put those layers again. \
         Restore damaged log entries from a copy."
    );
    Ok(ExitCode::from(CORRUPT))
}

pub(super) fn status(place: &Place, json: bool) -> Result<(), Failure> {
    let status = match ask(place) {
        Some(status) => status,
        None => at_rest(place)?,
    };
    say(json, &serde_json::to_value(&status).expect("a status is plain data"), || {
        let state = if status.running { "running" } else { "not running" };
        println!("{state}  {}", status.url);
        for space in &status.spaces {
            let quota = space.quota_bytes.map_or("no limit".to_owned(), human);
            let (used, blobs) = (human(space.used_bytes), space.blobs);
            println!(
                "drive {}  {used} of {quota}, {blobs} blobs, {} devices",
                space.drive, space.devices
            );
        }
        for c in &status.connections {
            println!("connection {}  device {}, {} requests", c.address, c.device, c.requests);
        }
    });
    Ok(())
}

/// What the running node says, if one runs.
fn ask(place: &Place) -> Option<Status> {
    let stream = UnixStream::connect(place.socket()).ok()?;
    stream.set_read_timeout(Some(STATUS_WAIT)).ok()?;
    let mut text = String::new();
    stream.take(STATUS_BYTES_MAX).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// What the files alone say.
fn at_rest(place: &Place) -> Result<Status, Failure> {
    let mut spaces = Vec::new();
    for (key, grant) in Allow::open(place)?.all() {
        let drive = DriveId::of(&key);
        let (blobs, used_bytes) = scrub::count(&place.space(&drive))?;
        spaces.push(SpaceStatus {
            drive: drive.to_string(),
            key: key.to_string(),
            blobs,
            used_bytes,
            reserved_bytes: 0,
            quota_bytes: grant.quota,
            devices: 0,
        });
    }
    let running = place.is_locked();
    Ok(Status { running, url: url(place)?.to_string(), spaces, ..Status::default() })
}

/// The URL of the node that runs or ran last; before the first time, a likely one.
fn url(place: &Place) -> Result<NodeUrl, Error> {
    let key = place.key(&Env::real())?.public();
    let known = place.url().and_then(|text| text.parse::<NodeUrl>().ok());
    let likely = || NodeUrl { host: "127.0.0.1".to_owned(), port: DEFAULT_PORT, key, invite: None };
    Ok(known.filter(|url| url.key == key).unwrap_or_else(likely))
}

fn say(json: bool, report: &Value, words: impl FnOnce()) {
    if json {
        println!("{report}");
    } else {
        words();
    }
}
