//! Each command: what it needs, whom it asks, what it says.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use rdrivefs_sync::drive::Drive;
use rdrivefs_sync::home::Home;
use rdrivefs_sync::progress::Progress;
use rdrivefs_sync::remote::env::Env;
use rdrivefs_sync::report::{DrivePath, Samples, VerifyPlan};
use rdrivefs_sync::verify::samples_for;
use serde_json::Value;

use crate::cli::args::{Cli, Command, Common, Init, Key, Remote, Verify};
use crate::cli::{daemon, files, places, say, secrets};
use crate::control::{self, Half, Request, execute};
use crate::failure::{Exit, Failure, Result};

/// How often `--watch` looks.
const WATCH_EVERY: std::time::Duration = std::time::Duration::from_secs(1);

/// Carries a command out.
pub(super) fn run(cli: &Cli) -> Result<Exit> {
    let common = &cli.common;
    match &cli.command {
        Command::Init(args) => init(common, args).map(|()| Exit::Done),
        Command::Mount(args) => {
            if !places::home(common)?.has_drive() {
                init(common, &Init::default())?;
            }
            daemon::run(common, args).map(|()| Exit::Done)
        }
        Command::Unmount { dir, now } => {
            daemon::unmount(common, dir.as_deref(), *now).map(|()| Exit::Done)
        }
        Command::Status { watch: true, .. } => watch(common),
        Command::Put { paths } => put(common, paths).map(|()| Exit::Done),
        Command::Get { paths } => get(common, paths).map(|()| Exit::Done),
        Command::Rm(args) => remove(common, &args.paths).map(|()| Exit::Done),
        Command::Bench => bench(common).map(|()| Exit::Done),
        command => {
            let home = places::home(common)?;
            let request = request(common, &home, command)?;
            let value = ask(common, &home, request.clone())?;
            say::report(&request, &value, common);
            Ok(exit_of(&request, &value))
        }
    }
}

/// What a command that only asks asks.
fn request(common: &Common, home: &Home, command: &Command) -> Result<Request> {
    let mount = daemon::mounted_on(home);
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
            Request::RemoteAdd { name: name.clone(), url: url_of(url)? }
        }
        Command::Remote(Remote::List) => Request::RemoteList,
        Command::Remote(Remote::Remove { name }) => Request::RemoteRemove { name: name.clone() },
        Command::Remote(Remote::Trust { name, .. }) => {
            return Err(Failure::new(
                Exit::Refused,
                format!("the key of {name} is part of its URL and cannot be exchanged"),
            )
            .next("remove the remote and add it again with the URL its keeper gives you"));
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
            let path = prefix.as_ref().map(path).transpose()?.unwrap_or(root);
            Request::List { path, depth: *depth }
        }
        Command::Layers { path: p } => Request::Layers { path: p.as_ref().map(path).transpose()? },
        Command::Log { device } => Request::Log { device: device.clone() },
        Command::Key(Key::Show) => Request::KeyShow,
        Command::Doctor { .. } => Request::Doctor,
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

/// Asks the daemon, or opens the drive.
fn ask(common: &Common, home: &Home, request: Request) -> Result<Value> {
    let mut bars = say::Bars::new(common);
    if control::is_served(&home.socket()) {
        return control::ask(&home.socket(), request, &mut |event| bars.show(&event));
    }
    let bars = std::sync::Mutex::new(bars);
    let progress = Progress::new(move |event| {
        if let Ok(mut bars) = bars.lock() {
            bars.show(&event);
        }
    });
    with_drive(common, home, |drive| execute(drive, request, &progress))
}

fn with_drive<T>(
    common: &Common,
    home: &Home,
    work: impl FnOnce(&Drive) -> Result<T>,
) -> Result<T> {
    let passphrase = secrets::existing(home, common)?;
    let drive =
        secrets::with_unlock(&passphrase, |unlock| Ok(Drive::open(home, unlock, Env::real())?))?;
    let done = work(&drive)?;
    drive.shutdown()?;
    Ok(done)
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
        Request::Doctor => {
            let damaged = |check: &Value| check["state"] == "damaged";
            match value["checks"].as_array().is_some_and(|all| all.iter().any(damaged)) {
                true => Exit::Damaged,
                false => Exit::Done,
            }
        }
        Request::Sync { .. } if value["agreed"] == false => Exit::Failed,
        _ => Exit::Done,
    }
}

fn init(common: &Common, args: &Init) -> Result<()> {
    let name = args.name.clone().or_else(|| common.drive.clone());
    let home = places::roots()?.home(name.as_deref().unwrap_or("default"))?;
    if home.has_drive() {
        return Err(
            rdrivefs_sync::Error::DriveExists(home.config_dir().display().to_string()).into()
        );
    }
    let phrase = args.recover.as_ref().map(|file| secrets::phrase(file)).transpose()?;
    let passphrase = secrets::chosen(common, args.no_passphrase)?;
    let env = Env::real();
    if let (Some(phrase), Some(url)) = (phrase, &args.remote) {
        let url = url_of(url)?.parse().map_err(|e| Failure::words(format!("{e}")))?;
        let drive = secrets::with_unlock(&passphrase, |unlock| {
            Ok(Drive::recover(&home, &phrase, &url, unlock, env, &Progress::silent())?)
        })?;
        drive.shutdown()?;
        say::founded(common, &home, None);
        return Ok(());
    }
    let (drive, phrase) =
        secrets::with_unlock(&passphrase, |unlock| Ok(Drive::create(&home, unlock, env)?))?;
    drive.shutdown()?;
    match &args.recovery_file {
        Some(file) => {
            secrets::write_phrase(file, &phrase)?;
            say::founded(common, &home, None);
        }
        None => say::founded(common, &home, Some(&phrase)),
    }
    Ok(())
}

fn watch(common: &Common) -> Result<Exit> {
    let home = places::home(common)?;
    let mut last = Value::Null;
    loop {
        let value = ask(common, &home, Request::Status)?;
        if value != last {
            match common.json {
                true => println!("{value}"),
                false => say::report(&Request::Status, &value, common),
            }
            last = value;
        }
        std::thread::sleep(WATCH_EVERY);
    }
}

fn put(common: &Common, paths: &[PathBuf]) -> Result<()> {
    let home = places::home(common)?;
    let (to, from) = paths.split_last().expect("clap asks for two");
    let mount = daemon::mounted_on(&home);
    if let Some(mount) = &mount {
        let to = through(mount, &places::drive_path(to, common, Some(mount))?);
        return copy(from, &to);
    }
    let common = Common { drive_path: true, ..common.clone() };
    let to = places::drive_path(to, &common, None)?;
    with_drive(&common, &home, |drive| {
        let directory = is_directory(drive, &to);
        for file in from {
            let target = if directory { inside(&to, file) } else { to.clone() };
            files::put(drive.tree(), file, &target)?;
        }
        Ok(())
    })
}

fn get(common: &Common, paths: &[PathBuf]) -> Result<()> {
    let home = places::home(common)?;
    let (to, from) = paths.split_last().expect("clap asks for two");
    if let Some(mount) = daemon::mounted_on(&home) {
        let from: Result<Vec<_>> = from
            .iter()
            .map(|path| Ok(through(&mount, &places::drive_path(path, common, Some(&mount))?)))
            .collect();
        return copy(&from?, to);
    }
    let common = Common { drive_path: true, ..common.clone() };
    with_drive(&common, &home, |drive| {
        for path in from {
            let path = places::drive_path(path, &common, None)?;
            let name = path.0.rsplit(|b| *b == b'/').next().unwrap_or_default().to_vec();
            let name: std::ffi::OsString = std::os::unix::ffi::OsStringExt::from_vec(name);
            let target = if to.is_dir() { to.join(name) } else { to.clone() };
            files::get(drive.tree(), &path, &target)?;
        }
        Ok(())
    })
}

fn remove(common: &Common, paths: &[PathBuf]) -> Result<()> {
    let home = places::home(common)?;
    if let Some(mount) = daemon::mounted_on(&home) {
        for path in paths {
            let path = through(&mount, &places::drive_path(path, common, Some(&mount))?);
            let what = || Failure::io(format!("remove {}", path.display()));
            match std::fs::symlink_metadata(&path).map_err(what())?.is_dir() {
                true => std::fs::remove_dir_all(&path).map_err(what())?,
                false => std::fs::remove_file(&path).map_err(what())?,
            }
        }
        return Ok(());
    }
    let common = Common { drive_path: true, ..common.clone() };
    with_drive(&common, &home, |drive| {
        for path in paths {
            files::remove(drive.tree(), &places::drive_path(path, &common, None)?)?;
        }
        Ok(())
    })
}

/// `cp -a`, with `-` for the standard streams.
fn copy(from: &[PathBuf], to: &Path) -> Result<()> {
    let stream = |file: &Path| file.as_os_str() == "-";
    let what = || Failure::io(format!("copy to {}", to.display()));
    if from.iter().any(|file| stream(file)) {
        let mut out = std::fs::File::create(to).map_err(what())?;
        std::io::copy(&mut std::io::stdin().lock(), &mut out).map_err(what())?;
        return out.sync_all().map_err(what());
    }
    if stream(to) {
        for file in from {
            let mut file = std::fs::File::open(file).map_err(what())?;
            std::io::copy(&mut file, &mut std::io::stdout().lock()).map_err(what())?;
        }
        return Ok(());
    }
    let status = std::process::Command::new("cp").arg("-a").arg("--").args(from).arg(to).status();
    match status.map_err(Failure::io("run cp"))?.success() {
        true => Ok(()),
        false => Err(Failure::new(Exit::Failed, "not everything could be copied")),
    }
}

fn through(mount: &Path, path: &DrivePath) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    let below = path.0.strip_prefix(b"/").unwrap_or(&path.0);
    mount.join(std::ffi::OsStr::from_bytes(below))
}

fn is_directory(drive: &Drive, path: &DrivePath) -> bool {
    use rdrivefs_sync::tree::words::Kind;
    let ino = files::resolve(drive.tree(), path);
    ino.is_ok_and(|ino| drive.tree().attr(ino).is_ok_and(|attr| attr.kind == Kind::Directory))
}

fn inside(dir: &DrivePath, file: &Path) -> DrivePath {
    use std::os::unix::ffi::OsStrExt as _;
    let name = file.file_name().unwrap_or_default().as_bytes();
    DrivePath([dir.0.as_slice(), b"/", name].concat())
}

/// One-time URLs may be arguments, or come on standard input.
fn url_of(words: &str) -> Result<String> {
    if words != "-" {
        return Ok(words.to_owned());
    }
    let mut url = String::new();
    std::io::stdin().take(4_096).read_to_string(&mut url).map_err(Failure::io("read the URL"))?;
    Ok(url.trim().to_owned())
}

/// What this machine can do at best.
fn bench(common: &Common) -> Result<()> {
    let report = rdrivefs_sync::bench::measure(&Env::real());
    match common.json {
        true => println!("{}", serde_json::to_string(&report).expect("a report is plain data")),
        false => {
            for line in &report {
                println!("{:<28} {:>8.0} MB/s", line.what, line.mb_per_s);
            }
        }
    }
    Ok(())
}
