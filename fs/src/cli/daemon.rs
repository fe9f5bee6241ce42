//! Mounting: in the foreground as the daemon, or by starting one and waiting until it is ready.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rdrivefs_sync::drive::Drive;
use rdrivefs_sync::home::Home;
use rdrivefs_sync::remote::env::Env;
use rdrivefs_sync::report::{DrivePath, MountInfo};

use crate::cli::args::{Common, Mount};
use crate::cli::{ask, places, say, secrets, unmount};
use crate::control::{self, Request};
use crate::failure::{Exit, Failure, Result};
use crate::mount::{Guard, Mounted, Options, is_dead_mount, mount};

/// What keeps glibc from holding on to what layers and requests of a MiB leave behind on many
/// threads: some 150 MiB without it. The systemd unit says the same.
const ALLOCATOR: [(&str, &str); 3] = [
    ("MALLOC_ARENA_MAX", "2"),
    ("MALLOC_MMAP_THRESHOLD_", "4194304"),
    // Without it what a request frees goes back to the system, and the next one faults it in anew.
    ("MALLOC_TRIM_THRESHOLD_", "8388608"),
];

/// How often it is looked whether a killed daemon is gone, and how many times: three seconds in all.
const DYING_LOOK_EVERY: Duration = Duration::from_millis(50);
const DYING_LOOKS_MAX: usize = 60;

/// Tells the daemon that its starter waits on this standard output for `ready` or a failure.
const STARTED_BY: &str = "RDRIVEFS_STARTED_BY";

/// Mounts; without `-f` another process does, and this one returns when the folder is usable.
pub(super) fn run(common: &Common, args: &Mount) -> Result<()> {
    let home = places::home(common)?;
    let dir = folder(&home, args)?;
    if !is_free(&home) {
        return Err(taken(&home));
    }
    options(args)?;
    let passphrase = secrets::existing(&home, common)?;
    let waiting = std::env::var_os(STARTED_BY).is_some();
    let say = Common { quiet: common.quiet || waiting, ..common.clone() };
    if !args.foreground {
        start(common, args, &dir, &home, &passphrase)?;
        tell(&say, &home);
        return Ok(());
    }
    let served = serve(&home, &dir, args, &passphrase, waiting, &say);
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
    common: &Common,
) -> Result<()> {
    let env = Env::real();
    let drive =
        secrets::with_unlock(passphrase, |unlock| Ok(Drive::open(home, unlock, env.clone())?))?;
    let drive = Arc::new(drive);
    let mut options = options(args)?;
    options.allow_other |= drive.config().mount.allow_other;
    let own = places::own_directories(home);
    let mounted = mount(dir, &options, &own, drive.clone(), env.clone())?;
    let _guard = guard(&mounted);
    mounted.unmount_on_signals().map_err(Failure::io("watch for signals"))?;
    drive.start();
    unmount::note(home, mounted.point())?;
    let served = listen(home, &drive, &mounted, &env)?;
    if waiting {
        println!("ready");
        drop(std::io::stdout().flush());
    }
    tell(common, home);
    // Outside systemd there is nobody to tell.
    drop(sd_notify::notify(&[sd_notify::NotifyState::Ready]));
    let ended = mounted.wait();
    drop(sd_notify::notify(&[sd_notify::NotifyState::Stopping]));
    drop(std::fs::remove_file(home.socket()));
    if ended.is_ok() {
        unmount::forget(home);
    }
    let closed = drive.shutdown();
    served.finish();
    closed?;
    Ok(ended?)
}

/// Without a guard the mount is as good, until this process is killed at a bad moment.
fn guard(mounted: &Mounted) -> Option<Guard> {
    let started = std::env::current_exe().and_then(|own| mounted.guard(&own));
    started.inspect_err(|error| tracing::warn!(%error, "nobody guards the mount")).ok()
}

fn listen(
    home: &Home,
    drive: &Arc<Drive>,
    mounted: &Mounted,
    env: &Env,
) -> Result<control::Served> {
    let info = MountInfo {
        dir: mounted.point().display().to_string(),
        pid: std::process::id(),
        since_ms: env.wall_ms().0,
    };
    let point = DrivePath(mounted.point().as_os_str().as_bytes().to_vec());
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
            Request::MountPoint => Ok(serde_json::json!({ "dir": point })),
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
        .envs(ALLOCATOR)
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

/// The options that the words after `-o` mean, over those there are.
fn options(args: &Mount) -> Result<Options> {
    let parse = |options: Options, list: &String| options.parse(list);
    Ok(args.options.iter().try_fold(Options::default(), parse)?)
}

/// Where the drive is now, and what may be done with it.
fn tell(common: &Common, home: &Home) {
    if common.quiet {
        return;
    }
    let Some(point) = ask::mounted_on(home) else { return };
    let remotes = control::ask(&home.socket(), Request::RemoteList, &mut |_| ());
    let next = match remotes.is_ok_and(|list| list.as_array().is_some_and(Vec::is_empty)) {
        true => "rdrivefs remote add NAME URL   so that this is not the only copy",
        false => "rdrivefs status, and at the end rdrivefs unmount",
    };
    let name = home.name();
    say::hint(common, &format!("The drive {name} is mounted on {}\nnext: {next}", point.display()));
}

fn folder(home: &Home, args: &Mount) -> Result<PathBuf> {
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => places::configured(home)?,
    };
    std::path::absolute(dir).map_err(Failure::io("find the folder"))
}

/// Whether no daemon serves the drive. One that was killed may take a moment to be gone: its socket
/// is there and answers nothing, or it still holds the drive under a mount that is dead.
fn is_free(home: &Home) -> bool {
    let socket = home.socket();
    let answers = || control::ask(&socket, Request::MountPoint, &mut |_| ()).is_ok();
    for _ in 0..DYING_LOOKS_MAX {
        match control::is_served(&socket) {
            true if answers() => return false,
            true => {}
            false if home.lock().is_ok() => return true,
            // Somebody at work: they are waited for by nobody, and named where the drive is opened.
            false if !unmount::left_on(home).is_some_and(|dir| is_dead_mount(&dir)) => return true,
            false => {}
        }
        std::thread::sleep(DYING_LOOK_EVERY);
    }
    !control::is_served(&socket)
}

fn taken(home: &Home) -> Failure {
    let status = control::ask(&home.socket(), Request::Status, &mut |_| ()).unwrap_or_default();
    let (pid, dir) = (&status["mount"]["pid"], status["mount"]["dir"].as_str().unwrap_or("?"));
    Failure::new(Exit::Busy, format!("the drive is mounted already on {dir} by process {pid}"))
        .next("use it there, or unmount it first: `rdrivefs unmount`")
}
