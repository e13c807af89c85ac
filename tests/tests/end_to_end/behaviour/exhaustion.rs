//! Programs that use up what the router's own daemons need, or leave what is hard to remove.
//!
//! **Invariants** of each: it is killed with a reason, nothing of it is left, the router's own files can be written all
//! the time, and the next program runs.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::Behaviour;
use hop_tests::{Options, Target, VirtualRouter};

pub const ALL: &[Behaviour] = &behaviours! {
    NoCgroups:
        thread_eater_is_killed_alone;
    SmallMemory:
        nested_directories_are_removed,
        inode_eater_is_killed_alone;
};

/// More directories one in the other than a process may have descriptors.
const DEPTH: &str = "1200";

/// A tmpfs of which an eighth of the inodes is kept free.
const INODES: u64 = 4_000;
const TMPFS: &str = "size=16m,nr_inodes=4000";

fn nested_directories_are_removed(target: Target) {
    let mut router = VirtualRouter::start(target);
    let ran = router.exec("deep-directories").arg(DEPTH).run();
    assert_eq!(ran.code, 0, "{}", ran.stderr());
    assert!(router.leftovers().is_empty());
    // All of it is looked at, as far as that goes.
    let place = router.path("here");
    let output = format!(".:{}", place.display());
    let ran = router.exec_with(&["--artifact", &output], "deep-directories").arg(DEPTH).run();
    assert!(ran.stderr().contains("it is more than 32 directories deep"), "{}", ran.stderr());
    assert!(router.leftovers().is_empty());
    // Left by an agent that was killed, too.
    let mut running = router.exec("deep-directories").args([DEPTH, "wait"]).start();
    assert_eq!(running.line(), "ready\n");
    router.signal_agent(rustix::process::Signal::KILL);
    router.restart_agent();
    drop(running);
    assert!(router.leftovers().is_empty());
    router.assert_serves_on();
}

fn inode_eater_is_killed_alone(target: Target) {
    let router = VirtualRouter::start_with(target, &Options { tmpfs: Some(TMPFS), ..Options::default() });
    if !target.is_here() {
        return inodes_run_out(&router);
    }
    let ram = router.ram_seen();
    // What a daemon of the router does meanwhile.
    let is_over = AtomicBool::new(false);
    let write = || {
        while !is_over.load(Ordering::Relaxed) {
            let path = ram.join("state");
            fs::write(&path, "x").and_then(|()| fs::remove_file(&path))?;
        }
        io::Result::Ok(())
    };
    thread::scope(|scope| {
        let daemon = scope.spawn(write);
        // Also when an assertion fails: the scope waits for the daemon.
        let result = catch_unwind(AssertUnwindSafe(|| inodes_run_out(&router)));
        is_over.store(true, Ordering::Relaxed);
        daemon.join().unwrap().unwrap();
        result.unwrap_or_else(|panic| resume_unwind(panic));
    });
    // What others have taken is not given away.
    let many = ram.join("many");
    fs::create_dir(&many).unwrap();
    let taken = INODES - INODES / 8 - 100;
    (0..taken).for_each(|number| fs::write(many.join(number.to_string()), "").unwrap());
    let ran = router.exec("both-outputs").run();
    ran.assert_fails(125, "the job needs 10 inodes and");
    assert!(
        ran.stderr().contains("hint: remove files from that file system of the router"),
        "{}",
        ran.stderr()
    );
    fs::remove_dir_all(&many).unwrap();
    router.assert_serves_on();
}

fn inodes_run_out(router: &VirtualRouter) {
    let before = router.info();
    assert_eq!(before["store_inodes_total"], INODES);
    let status = router.path("status");
    let options = ["--status-file", status.to_str().unwrap()];
    let ran = router.exec_with(&options, "fill-inodes").run();
    assert_eq!(ran.code, 137, "{}", ran.stderr());
    let place = router.ram();
    let said = format!("hop: the program used up the inodes of {} and was killed:", place.display());
    assert!(ran.stderr().contains(&said), "{}", ran.stderr());
    let status: serde_json::Value = serde_json::from_slice(&fs::read(&status).unwrap()).unwrap();
    let exhausted = &status["exhausted"];
    assert_eq!((&status["outcome"], &exhausted["resource"]), (&"exhausted".into(), &"inodes".into()));
    assert_eq!(Path::new(exhausted["place"].as_str().unwrap()), place);
    assert!(exhausted["available"].as_u64().unwrap() < INODES / 8, "{exhausted}");
    assert!(router.leftovers().is_empty());
    router.assert_serves_on();
}

fn thread_eater_is_killed_alone(target: Target) {
    // No cgroup keeps the program from half of the threads.
    let router = VirtualRouter::start(target);
    let shell = router.shell();
    let used: u64 = shell.sh("cut -d/ -f2 /proc/loadavg | cut -d' ' -f1").trim().parse().unwrap();
    let before = shell.sh("cat /proc/sys/kernel/threads-max");
    shell.sh(&format!("echo {} >/proc/sys/kernel/threads-max", used + 300));
    let ran = router.exec("threads").run();
    shell.sh(&format!("echo {} >/proc/sys/kernel/threads-max", before.trim()));
    assert_eq!(ran.code, 137, "{}", ran.stderr());
    assert!(
        ran.stderr().contains("hop: the program used up the router's threads and was killed:"),
        "{}",
        ran.stderr()
    );
    assert!(router.leftovers().is_empty());
    router.assert_serves_on();
}
