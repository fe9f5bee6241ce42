//! Each command: what it needs, whom it asks, what it says.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use rdrivefs_sync::home::Home;
use rdrivefs_sync::progress::Progress;
use rdrivefs_sync::remote::env::Env;
use rdrivefs_sync::report::{DrivePath, Keep, Samples, VerifyPlan};
use rdrivefs_sync::verify::samples_for;
use serde_json::Value;

use crate::cli::args::{
    Cli, Command, Common, Device, Init, Key, Recovery, Remote, Resolve, Verify,
};
use crate::cli::paint::Paint;
use crate::cli::table::{Table, number, word};
use crate::cli::{
    ask, copy, daemon, device, doctor, init, key, places, say, secrets, unmount, versions,
};
use crate::control::{self, Half, Request, execute};
use crate::failure::{Exit, Result};

/// How long one question for news waits.
const NEWS_WAIT_MS: u64 = 1_000;

/// How often `--watch` looks.
const WATCH_EVERY: std::time::Duration = std::time::Duration::from_secs(1);

/// Carries a command out.
pub(super) fn run(cli: &Cli) -> Result<Exit> {
    let common = &cli.common;
    match &cli.command {
        Command::Init(args) => init::init(common, args).map(|()| Exit::Done),
        Command::Mount(args) => {
            if !places::home(common)?.has_drive() {
                init::init(common, &Init::default())?;
            }
            daemon::run(common, args).map(|()| Exit::Done)
        }
        Command::Unmount { dir, now } => {
            unmount::unmount(common, dir.as_deref(), *now).map(|()| Exit::Done)
        }
        command @ Command::Status { watch: true, .. } => watch(common, command),
        Command::Doctor { repair } => doctor::doctor(common, *repair),
        Command::Put { paths } => copy::put(common, paths).map(|()| Exit::Done),
        Command::Get { paths } => copy::get(common, paths).map(|()| Exit::Done),
        Command::Rm(args) => copy::remove(common, &args.paths).map(|()| Exit::Done),
        Command::Device(Device::Add(args)) => device::add(common, args).map(|()| Exit::Done),
        Command::Key(Key::Passphrase { new_passphrase_file, no_passphrase }) => {
            key::passphrase(common, *no_passphrase, new_passphrase_file.as_deref())
                .map(|()| Exit::Done)
        }
        Command::Key(Key::Recovery(Recovery::Test { file })) => {
            key::recovery_test(common, file.as_deref()).map(|()| Exit::Done)
        }
        Command::Bench => bench(common).map(|()| Exit::Done),
        command => {
            let home = places::home(common)?;
            let request = request(common, &home, command)?;
            let value = ask::ask(common, &home, request.clone())?;
            say::report(&request, &value, common);
            Ok(exit_of(&request, &value))
        }
    }
}

/// What a command that only asks asks.
fn request(common: &Common, home: &Home, command: &Command) -> Result<Request> {
    let mount = ask::mounted_on(home);
    let path = |path: &PathBuf| places::drive_path(path, common, mount.as_deref());
    let all = |list: &[PathBuf]| list.iter().map(path).collect::<Result<Vec<_>>>();
    let sync = |half, timeout_ms| Request::Sync { half, timeout_ms };
    Ok(match command {
        Command::Status { path: None, .. } => Request::Status,
        Command::Status { path: Some(p), .. } => Request::StatusOf { path: path(p)? },
        Command::Sync(args) => sync(Half::Sync, args.timeout),
        Command::Push(args) => sync(Half::Push, args.timeout),
        Command::Pull(args) => sync(Half::Pull, args.timeout),
        Command::Remote(Remote::Add { name, url }) => {
            Request::RemoteAdd { name: name.clone(), url: init::url_of(url)? }
        }
        Command::Remote(Remote::List) => Request::RemoteList,
        Command::Remote(Remote::Remove { name }) => Request::RemoteRemove { name: name.clone() },
        Command::Remote(Remote::Trust { name, fingerprint }) => {
            Request::RemoteTrust { name: name.clone(), key: fingerprint.clone() }
        }
        Command::Verify(args) => {
            Request::Verify { plan: plan(args, home, args.path.as_ref().map(path).transpose()?)? }
        }
        Command::Evict(args) => Request::Evict {
            paths: all(&args.paths)?,
            free_bytes: args.free,
            dry_run: args.dry_run,
        },
        Command::Pin(args) => Request::Pin { paths: all(&args.paths)?, pinned: true },
        Command::Unpin(args) => Request::Pin { paths: all(&args.paths)?, pinned: false },
        Command::Fetch(args) => Request::Fetch { paths: all(&args.paths)? },
        Command::Ls { prefix, depth } => {
            let root = DrivePath(b"/".to_vec());
            // As with put, get and rm: without a mount there is only one meaning.
            let common =
                &Common { drive_path: common.drive_path || mount.is_none(), ..common.clone() };
            let path = |path| places::drive_path(path, common, mount.as_deref());
            let path = prefix.as_deref().map(path).transpose()?.unwrap_or(root);
            Request::List { path, depth: *depth }
        }
        Command::Layers { path: p } => Request::Layers { path: p.as_ref().map(path).transpose()? },
        Command::Log { device } => Request::Log { device: device.clone() },
        Command::Device(Device::List) => Request::DeviceList,
        Command::Device(Device::Revoke { device }) => {
            Request::DeviceRevoke { device: device.clone() }
        }
        Command::Device(Device::Name { name }) => Request::DeviceName { name: name.clone() },
        Command::Versions { path: p } => Request::Versions { path: path(p)? },
        Command::Restore { path: p } => {
            let (file, which) = versions::version_of(p);
            Request::Restore { path: path(&file)?, which }
        }
        Command::Undelete { path: p } => Request::Undelete { path: path(p)? },
        Command::Rewind { path: p, to } => {
            let whole = || Ok(DrivePath(b"/".to_vec()));
            Request::Rewind { path: p.as_ref().map_or_else(whole, path)?, to_ms: *to }
        }
        Command::Conflicts { resolve: None } => Request::Conflicts,
        Command::Conflicts { resolve: Some(Resolve::Resolve { path: p, keep }) } => {
            let keep = match keep.as_str() {
                "mine" => Keep::Mine,
                "theirs" => Keep::Theirs,
                _ => Keep::Both,
            };
            Request::Resolve { path: path(p)?, keep }
        }
        Command::Key(Key::Show) => Request::KeyShow,
        Command::Key(Key::Rotate) => Request::KeyRotate,
        other => unreachable!("{other:?} was carried out before"),
    })
}

fn plan(args: &Verify, home: &Home, path: Option<DrivePath>) -> Result<VerifyPlan> {
    let defaults = home.config()?.verify;
    let loss = args.loss.unwrap_or(defaults.loss.0);
    let confidence = args.confidence.unwrap_or(defaults.confidence.0);
    let samples = match (args.all, args.samples) {
        (true, _) => Samples::All,
        (false, Some(count)) => Samples::Count(count),
        (false, None) => Samples::Count(samples_for(confidence, loss)),
    };
    Ok(VerifyPlan { samples, loss, local: args.local, remote: args.remote.clone(), path })
}

fn exit_of(request: &Request, value: &Value) -> Exit {
    let damaged = |key: &str| value[key].as_u64().is_some_and(|n| n > 0);
    match request {
        Request::Verify { .. } if damaged("failures") => Exit::Damaged,
        Request::Verify { .. } => {
            let none = |target: &Value| target["reached"] == false;
            let targets = value["targets"].as_array();
            match targets.is_some_and(|all| !all.is_empty() && all.iter().all(none)) {
                true => Exit::Unreachable,
                false => Exit::Done,
            }
        }
        Request::Evict { dry_run: false, .. } => {
            match value["evicted_layers"] == 0 && damaged("kept_bytes") {
                true => Exit::Refused,
                false => Exit::Done,
            }
        }
        Request::Sync { .. } if value["agreed"] == false => Exit::Failed,
        _ => Exit::Done,
    }
}

fn watch(common: &Common, command: &Command) -> Result<Exit> {
    let home = places::home(common)?;
    let request = request(common, &home, command)?;
    let passphrase = match control::is_served(&home.socket()) {
        true => None,
        false => Some(secrets::existing(&home, common)?),
    };
    if common.json && matches!(request, Request::Status) {
        let socket = home.socket();
        std::thread::spawn(move || tell_news(&socket));
    }
    let mut last = Value::Null;
    loop {
        match look(common, &home, &request, passphrase.as_ref()) {
            Ok(value) => {
                let steady = without_ticks(value.clone());
                if steady != last {
                    show(common, &request, &value, last.is_null());
                    last = steady;
                }
            }
            // Another command has the drive for a moment.
            Err(failure) if failure.code == Exit::Busy && !last.is_null() => {}
            Err(failure) => return Err(failure),
        }
        std::thread::sleep(WATCH_EVERY);
    }
}

/// Prints what other devices change, a line each, while the drive is mounted.
fn tell_news(socket: &std::path::Path) {
    let mut from = None;
    loop {
        let asked = Request::News { from, wait_ms: NEWS_WAIT_MS };
        let Ok(news) = control::ask(socket, asked, &mut |_| ()) else {
            std::thread::sleep(WATCH_EVERY);
            continue;
        };
        from = news["next"].as_u64();
        if news["missed"] == true {
            say::print("{\"event\":\"missed\"}\n");
        }
        for changed in news["changed"].as_array().into_iter().flatten() {
            let mut line = changed.clone();
            line["event"] = "changed".into();
            say::print(&format!("{line}\n"));
        }
    }
}

/// Asks once; who has no daemon to ask opens the drive with what was asked for at the beginning.
fn look(
    common: &Common,
    home: &Home,
    request: &Request,
    passphrase: Option<&secrets::Passphrase>,
) -> Result<Value> {
    match passphrase {
        Some(passphrase) if !control::is_served(&home.socket()) => {
            ask::with_drive_opened_by(passphrase, home, |drive| {
                execute(drive, request.clone(), &Progress::silent())
            })
        }
        _ => ask::ask(common, home, request.clone()),
    }
}

fn show(common: &Common, request: &Request, value: &Value, first: bool) {
    if !common.json && std::io::stdout().is_terminal() {
        say::print("\x1b[H\x1b[2J");
    } else if !common.json && !first {
        say::print("\n");
    }
    say::report(request, value, common);
}

/// A status without what changes by itself at every look.
fn without_ticks(mut status: Value) -> Value {
    for remote in status["remotes"].as_array_mut().into_iter().flatten() {
        for tick in ["rtt_ms", "seen_ms"] {
            remote[tick] = Value::Null;
        }
    }
    status
}

/// What this machine can do at best.
fn bench(common: &Common) -> Result<()> {
    let report = rdrivefs_sync::bench::measure(&Env::real());
    if common.json {
        say::print(&format!("{}\n", serde_json::to_string(&report).expect("it is plain data")));
        return Ok(());
    }
    let mut table = Table::default();
    for line in &report {
        table.row([word(line.what), number(format!("{:.0} MB/s", line.mb_per_s))]);
    }
    say::print(&table.lines(Paint::out(common), ""));
    Ok(())
}
