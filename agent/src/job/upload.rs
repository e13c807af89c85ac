//! Gets the blobs of a job after its admission: from the store, from the disk cache, or from the controller.
//!
//! **Invariants:** the agent requests blobs in order, the program first; and an upload that makes no progress releases
//! its reservation.

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

/// How long an upload may make no progress before the agent cancels it and releases its reservation.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// A blob that a job needs: its program, or an archive of input files.
pub enum BlobState {
    /// The blob is in the store.
    Cached(Arc<Blob>),
    /// The blob is missing, but has its space reserved in the store; it may arrive as a delta against the second blob.
    Uploading(Box<Upload>, Option<(Digest, Arc<Blob>)>),
}

impl BlobState {
    /// Looks for a missing blob in the disk cache, which may take seconds on a slow medium. The controller's messages
    /// wait meanwhile, and an abandoned job cancels the copy.
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

/// Receives the missing blobs in order, and returns all blobs of the job.
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

/// Receives a blob to its last byte, over any number of connections. It is the first one in `needs`.
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
            // A command that has arrived takes precedence over the loss of the controller.
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
            // A signal cancels the upload, as it would kill the program.
            JobCommand::Signal(_) => return Err(Error::Gone),
            JobCommand::Resize(_) | JobCommand::Start => {}
            JobCommand::Fault(error) => return Err(error),
        }
    }
    Ok(())
}
