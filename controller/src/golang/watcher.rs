//! Waits for changes of a program's source files.
//!
//! **Invariants:** many events at once are one change, and no change is lost between two waits.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use notify::event::{EventKind, ModifyKind, RenameMode};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::Error;
use super::sources::Sources;

/// How long nothing may change before a change is complete: an editor writes a file, renames it and sets its mode within less,
/// and so does one that writes several files.
const QUIET: Duration = Duration::from_millis(50);

/// Changes that are not yet waited for. One is as good as many.
const MAX_WAITING: usize = 1;

/// A watcher of source files.
pub struct SourceWatcher {
    watcher: RecommendedWatcher,
    sources: Arc<Mutex<Sources>>,
    watched: BTreeSet<PathBuf>,
    changes: mpsc::Receiver<PathBuf>,
    /// A change that is not complete yet.
    begun: Option<PathBuf>,
    /// One that nothing was built from yet.
    unhandled: Option<PathBuf>,
}

impl SourceWatcher {
    /// Watches these.
    ///
    /// # Errors
    /// The kernel refuses: there are too many watchers (fs.inotify.max_user_instances), or too many directories.
    pub fn new(sources: Sources) -> Result<Self, Error> {
        let sources = Arc::new(Mutex::new(sources));
        let (sender, changes) = mpsc::channel(MAX_WAITING);
        let known = sources.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if let Some(changed) = change(&known.lock().unwrap_or_else(PoisonError::into_inner), event) {
                // If it is full, a change is waiting already.
                let _ = sender.try_send(changed);
            }
        });
        let watcher = watcher.map_err(Error::Watch)?;
        let mut new =
            Self { watcher, sources, watched: BTreeSet::new(), changes, begun: None, unhandled: None };
        new.watch_directories()?;
        Ok(new)
    }

    /// Watches these instead: a program imports another package now, or no longer.
    ///
    /// # Errors
    /// As for [`SourceWatcher::new`].
    pub fn update(&mut self, sources: Sources) -> Result<(), Error> {
        *self.sources.lock().unwrap_or_else(PoisonError::into_inner) = sources;
        self.watch_directories()
    }

    fn watch_directories(&mut self) -> Result<(), Error> {
        let wanted = self.sources.lock().unwrap_or_else(PoisonError::into_inner).directories();
        for directory in &wanted {
            // Again also if it was watched: it may have been removed and made since.
            self.watcher.watch(directory, RecursiveMode::NonRecursive).map_err(Error::Watch)?;
        }
        for directory in self.watched.difference(&wanted) {
            // Fails if it is not there any more.
            let _ = self.watcher.unwatch(directory);
        }
        self.watched = wanted;
        Ok(())
    }

    /// The change that is not handled, or the next one. Cancel safe.
    pub async fn unhandled(&mut self) -> PathBuf {
        match &self.unhandled {
            Some(changed) => changed.clone(),
            None => self.changed().await,
        }
    }

    /// Says that something was built from all changes until now.
    pub fn set_handled(&mut self) {
        self.unhandled = None;
    }

    /// Waits for a change, and until nothing has changed for a moment. Returns the first of the files. Cancel safe.
    pub async fn changed(&mut self) -> PathBuf {
        if self.begun.is_none() {
            self.begun = self.changes.recv().await;
        }
        while let Ok(Some(_)) = tokio::time::timeout(QUIET, self.changes.recv()).await {}
        match self.begun.take() {
            Some(changed) => self.unhandled.insert(changed).clone(),
            // The watcher has gone, which it does with `self`.
            None => std::future::pending().await,
        }
    }
}

/// The source file that an event has changed, if one has.
fn change(sources: &Sources, event: notify::Result<Event>) -> Option<PathBuf> {
    // The kernel's queue was full: anything may have changed.
    let rescan = || Some(PathBuf::new());
    let Ok(event) = event else { return rescan() };
    if event.need_rescan() {
        return rescan();
    }
    // The build opens and reads all of them; and of a rename, each name has an event of its own.
    if matches!(event.kind, EventKind::Access(_) | EventKind::Modify(ModifyKind::Name(RenameMode::Both))) {
        return None;
    }
    event.paths.iter().find(|path| sources.has(path)).map(|path: &PathBuf| Path::to_owned(path))
}
