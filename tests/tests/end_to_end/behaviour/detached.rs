//! Programs that run on without a `hop`: what becomes of their output, and how it is read.

use super::Behaviour;
use hop_proto::limits::OUTPUT_WINDOW_BYTES;
use hop_tests::{Hop, Target, VirtualRouter, wait_until};
use rustix::process::Signal;
use serde_json::Value;

pub const ALL: &[Behaviour] = &behaviours! {
    Everywhere:
        unread_log_never_stalls_a_program;
    Portable:
        log_can_wait_for_a_reader,
        followed_log_ends_with_its_reader_or_job,
        last_lines_of_a_log_are_printed,
        attached_hop_keeps_its_signals;
};

/// Lines that fill more than the windows of both outputs.
const MANY: usize = 30_000;

/// Starts a program, leaves it, and gives the id of its job.
fn detach(router: &VirtualRouter, options: &[&str], name: &str, args: &[&str]) -> String {
    let options = [&["--detach"], options].concat();
    let ran = router.exec_with(&options, name).args(args).run();
    assert_eq!((ran.stderr(), ran.code), ("", 0));
    ran.stdout().trim_end().to_owned()
}

/// What `hop ps` says of the only job.
fn job(router: &VirtualRouter) -> Value {
    let ran = router.hop().args(["ps", "-r", "router", "--json"]).run();
    assert_eq!(ran.code, 0, "{}", ran.stderr());
    let jobs: Vec<Value> = serde_json::from_slice(&ran.stdout).unwrap();
    let [job] = &jobs[..] else { panic!("{jobs:?}") };
    job.clone()
}

fn logs(router: &VirtualRouter, options: &[&str]) -> Hop {
    router.hop().args(["logs", "-r", "router"]).args(options)
}

/// What `flood` writes to this output.
fn flood(stream: &str) -> String {
    (0..MANY).map(|line| format!("/dev/{stream} {line}\n")).collect()
}

fn unread_log_never_stalls_a_program(target: Target) {
    let router = VirtualRouter::start(target);
    detach(&router, &["--log-size", "64K"], "flood", &[&MANY.to_string()]);
    wait_until("the program has written everything", || job(&router)["exit_code"] == 0);
    let (out, err) = (flood("stdout"), flood("stderr"));
    for command in ["logs", "attach", "logs", "attach"] {
        let ran = router.hop().args([command, "-r", "router"]).run();
        assert_eq!(ran.code, 0, "{}", ran.stderr());
        assert!(out.ends_with(ran.stdout()), "{command}: not the end of the output");
        assert!((64 << 10..100 << 10).contains(&ran.stdout().len()), "{}", ran.stdout().len());
        let (notice, rest) = ran.stderr().split_once('\n').unwrap();
        assert!(
            notice.starts_with("hop: the router dropped ") && notice.ends_with(" (--log-size)"),
            "{notice}"
        );
        assert!(err.ends_with(rest) && rest.len() >= 64 << 10, "{}", rest.len());
    }
    let dropped = job(&router)["dropped"].as_u64().unwrap();
    let kept = out.len() + err.len() - dropped as usize;
    assert!((128 << 10..200 << 10).contains(&kept), "{kept}");
    router.assert_serves_on();
}

fn log_can_wait_for_a_reader(target: Target) {
    let router = VirtualRouter::start(target);
    detach(&router, &["--log", "wait"], "flood", &[&MANY.to_string()]);
    wait_until("the program waits", || {
        let job = job(&router);
        job["waits_for"] == "output" && job["unread"].as_u64().unwrap() >= OUTPUT_WINDOW_BYTES.into()
    });
    let ran = logs(&router, &["--since", "1m"]).run();
    ran.assert_fails(125, "--since needs a log");
    let ran = router.hop().args(["attach", "-r", "router"]).run();
    assert_eq!(ran.code, 0, "{}", ran.stderr());
    assert!(ran.stdout() == flood("stdout") && ran.stderr() == flood("stderr"), "something is missing");
    router.assert_serves_on();
}

fn followed_log_ends_with_its_reader_or_job(target: Target) {
    let router = VirtualRouter::start(target);
    let id = detach(&router, &[], "flood", &[]);
    let mut follower = logs(&router, &["-f"]).start();
    assert!(!follower.line().is_empty());
    follower.close_stdout();
    assert_eq!(follower.wait_unread().code, 0);
    assert_eq!(job(&router)["state"], "running");
    router.hop().args(["kill", "-r", "router", &id]).run();
    wait_until("the program is gone", || job(&router)["state"] == "ended");
    // It ends by itself with a job that has ended, or that ends.
    assert_eq!(logs(&router, &["-f", "--tail", "1", &id]).run().code, 0);
    let id = detach(&router, &[], "signals", &["1"]);
    let mut follower = logs(&router, &["-f", &id]).start();
    assert_eq!(follower.line(), "ready\n");
    router.hop().args(["kill", "-r", "router", "-s", "HUP", &id]).run();
    let ran = follower.wait();
    assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("got hangup\n", "", 0));
    router.assert_serves_on();
}

fn last_lines_of_a_log_are_printed(target: Target) {
    let router = VirtualRouter::start(target);
    detach(&router, &[], "counter", &["10", "0"]);
    wait_until("the program has written everything", || job(&router)["state"] == "ended");
    assert_eq!(logs(&router, &["--tail", "3"]).run().stdout(), "7\n8\n9\n");
    assert_eq!(logs(&router, &["-n", "0"]).run().stdout(), "");
    assert_eq!(logs(&router, &["--since", "1h"]).run().stdout(), "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n");
    wait_until("all of it is older", || logs(&router, &["--since", "1ms"]).run().stdout().is_empty());
    router.assert_serves_on();
}

fn attached_hop_keeps_its_signals(target: Target) {
    let router = VirtualRouter::start(target);
    let leave = |id: &str| {
        let mut attached = router.hop().args(["attach", "-r", "router", "--no-signals", id]).start();
        assert_eq!(attached.line(), "ready\n");
        attached.signal(Signal::INT);
        let ran = attached.wait();
        assert_eq!(ran.code, 130);
        let said = format!("hop: left job {id}; `hop attach {id}` comes back to it\n");
        assert!(ran.stderr().starts_with(&said), "{}", ran.stderr());
        assert_eq!(job(&router)["state"], "running");
    };
    let kill = |id: &str| assert_eq!(router.hop().args(["kill", "-r", "router", id]).run().code, 0);
    // One that is not detached belongs to the newest hop.
    let mut first = router.exec("signals").arg("1").start();
    assert_eq!(first.line(), "ready\n");
    let id = job(&router)["job"].as_str().unwrap().to_owned();
    leave(&id);
    first.wait();
    kill(&id);
    router.wait_until_idle();
    let ran = router.hop().args(["attach", "-r", "router", &id]).run();
    assert_eq!((ran.stdout(), ran.code), ("ready\ngot terminated\n", 3));
    router.wait_until_forgotten();
    let id = detach(&router, &[], "signals", &["1"]);
    leave(&id);
    kill(&id);
    router.wait_until_idle();
    router.assert_serves_on();
}
