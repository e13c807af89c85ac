//! Requests of a controller: any bytes, decoded and checked against the rules of `agent.proto` as the agent does it.
#![no_main]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use hop_proto::limits::{
    MAX_ARGUMENTS, MAX_BASES, MAX_BLOB_CHUNK_BYTES, MAX_GRACE_MS, MAX_INPUT_TREES, MAX_JOB_ID_BYTES,
    MAX_LINGER_MS, MAX_MARK_BYTES, MAX_NAME_BYTES, MAX_OUTPUT_REQUESTS, MAX_OUTPUT_WINDOW_BYTES,
};
use hop_proto::v1::{RunRequest, run_request};
use hopd::job::session;
use hopd::job::spec::Spec;
use hopd::service::bounds::check_run_request;
use hopd::service::decode::{decode_message, decode_spec};
use hopd::store::receiver::Chunk;
use libfuzzer_sys::fuzz_target;
use prost::Message;

fuzz_target!(|bytes: &[u8]| {
    let are_lists_short = check_run_request(bytes).is_ok();
    let Ok(request) = RunRequest::decode(bytes) else { return };
    if let (true, Some(run_request::Message::Spec(spec))) = (are_lists_short, &request.message) {
        assert!(spec.args.len() + spec.env.len() <= MAX_ARGUMENTS && spec.bases.len() <= MAX_BASES);
        assert!(spec.inputs.len() <= MAX_INPUT_TREES && spec.output_files.len() <= MAX_OUTPUT_REQUESTS);
        assert!(spec.inputs.iter().all(|tree| tree.bases.len() <= MAX_BASES));
    }
    if let Some(run_request::Message::Spec(spec)) = &request.message
        && let Ok(spec) = decode_spec(spec.clone())
    {
        check(&spec);
    }
    if let Ok(session::Request::Chunk(Chunk { data, .. })) = decode_message(request) {
        assert!(data.len() <= MAX_BLOB_CHUNK_BYTES);
    }
});

/// Checks the properties that the rest of the agent relies on.
fn check(spec: &Spec) {
    assert!(is_file_name(&spec.name) && spec.name.len() <= MAX_NAME_BYTES, "{:?}", spec.name);
    assert!(spec.name.to_str().is_some_and(|name| !name.contains(char::is_control)), "{:?}", spec.name);
    if let Some(id) = &spec.id {
        assert!(is_file_name(OsStr::new(id)) && id.len() <= MAX_JOB_ID_BYTES, "{id:?}");
    }
    assert!((1..=u64::from(MAX_OUTPUT_WINDOW_BYTES)).contains(&spec.output_window));
    assert!(spec.program.size > 0);
    assert!(spec.output_files.len() <= MAX_OUTPUT_REQUESTS);
    for path in &spec.output_files {
        let path = Path::new(OsStr::from_bytes(path));
        assert!(
            path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)),
            "{path:?}"
        );
    }
    for (index, tree) in spec.inputs.iter().enumerate() {
        assert!(is_file_name(OsStr::from_bytes(&tree.directory)), "{:?}", tree.directory);
        assert!(spec.inputs[..index].iter().all(|other| other.directory != tree.directory));
        assert!(tree.archive.size > 0 && tree.size <= u32::MAX.into());
    }
    let stays = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    assert!(spec.working_directory.components().all(stays), "{:?}", spec.working_directory);
    assert!(spec.workdir_placeholder.len() <= MAX_MARK_BYTES);
    assert!(spec.grace.as_millis() <= MAX_GRACE_MS.into());
    assert!(spec.linger.is_none_or(|linger| linger.as_millis() <= MAX_LINGER_MS.into()));
    let variables = spec.env.iter().flat_map(|(name, value)| [name, value]);
    for text in spec.args.iter().chain(variables) {
        assert!(!text.as_bytes().contains(&0), "{text:?}");
    }
    for (name, _) in &spec.env {
        assert!(!name.is_empty() && !name.as_bytes().contains(&b'='), "{name:?}");
    }
}

/// True if joining it to a directory gives a path directly below that, which the kernel accepts.
fn is_file_name(name: &OsStr) -> bool {
    let mut parts = Path::new(name).components();
    let is_normal = matches!(parts.next(), Some(Component::Normal(only)) if only == name);
    is_normal && parts.next().is_none() && !name.as_bytes().contains(&0)
}
