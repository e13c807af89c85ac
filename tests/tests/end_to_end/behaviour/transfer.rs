//! How a program comes to the router: once, and no more of it than the router lacks.

use std::fs;
use std::path::PathBuf;

use super::Behaviour;
use hop::transfer::blob_cache::BlobCache;
use hop_proto::v1::{Encoding, ErrorReason};
use hop_tests::{Options, Target, VirtualRouter, fixture};

pub const ALL: &[Behaviour] = &behaviours! {
    Portable:
        repeated_program_is_not_sent,
        changed_program_is_a_delta,
        moved_addresses_make_relocated_delta,
        slow_link_gets_zstd,
        lost_base_uploads_whole_program,
        unused_blob_is_evicted_for_another,
        broken_encoding_leaves_nothing;
};

/// What `log-lines` takes at most against `both-outputs`: it is 22 kB, and would be 37 if Go's functions were not known by their names,
/// and 59 if no address were followed.
const RELOCATED_KIBIBYTES: f64 = 29.0;

/// A program that does the same as `both-outputs`, and is another file.
fn variant(router: &VirtualRouter, change: &[u8]) -> PathBuf {
    let path = router.path("both-outputs");
    let mut content = fs::read(fixture(router.target(), "both-outputs")).unwrap();
    // What is behind the last segment, nobody looks at.
    content.extend_from_slice(change);
    fs::write(&path, content).unwrap();
    path
}

/// What `hop exec -v` says that it sent.
fn sent(router: &VirtualRouter, program: &PathBuf) -> String {
    let ran = router.hop().args(["exec", "-v", "-r", "router"]).arg(program).run();
    assert_eq!((ran.stdout(), ran.code), ("out\n", 7), "{}", ran.stderr());
    let said = ran.stderr();
    let line = said.lines().find_map(|line| line.strip_prefix("hop: sent "));
    assert!(said.contains("hop: started after "), "{said}");
    line.unwrap_or_else(|| panic!("{said}")).to_owned()
}

fn repeated_program_is_not_sent(target: Target) {
    let router = VirtualRouter::start(target);
    let program = fixture(target, "both-outputs");
    assert!(sent(&router, &program).ends_with("compressed with LZ4"));
    assert!(sent(&router, &program).starts_with("nothing: the router has the program"));
    assert_eq!(router.info()["store_kept"], program.metadata().unwrap().len());
    router.assert_serves_on();
}

fn changed_program_is_a_delta(target: Target) {
    let router = VirtualRouter::start(target);
    sent(&router, &fixture(target, "both-outputs"));
    let said = sent(&router, &variant(&router, b"a line more"));
    assert!(said.ends_with("as a delta against what was sent before"), "{said}");
    let bytes: u64 = said.split(' ').next().unwrap().parse().unwrap();
    assert!(said.contains(" bytes of ") && bytes < 200, "{said}");
    // Of another name, too, and against the one that is there.
    let other = router.path("other-name");
    fs::rename(variant(&router, b"two lines more"), &other).unwrap();
    assert!(sent(&router, &other).contains("as a delta"));
    router.assert_serves_on();
}

fn moved_addresses_make_relocated_delta(target: Target) {
    let router = VirtualRouter::start(target);
    sent(&router, &fixture(target, "both-outputs"));
    // On a slow link there is time to look for them, whatever else this machine does.
    BlobCache::new(&router.home()).set_rate("router", 300_000);
    // Nearly all of it is the same runtime, elsewhere.
    let log_lines = fixture(target, "log-lines");
    let ran = router.hop().args(["exec", "-v", "-r", "router"]).arg(&log_lines).arg("2").run();
    assert_eq!((ran.stdout().len(), ran.code), (2 * 65_536, 0), "{}", ran.stderr());
    let said = ran.stderr().lines().find_map(|line| line.strip_prefix("hop: sent ")).unwrap();
    let is_relocated = said.ends_with("as a relocated delta against what was sent before");
    assert_eq!(is_relocated, !target.is_here(), "only for MIPS: {said}");
    if is_relocated {
        let (kibibytes, _) = said.split_once(" KiB of ").unwrap();
        assert!(kibibytes.parse::<f64>().unwrap() < RELOCATED_KIBIBYTES, "{said}");
    }
    router.assert_serves_on();
}

fn slow_link_gets_zstd(target: Target) {
    let router = VirtualRouter::start(target);
    BlobCache::new(&router.home()).set_rate("router", 500_000);
    assert!(sent(&router, &fixture(target, "both-outputs")).ends_with("compressed with zstd"));
    let rate = BlobCache::new(&router.home()).rate("router").unwrap();
    assert!(rate != 500_000, "it is measured again");
    router.assert_serves_on();
}

fn lost_base_uploads_whole_program(target: Target) {
    let router = VirtualRouter::start(target);
    sent(&router, &fixture(target, "both-outputs"));
    fs::remove_dir_all(router.home().cache().join("programs")).unwrap();
    assert!(sent(&router, &variant(&router, b"a line more")).ends_with("compressed with LZ4"));
    router.assert_serves_on();
}

fn unused_blob_is_evicted_for_another(target: Target) {
    let size = fixture(target, "both-outputs").metadata().unwrap().len();
    let options = Options { quota: Some(size + size / 2), ..Options::default() };
    let router = VirtualRouter::start_with(target, &options);
    sent(&router, &fixture(target, "both-outputs"));
    assert_eq!(router.info()["store_free"], size + size / 2, "cached programs count as free");
    let changed = variant(&router, b"a line more");
    // The store has no space for both, and a delta would need both.
    assert!(sent(&router, &changed).ends_with("compressed with LZ4"));
    assert_eq!(router.info()["store_kept"], size + 11);
    // And it stays while it is used.
    let mut running = router.exec("dialogue").start();
    assert_eq!(running.line(), "ready\n");
    router.hop().args(["exec", "-r", "router"]).arg(&changed).run().assert_fails(125, "the program needs ");
    assert_eq!(running.wait().code, 0);
}

fn broken_encoding_leaves_nothing(target: Target) {
    let router = VirtualRouter::start(target);
    for (encoding, content) in [
        (Encoding::Zstd, &b"not zstd"[..]),
        (Encoding::Lz4, b"not LZ4"),
        (Encoding::Delta, b"against nothing"),
        // A frame of "abc", where more was announced.
        (Encoding::Zstd, &[0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x03, 0x19, 0, 0, b'a', b'b', b'c']),
    ] {
        let reason = super::protocol::refusal_of_content(&router, encoding, content);
        assert_eq!(reason, ErrorReason::Protocol, "{encoding:?}");
    }
    router.wait_until_idle();
    assert_eq!(router.blobs(), []);
    router.assert_serves_on();
}
