//! The control socket: one line asks, lines of progress follow, a last line answers.
//!
//! ```text
//! → {"version":1,"request":…}
//! ← {"progress":…}              any number of these
//! ← {"done":…} or {"failed":…}
//! ```
//!
//! The socket is mode 0600 in a directory of mode 0700, and the peer's user must be ours (or root).

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdrivefs_sync::progress::Progress;
use rdrivefs_sync::report::ProgressEvent;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::control::request::Request;
use crate::failure::{Exit, Failure, Result};

/// The version of these words; another one is refused.
const VERSION: u32 = 1;

/// Longest line either side takes: a listing of some hundred thousand files.
const LINE_BYTES_MAX: u64 = 256 << 20;

/// How long answers under way are waited for at the end, in steps.
const FINISH_STEP: Duration = Duration::from_millis(10);
const FINISH_STEPS: usize = 200;
/// The same for the end of the mount.
const UNMOUNT_STEPS: usize = 12_000;

/// Longest question.
const QUESTION_BYTES_MAX: u64 = 1 << 20;

#[derive(Serialize, Deserialize)]
struct Question {
    version: u32,
    request: Request,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Progress(ProgressEvent),
    Done(Value),
    Failed(Failure),
}

/// What carries requests out on the daemon's side.
pub type Daemon = Arc<dyn Fn(Request, &Progress) -> Result<Value> + Send + Sync>;

/// Whether somebody listens there.
pub fn is_served(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

/// Asks the daemon behind `socket`.
///
/// # Errors
/// What went wrong, there or on the way.
pub fn ask(
    socket: &Path,
    request: Request,
    progress: &mut dyn FnMut(ProgressEvent),
) -> Result<Value> {
    let broken = || Failure::io("ask the process that has the drive open");
    let mut stream = UnixStream::connect(socket).map_err(broken())?;
    send(&mut stream, &Question { version: VERSION, request }).map_err(broken())?;
    let mut lines = BufReader::new(stream);
    loop {
        let mut line = String::new();
        let read = (&mut lines).take(LINE_BYTES_MAX).read_line(&mut line).map_err(broken())?;
        if read == 0 {
            return Err(Failure::new(Exit::Failed, "the process that has the drive open has gone")
                .next("see its log in the state directory, then try again"));
        }
        match serde_json::from_str(&line) {
            Ok(Answer::Progress(event)) => progress(event),
            Ok(Answer::Done(value)) => return Ok(value),
            Ok(Answer::Failed(failure)) => return Err(failure),
            Err(e) => {
                return Err(Failure::new(
                    Exit::Failed,
                    format!("an answer that makes no sense: {e}"),
                )
                .next("unmount and mount again: another version may be running"));
            }
        }
    }
}

/// Listens on `socket` until the process ends, each question on a thread of its own.
///
/// # Errors
/// When it cannot be made.
pub fn listen(socket: &Path, daemon: Daemon) -> Result<Served> {
    if socket.exists() {
        std::fs::remove_file(socket).map_err(Failure::io("remove a socket left behind"))?;
    }
    let listener = UnixListener::bind(socket).map_err(Failure::io("make the control socket"))?;
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(socket, private).map_err(Failure::io("protect the control socket"))?;
    let served = Served(Arc::default());
    let busy = served.0.clone();
    let serve = move || {
        for stream in listener.incoming().flatten() {
            let (daemon, asked) = (daemon.clone(), busy.clone());
            let counted = Busy::new(&busy.answering);
            let answering = std::thread::Builder::new().name("control".into());
            // A thread that cannot be started leaves the asker with a closed connection.
            drop(answering.spawn(move || {
                answer(stream, &daemon, &asked);
                drop(counted);
            }));
        }
    };
    let thread = std::thread::Builder::new().name("control-socket".into()).spawn(serve);
    thread.map(|_| served).map_err(Failure::io("start a thread"))
}

/// Questions that are being answered.
pub struct Served(Arc<Asked>);

#[derive(Default)]
struct Asked {
    answering: Arc<AtomicUsize>,
    /// Of these, those that ended the mount. The kernel may take long to forget a million files,
    /// with nothing left for us to do.
    unmounting: Arc<AtomicUsize>,
}

struct Busy(Arc<AtomicUsize>);

impl Served {
    /// Gives answers under way a moment to be read, before the process ends.
    pub fn finish(&self) {
        wait_for(&self.0.unmounting, UNMOUNT_STEPS);
        wait_for(&self.0.answering, FINISH_STEPS);
    }
}

fn wait_for(count: &AtomicUsize, steps: usize) {
    for _ in 0..steps {
        if count.load(Ordering::Acquire) == 0 {
            return;
        }
        std::thread::sleep(FINISH_STEP);
    }
}

impl Busy {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn answer(stream: UnixStream, daemon: &Daemon, asked: &Asked) {
    let Ok(writer) = stream.try_clone() else { return };
    let writer = Arc::new(Mutex::new(writer));
    let say = |answer: &Answer| {
        if let Ok(mut writer) = writer.lock() {
            // Whoever asked may have gone; the work goes on all the same.
            drop(send(&mut *writer, answer));
        }
    };
    let mut unmounting = None;
    let answered = question(stream).and_then(|request| {
        unmounting = matches!(request, Request::Unmount).then(|| Busy::new(&asked.unmounting));
        let writer = writer.clone();
        let progress = Progress::new(move |event| {
            if let Ok(mut writer) = writer.lock() {
                drop(send(&mut *writer, &Answer::Progress(event)));
            }
        });
        daemon(request, &progress)
    });
    match answered {
        Ok(value) => say(&Answer::Done(value)),
        Err(failure) => say(&Answer::Failed(failure)),
    }
    drop(unmounting);
}

fn question(stream: UnixStream) -> Result<Request> {
    let peer = rustix::net::sockopt::socket_peercred(&stream)
        .map_err(|e| Failure::io("ask who is there")(e.into()))?;
    if !peer.uid.is_root() && peer.uid != rustix::process::geteuid() {
        return Err(Failure::new(Exit::Refused, "this drive belongs to another user"));
    }
    let mut line = String::new();
    let mut lines = BufReader::new(stream).take(QUESTION_BYTES_MAX);
    lines.read_line(&mut line).map_err(Failure::io("read a question"))?;
    if !line.ends_with('\n') {
        return Err(Failure::words("a question without an end"));
    }
    let version = serde_json::from_str::<Value>(&line).ok().and_then(|q| q["version"].as_u64());
    if version != Some(u64::from(VERSION)) {
        return Err(Failure::words("another version of rdrivefs has this drive open")
            .next("unmount it with that version first"));
    }
    let question: Question = serde_json::from_str(&line)
        .map_err(|e| Failure::words(format!("a question that makes no sense: {e}")))?;
    Ok(question.request)
}

fn send(to: &mut impl std::io::Write, what: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(what).expect("words are plain data");
    line.push(b'\n');
    to.write_all(&line)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn served(dir: &Path) -> std::path::PathBuf {
        let socket = dir.join("socket");
        let daemon: Daemon = Arc::new(|request, progress| {
            progress.advance(rdrivefs_sync::report::Phase::Push, 7, 1);
            match request {
                Request::Status => Ok(serde_json::json!({ "drive": "d" })),
                _ => Err(Failure::new(Exit::Refused, "no")),
            }
        });
        listen(&socket, daemon).unwrap();
        socket
    }

    #[test]
    fn a_question_is_answered_with_progress_on_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let socket = served(dir.path());
        let mut bytes = 0;
        let answer = ask(&socket, Request::Status, &mut |event| bytes += event.done_bytes);
        assert_eq!(answer.unwrap()["drive"], "d");
        assert_eq!(bytes, 7);
        let failure = ask(&socket, Request::KeyShow, &mut |_| ()).unwrap_err();
        assert_eq!(failure.code, Exit::Refused);
        let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn who_unmounts_is_answered_however_long_the_kernel_takes() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let (begun, beginning) = std::sync::mpsc::channel();
        let daemon: Daemon = Arc::new(move |_, _| {
            begun.send(()).unwrap();
            std::thread::sleep((FINISH_STEPS as u32 + 30) * FINISH_STEP);
            Ok(Value::Null)
        });
        let served = listen(&socket, daemon).unwrap();
        let asker = std::thread::spawn(move || ask(&socket, Request::Unmount, &mut |_| ()));
        beginning.recv().unwrap();
        served.finish();
        assert_eq!(served.0.answering.load(Ordering::Acquire), 0, "the process may end");
        assert_eq!(asker.join().unwrap().unwrap(), Value::Null);
    }

    #[test]
    fn other_versions_and_nonsense_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let socket = served(dir.path());
        for line in ["{\"version\":2,\"request\":\"status\"}\n", "nonsense\n", "{\"version\":1}\n"]
        {
            let mut stream = UnixStream::connect(&socket).unwrap();
            stream.write_all(line.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.contains("\"failed\""), "{line}: {answer}");
        }
    }
}
