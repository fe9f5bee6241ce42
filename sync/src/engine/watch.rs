//! Waiting at a remote for entries this device does not have.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use rdrivefs_remote::entry::Head;
use rdrivefs_remote::logs::Logs as _;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::index::Index;
use crate::index::layers::RemoteNumber;
use crate::remotes::Remotes;
use crate::state::Event;

/// How long a node may hold a watch before it answers that nothing is new.
const WATCH_MS: u64 = 50_000;

/// The pauses after a watch that failed, the first and the longest: the node is away, and who is
/// back from sleep wants to hear of it at once.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Who waits.
#[derive(Clone)]
pub(super) struct Watch {
    pub(super) remotes: Arc<Remotes>,
    pub(super) index: Arc<Index>,
    pub(super) events: Sender<Event>,
}

impl Watch {
    /// Waits at this remote for as long as the drive has it.
    pub(super) fn begin(self, number: RemoteNumber, runtime: &Handle) -> JoinHandle<()> {
        runtime.spawn(async move {
            let mut seen = Vec::new();
            let mut pause: Option<Duration> = None;
            while let Some(remote) = self.remotes.by_number(number) {
                if let Some(wait) = pause {
                    // Whatever else reaches it ends the pause.
                    drop(tokio::time::timeout(wait, remote.back.notified()).await);
                    pause = Some((wait * 2).min(PAUSE_MAX));
                    if remote.link.connect().await.is_err() {
                        continue;
                    }
                    let _unheard = self.events.send(Event::Back(number));
                }
                let Ok(heads) = remote.link.watch(seen.clone(), WATCH_MS).await else {
                    pause = pause.or(Some(PAUSE_FIRST));
                    continue;
                };
                pause = None;
                let ours = self.index.heads().unwrap_or_default();
                if heads.iter().any(|head| is_news(head, &ours)) {
                    let _unheard = self.events.send(Event::News(number));
                }
                seen = heads;
            }
        })
    }
}

fn is_news(theirs: &Head, seen: &[Head]) -> bool {
    seen.iter().find(|head| head.log == theirs.log).is_none_or(|head| head.number < theirs.number)
}
