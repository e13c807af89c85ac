//! The blobs of a job, from its admission until all are here: from the store, from the disk cache, or from the controller.
//!
//! **Invariants:** blobs are asked for in order, the program first; and an upload that makes no progress gives back what is reserved
//! for it.

use std::sync::Arc;
use std::time::Duration;

use crate::job::error::Error;
use crate::job::registry::JobRegistry;
use crate::job::running::is_set;
use crate::job::session::{JobCommand, JobCommands, Session};
use crate::job::spec::Spec;
use crate::store::blob::{Blob, Digest};
use crate::store::disk_cache::DiskCache;
use crate::store::receiver::{BlobReceiver, Need};
use crate::store::upload::Upload;

/// How long an upload may make no progress before its reserved memory is taken back.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// A blob that a job needs: its program, or an archive of input files.
pub enum BlobState {
    /// It is in the store.
    Cached(Arc<Blob>),
    /// Its space in the store is reserved, and it may be a delta against this blob.
    Uploading(Box<Upload>, Option<(Digest, Arc<Blob>)>),
}

impl BlobState {
    /// Looks for it in the disk cache. That may take seconds on a slow medium; what the controller says meanwhile waits, and one
    /// that goes for good ends it.
    pub(super) async fn fetch(
        self,
        disk_cache: &Arc<DiskCache>,
        session: &Arc<Session>,
        jobs: &JobRegistry,
    ) -> Result<Self, Error> {
        let Self::Uploading(upload, base) = self else { return Ok(self) };
        let (session, is_stopping) = (session.clone(), jobs.is_stopping());
        let upload =
            disk_cache.get(upload, Box::new(move || session.is_abandoned() || is_stopping())).await?;
        Ok(if upload.is_complete() { Self::Cached(upload.finish()?) } else { Self::Uploading(upload, base) })
    }
}

/// Receives what is not here yet, in order; gives all of it.
pub(super) async fn receive(
    parts: Vec<BlobState>,
    spec: &Spec,
    session: &Session,
    commands: &mut JobCommands,
    jobs: &JobRegistry,
) -> Result<Vec<Arc<Blob>>, Error> {
    let announced = std::iter::once(&spec.program).chain(spec.inputs.iter().map(|tree| &tree.archive));
    let mut needs = Vec::new();
    for part in &parts {
        if let BlobState::Uploading(upload, base) = part {
            let base = base.as_ref().map(|(digest, _)| *digest);
            needs.push(Need { digest: upload.digest(), offset: 0, base });
        }
    }
    let mut blobs = Vec::new();
    for (part, announced) in parts.into_iter().zip(announced) {
        blobs.push(match part {
            BlobState::Cached(blob) => blob,
            BlobState::Uploading(upload, base) => {
                let mut receiver = BlobReceiver::new(*upload, base, announced.checksum);
                receive_one(&mut receiver, &mut needs, session, commands, jobs).await?;
                needs.remove(0);
                receiver.finish()?
            }
        });
    }
    Ok(blobs)
}

/// Receives a blob to its last byte, by however many connections. It is the first of those that are needed.
async fn receive_one(
    receiver: &mut BlobReceiver,
    needs: &mut [Need],
    session: &Session,
    commands: &mut JobCommands,
    jobs: &JobRegistry,
) -> Result<(), Error> {
    let mut stopping = jobs.stopping();
    while !receiver.is_complete() {
        needs[0].offset = receiver.received();
        session.need(needs);
        let command = tokio::select! {
            // What was said counts before that nobody is there any more.
            biased;
            command = commands.recv() => command.ok_or(Error::Gone)?,
            () = session.abandoned() => return Err(Error::Gone),
            () = tokio::time::sleep(UPLOAD_TIMEOUT) => {
                return Err(Error::UploadStalled { after: UPLOAD_TIMEOUT });
            }
            () = is_set(&mut stopping) => return Err(Error::Stopping),
        };
        match command {
            JobCommand::Chunk(chunk) => receiver.take(&chunk)?,
            // A signal ends what would become the program, as it would end the program.
            JobCommand::Signal(_) => return Err(Error::Gone),
            JobCommand::Resize(_) | JobCommand::Start => {}
            JobCommand::Fault(error) => return Err(error),
        }
    }
    Ok(())
}
