//! Mounting: in the foreground as the daemon, or by starting one and waiting until it is ready.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rdrivefs_sync::drive::Drive;
use rdrivefs_sync::home::Home;
use rdrivefs_sync::remote::env::Env;
use rdrivefs_sync::report::MountInfo;

use crate::cli::args::{Common, Mount};
use crate::cli::{places, secrets};
use crate::control::{self, Request};
use crate::failure::{Exit, Failure, Result};
use crate::mount::{Mounted, Options, mount};

/// Tells the daemon that its starter waits on this standard output for `ready` or a failure.
const STARTED_BY: &str = "RDRIVEFS_STARTED_BY";

/// Mounts; without `-f` another process does, and this one returns when the folder is usable.
pub(super) fn run(common: &Common, args: &Mount) -> Result<()> {
    let home = places::home(common)?;
    let dir = folder(&home, args)?;
    if control::is_served(&home.socket()) {
        return Err(taken(&home));
    }
    let passphrase = secrets::existing(&home, common)?;
    if !args.foreground {
        return start(common, args, &dir, &home, &passphrase);
    }
    let waiting = std::env::var_os(STARTED_BY).is_some();
    let served = serve(&home, &dir, args, &passphrase, waiting);
    if let (Err(failure), true) = (&served, waiting) {
        let line = serde_json::to_string(failure).expect("a failure is plain data");
        println!("{line}");
    }
    served
}

fn serve(
    home: &Home,
    dir: &Path,
    args: &Mount,
    passphrase: &secrets::Passphrase,
    waiting: bool,
) -> Result<()> {
    let env = Env::real();
    let drive =
        secrets::with_unlock(passphrase, |unlock| Ok(Drive::open(home, unlock, env.clone())?))?;
    let drive = Arc::new(drive);
    let mut options = Options::default();
    if drive.config().mount.allow_other {
        options.allow_other = true;
    }
    for list in &args.options {
        options = options.parse(list)?;
    }
    let own = places::own_directories(home);
    let mounted = mount(dir, &options, &own, drive.tree().clone(), env.clone())?;
    mounted.unmount_on_signals().map_err(Failure::io("watch for signals"))?;
    drive.start();
    listen(home, &drive, &mounted, &env)?;
    if waiting {
        println!("ready");
        drop(std::io::stdout().flush());
    }
    // Outside systemd there is nobody to tell.
    drop(sd_notify::notify(&[sd_notify::NotifyState::Ready]));
    let ended = mounted.wait();
    drop(sd_notify::notify(&[sd_notify::NotifyState::Stopping]));
    drop(std::fs::remove_file(home.socket()));
    drive.shutdown()?;
    Ok(ended?)
}

fn listen(home: &Home, drive: &Arc<Drive>, mounted: &Mounted, env: &Env) -> Result<()> {
    let info = MountInfo {
        dir: mounted.point().display().to_string(),
        pid: std::process::id(),
        since_ms: env.wall_ms().0,
    };
    let (drive, unmounter) = (drive.clone(), mounted.unmounter());
    control::listen(
        &home.socket(),
        Arc::new(move |request, progress| match request {
            Request::Unmount => {
                // The kernel hands over what it still holds while it lets go of the mount.
                unmounter.unmount()?;
                drive.tree().sync_all()?;
                Ok(serde_json::json!({ "unmounted": info.dir }))
            }
            Request::Status => {
                let mut status = drive.status()?;
                status.mount = Some(info.clone());
                Ok(serde_json::to_value(status).expect("a report is plain data"))
            }
            request => control::execute(&drive, request, progress),
        }),
    )
}

/// Starts a daemon and waits until it is ready or says why not.
fn start(
    common: &Common,
    args: &Mount,
    dir: &Path,
    home: &Home,
    passphrase: &secrets::Passphrase,
) -> Result<()> {
    let own = std::env::current_exe().map_err(Failure::io("find this program"))?;
    let log = home.state_dir().join("log");
    let log = File::options()
        .create(true)
        .append(true)
        .open(&log)
        .map_err(Failure::io("open the log"))?;
    let mut command = Command::new(own);
    command.args(["--drive", home.name(), "mount", "-f"]).arg(dir);
    for option in &args.options {
        command.args(["-o", option]);
    }
    if passphrase.is_some() {
        command.args(["--passphrase-file", "-"]);
    }
    for _ in 0..common.verbose {
        command.arg("-v");
    }
    let mut child = command
        .env(STARTED_BY, "1")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .process_group(0)
        .spawn()
        .map_err(Failure::io("start the daemon"))?;
    let mut stdin = child.stdin.take().expect("it is piped");
    if let Some(passphrase) = passphrase {
        stdin.write_all(passphrase.as_bytes()).map_err(Failure::io("tell the daemon"))?;
    }
    drop(stdin);
    let mut line = String::new();
    let mut out = child.stdout.take().expect("it is piped");
    let mut byte = [0];
    while out.read(&mut byte).is_ok_and(|n| n == 1) && byte[0] != b'\n' {
        line.push(byte[0] as char);
    }
    if line == "ready" {
        return Ok(());
    }
    Err(serde_json::from_str(&line).unwrap_or_else(|_| {
        let log = home.state_dir().join("log");
        Failure::new(Exit::Failed, "the daemon ended before the folder was usable")
            .next(format!("see {}", log.display()))
    }))
}

/// Unmounts, waiting until all is durable on this computer.
pub(super) fn unmount(common: &Common, dir: Option<&Path>, now: bool) -> Result<()> {
    let home = places::home(common)?;
    if !control::is_served(&home.socket()) {
        return unmount_dead(&home, dir);
    }
    if !now {
        // What is on its way to remotes goes on at the next mount; only this computer is waited for.
        tracing::debug!("waiting until all is durable here");
    }
    control::ask(&home.socket(), Request::Unmount, &mut |_| ())?;
    // The daemon lets the drive go when everything is written.
    let lock = || home.lock().is_ok();
    for _ in 0..3_000 {
        if lock() {
            return Ok(());
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Err(Failure::new(Exit::Busy, "it is unmounted, and still being written to disk")
        .next("wait a little before shutting down"))
}

/// A mount whose daemon is gone.
fn unmount_dead(home: &Home, dir: Option<&Path>) -> Result<()> {
    let dir = match dir {
        Some(dir) => dir.to_owned(),
        None => configured(home)?,
    };
    let gone = std::fs::metadata(&dir).is_err_and(|e| e.raw_os_error() == Some(ENOTCONN));
    if !gone {
        return Err(Failure::new(Exit::Failed, "this drive is not mounted"));
    }
    let ended = Command::new("fusermount3").args(["-u", "-z"]).arg(&dir).status();
    match ended.map_err(Failure::io("run fusermount3"))?.success() {
        true => Ok(()),
        false => {
            Err(Failure::new(Exit::Failed, format!("{} could not be unmounted", dir.display())))
        }
    }
}

const ENOTCONN: i32 = 107;

/// Where the drive is mounted, if its daemon runs.
pub(super) fn mounted_on(home: &Home) -> Option<PathBuf> {
    let status = control::ask(&home.socket(), Request::Status, &mut |_| ()).ok()?;
    Some(PathBuf::from(status["mount"]["dir"].as_str()?))
}

fn folder(home: &Home, args: &Mount) -> Result<PathBuf> {
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => configured(home)?,
    };
    std::path::absolute(dir).map_err(Failure::io("find the folder"))
}

fn configured(home: &Home) -> Result<PathBuf> {
    let dir = home.config()?.mount.dir;
    let Ok(below) = dir.strip_prefix("~") else { return Ok(dir) };
    let user = directories::BaseDirs::new()
        .ok_or_else(|| Failure::words("this user has no home directory").next("name the folder"))?;
    Ok(user.home_dir().join(below))
}

fn taken(home: &Home) -> Failure {
    let status = control::ask(&home.socket(), Request::Status, &mut |_| ()).unwrap_or_default();
    let (pid, dir) = (&status["mount"]["pid"], &status["mount"]["dir"]);
    Failure::new(Exit::Busy, format!("the drive is mounted already on {dir} by process {pid}"))
        .next("use it there, or unmount it first: `rdrivefs unmount`")
}
