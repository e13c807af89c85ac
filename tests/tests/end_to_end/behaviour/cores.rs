//! The core of a program that crashes: it comes with its program, and none stays on the router.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::Behaviour;
use hop_tests::{Hop, Target, VirtualRouter, fixture};
use rustix::process::Signal;
use serde_json::{Value, json};

pub const ALL: &[Behaviour] = &behaviours! {
    Everywhere:
        core_is_fetched_with_its_program,
        other_users_core_is_fetched,
        quit_fetches_core_and_artifacts,
        no_core_dump_without_crash_or_request,
        core_of_a_child_is_removed,
        core_is_removed_with_its_job;
    Routers:
        piped_core_pattern_is_refused,
        kernel_without_cores_is_refused;
};

/// What the program keeps backwards, so that it is in its memory and nowhere else.
const KEPT: &str = "what is kept in memory";

/// A router whose kernel writes cores; `None` on the one profile whose kernel was built without them, as DD-WRT's are.
fn router_that_writes_cores(target: Target) -> Option<VirtualRouter> {
    let router = VirtualRouter::start(target);
    let writes = target.is_here() || router.shell().holds("[ -e /proc/sys/kernel/core_pattern ]");
    assert_eq!(writes, target != Target::F7D7302);
    writes.then_some(router)
}

/// `hop run` of a program that crashes, with its core in `core`.
fn crash(router: &VirtualRouter, core: &Path, options: &[&str]) -> Hop {
    let hop = router.hop().args(["run", "-r", "router", "--core"]).arg(core).args(options);
    hop.args(["./tests/fixtures/crash", KEPT])
}

/// Where OpenWrt's kernel writes cores there is none; elsewhere they are among the files of the job.
fn assert_no_core_is_left(router: &VirtualRouter) {
    if let Target::Machine { .. } = router.target() {
        assert_eq!(router.shell().sh("ls -A /tmp | grep -F .core; true"), "");
    }
    router.assert_serves_on();
}

/// It is a core with the program's memory in it, and the program has its symbols.
fn assert_is_core(core: &Path) {
    let content = fs::read(core).unwrap();
    let e_type = if content[5] == 2 { content[17] } else { content[16] };
    assert_eq!((&content[..4], e_type), (&b"\x7fELF"[..], 4), "ET_CORE");
    let backwards: Vec<u8> = KEPT.bytes().rev().collect();
    assert!(content.windows(KEPT.len()).any(|window| window == backwards), "its memory is in it");
    let mut program = core.as_os_str().to_owned();
    program.push(".program");
    let symbols = Command::new("go").args(["tool", "nm"]).arg(&program).output().unwrap();
    assert!(String::from_utf8_lossy(&symbols.stdout).contains(" main.main\n"), "{symbols:?}");
    let content = fs::read(program).unwrap();
    assert!(content.windows(11).any(|window| window == b".debug_info" || window == b".debug_line"));
}

fn core_is_fetched_with_its_program(target: Target) {
    let Some(router) = router_that_writes_cores(target) else { return };
    let (core, status_file) = (router.path("cores/core"), router.path("status.json"));
    let ran = crash(&router, &core, &["--status-file", status_file.to_str().unwrap()]).run();
    assert_eq!((ran.stdout(), ran.code), ("ready\n", 134), "{}", ran.stderr());
    assert!(ran.stderr().contains("panic: nothing more to do"), "{}", ran.stderr());
    let core = core.display().to_string();
    let opens =
        format!("hop: program was killed by SIGABRT; `gdb-multiarch {core}.program {core}` opens its core\n");
    assert!(ran.stderr().ends_with(&opens), "{}", ran.stderr());
    assert_is_core(core.as_ref());
    let status: Value = serde_json::from_slice(&fs::read(status_file).unwrap()).unwrap();
    let file = &status["output_files"][0];
    assert_eq!((&file["file"], &file["truncated"]), (&json!(core), &json!(false)), "{status}");
    assert_no_core_is_left(&router);
}

fn other_users_core_is_fetched(target: Target) {
    let Some(router) = router_that_writes_cores(target) else { return };
    let core = router.path("core");
    let ran = crash(&router, &core, &["--user", "nobody"]).run();
    assert_eq!((ran.stdout(), ran.code), ("ready\n", 134), "{}", ran.stderr());
    assert_is_core(&core);
    assert_no_core_is_left(&router);
}

fn quit_fetches_core_and_artifacts(target: Target) {
    let Some(router) = router_that_writes_cores(target) else { return };
    let core = router.path("core");
    let output = format!("nothing:{}", router.path("nothing").display());
    let mut running = crash(&router, &core, &["--artifact", &output]).arg("wait").start();
    assert_eq!(running.line(), "ready\n");
    running.signal(Signal::QUIT);
    let ran = running.wait();
    assert_eq!(ran.code, 134, "{}", ran.stderr());
    assert!(ran.stderr().contains("goroutine 1"), "{}", ran.stderr());
    assert!(ran.stderr().contains("hop: nothing was not fetched: there is no such file\n"));
    assert_is_core(&core);
    assert_no_core_is_left(&router);
}

fn no_core_dump_without_crash_or_request(target: Target) {
    let Some(router) = router_that_writes_cores(target) else { return };
    let core = router.path("core");
    let hop = router.hop().args(["exec", "--core"]).arg(&core).arg(fixture(target, "both-outputs"));
    let ran = hop.run();
    assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("out\n", "err\n", 7));
    // A user's own word about crashes counts.
    let ran = crash(&router, &core, &["--env", "GOTRACEBACK=single"]).run();
    assert_eq!(ran.code, 2, "{}", ran.stderr());
    assert!(!core.exists());
    let ran = router.exec("killed-by-signal").arg("SEGV").run();
    assert_eq!((ran.stderr(), ran.code), ("", 139));
    assert_no_core_is_left(&router);
}

fn core_of_a_child_is_removed(target: Target) {
    let Some(router) = router_that_writes_cores(target) else { return };
    let core = router.path("core");
    let ran = crash(&router, &core, &[]).arg("child").run();
    assert_eq!((ran.stdout(), ran.code), ("ready\nready\n", 3), "{}", ran.stderr());
    assert!(ran.stderr().contains("panic: nothing more to do"), "{}", ran.stderr());
    assert!(!core.exists(), "it is not the program's");
    assert_no_core_is_left(&router);
}

fn core_is_removed_with_its_job(target: Target) {
    let Some(mut router) = router_that_writes_cores(target) else { return };
    let (core, proxy) = (router.path("core"), router.proxy());
    let hop = || {
        let hop =
            router.hop().args(["run", "-r", "proxied", "--reconnect-timeout", "1s", "--core"]).arg(&core);
        hop.args(["./tests/fixtures/crash", KEPT])
    };
    // More than what it says, and less than its core.
    proxy.cut_after_received(50_000);
    let running = hop().start();
    proxy.wait_until_cut();
    running.signal(Signal::KILL);
    running.wait();
    proxy.reset();
    router.wait_until_forgotten();
    assert!(!core.exists());
    assert_no_core_is_left(&router);
    proxy.cut_after_received(50_000);
    let running = hop().start();
    proxy.wait_until_cut();
    router.signal_agent(Signal::KILL);
    router.restart_agent();
    proxy.reset();
    assert_eq!(running.wait().code, 125);
    assert_no_core_is_left(&router);
}

fn piped_core_pattern_is_refused(target: Target) {
    let Some(router) = router_that_writes_cores(target) else { return };
    let pattern = "/proc/sys/kernel/core_pattern";
    let before = router.shell().sh(&format!("cat {pattern}"));
    router.shell().sh(&format!("echo '|/usr/bin/cores %p' >{pattern}"));
    let hop = router.hop().args(["exec", "-r", "router", "--core"]).arg(router.path("core"));
    let ran = hop.arg(fixture(target, "both-outputs")).run();
    router.shell().sh(&format!("echo '{}' >{pattern}", before.trim_end()));
    ran.assert_fails(125, "its kernel.core_pattern hands them to a program");
    router.assert_serves_on();
}

fn kernel_without_cores_is_refused(target: Target) {
    let router = VirtualRouter::start(target);
    if router.shell().holds("[ -e /proc/sys/kernel/core_pattern ]") {
        return;
    }
    let hop = router.hop().args(["exec", "-r", "router", "--core"]).arg(router.path("core"));
    let ran = hop.arg(fixture(target, "both-outputs")).run();
    ran.assert_fails(125, "core files are not available on this router: its kernel writes none");
    // One that is not asked for is none that is missed.
    let ran = router.exec("killed-by-signal").arg("SEGV").run();
    assert_eq!((ran.stderr(), ran.code), ("", 139));
    router.assert_serves_on();
}
