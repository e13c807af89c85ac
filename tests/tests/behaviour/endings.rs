//! How a program ended is told: exit codes, signals, time limits, and the processes that it leaves.

use hop_tests::{VirtualRouter, wait_until};
use rustix::process::Signal;
use serde_json::Value;

use crate::STAGE;

#[test]
fn the_exit_code_is_the_programs_own() {
    let router = VirtualRouter::start(STAGE);
    for code in [0, 1, 2, 7, 42, 124, 125, 126, 137, 255] {
        let ran = router.exec("exit-code").arg(code.to_string()).run();
        assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("", "", code));
    }
    router.assert_serves_on();
}

#[test]
fn signal_death_is_reported_as_128_plus_n() {
    let router = VirtualRouter::start(STAGE);
    // USR1 is 16 on MIPS and 10 here: the name travels, and the number is this machine's.
    for (name, number) in [("KILL", 9), ("TERM", 15), ("USR1", 10), ("SEGV", 11)] {
        let ran = router.exec("killed-by-signal").arg(name).run();
        assert_eq!((ran.stdout(), ran.code), ("", 128 + number), "{name}: {}", ran.stderr());
    }
    router.assert_serves_on();
}

#[test]
fn a_program_that_runs_too_long_is_ended_with_124() {
    let router = VirtualRouter::start(STAGE);
    let ran = router.hop().args(["exec", "--timeout", "1s"]).arg(hop_tests::fixture(STAGE, "wait")).run();
    assert_eq!((ran.stdout(), ran.code), ("ready\n", 124), "{}", ran.stderr());
    assert_eq!(ran.stderr(), "hop: program timed out and was killed\n");
    router.assert_serves_on();
}

#[test]
fn a_program_that_ignores_term_is_killed_after_the_grace() {
    let router = VirtualRouter::start(STAGE);
    let program = hop_tests::fixture(STAGE, "signals");
    let ran = router.hop().args(["exec", "--timeout", "1s"]).arg(program).arg("1000").run();
    assert_eq!(ran.code, 124, "{}", ran.stderr());
    assert_eq!(ran.stdout(), "ready\ngot terminated\n", "it was asked before it was killed");
    router.assert_serves_on();
}

#[test]
fn interrupts_are_the_programs() {
    let router = VirtualRouter::start(STAGE);
    let mut running = router.exec("signals").arg("3").start();
    assert_eq!(running.line(), "ready\n");
    for (signal, name) in [(Signal::INT, "interrupt"), (Signal::TERM, "terminated"), (Signal::HUP, "hangup")]
    {
        running.signal(signal);
        assert_eq!(running.line(), format!("got {name}\n"));
    }
    let ran = running.wait();
    assert_eq!((ran.stderr(), ran.code), ("", 3));
    router.assert_serves_on();
}

#[test]
fn an_interrupt_that_nobody_handles_ends_the_whole_group() {
    let router = VirtualRouter::start(STAGE);
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut running = router.exec("wait").start();
        assert_eq!(running.line(), "ready\n");
        running.signal(signal);
        let ran = running.wait();
        assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("", "", code));
    }
    router.assert_serves_on();
}

#[test]
fn quit_brings_gos_goroutine_dump() {
    let router = VirtualRouter::start(STAGE);
    let mut running = router.exec("wait").start();
    assert_eq!(running.line(), "ready\n");
    running.signal(Signal::QUIT);
    let ran = running.wait();
    assert_eq!(ran.code, 2);
    assert!(ran.stderr().contains("SIGQUIT") && ran.stderr().contains("goroutine 1"), "{}", ran.stderr());
    router.assert_serves_on();
}

#[test]
fn the_third_ctrl_c_kills() {
    let router = VirtualRouter::start(STAGE);
    let mut running = router.exec("signals").arg("1000").start();
    assert_eq!(running.line(), "ready\n");
    for _ in 0..2 {
        running.signal(Signal::INT);
        assert_eq!(running.line(), "got interrupt\n");
    }
    running.signal(Signal::INT);
    assert_eq!(running.wait().code, 137);
    router.assert_serves_on();
}

#[test]
fn a_signal_that_hop_was_told_to_ignore_is_ignored() {
    let router = VirtualRouter::start(STAGE);
    let mut running = router.exec("signals").arg("1").ignoring("HUP INT").start();
    assert_eq!(running.line(), "ready\n");
    for signal in [Signal::HUP, Signal::INT, Signal::TERM] {
        running.signal(signal);
    }
    let ran = running.wait();
    assert_eq!((ran.stdout(), ran.code), ("got terminated\n", 3), "as under nohup");
    router.assert_serves_on();
}

#[test]
fn hop_ends_when_asked_though_nobody_reads_its_output() {
    let router = VirtualRouter::start(STAGE);
    let mut running = router.exec("flood").arg("6000").start();
    assert_eq!(running.line(), "/dev/stdout 0\n");
    // The program has ended; its output is more than the pipe to us holds, and we do not read.
    router.wait_until_idle();
    running.signal(Signal::TERM);
    assert_eq!(running.wait_unread().code, 143);
    router.assert_serves_on();
}

#[test]
fn a_time_limit_of_zero_is_none() {
    let router = VirtualRouter::start(STAGE);
    let program = hop_tests::fixture(STAGE, "both-outputs");
    assert_eq!(router.hop().args(["exec", "--timeout", "0s"]).arg(program).run().code, 7);
}

#[test]
fn what_a_program_leaves_in_its_group_ends_with_it() {
    let router = VirtualRouter::start(STAGE);
    let ran = router.exec("orphan").run();
    // Were the process alive, it would hold the outputs, and standard error would say so.
    assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("", "", 5));
    router.assert_serves_on();
}

#[test]
fn a_process_that_escapes_is_ended_with_its_program_and_reported() {
    let router = VirtualRouter::start(STAGE);
    for how in ["session", "daemon"] {
        let ran = router.exec("orphan").arg(how).run();
        assert_eq!(ran.code, 5);
        assert_eq!(ran.stderr(), "hop: killed a process that the program had left running\n", "{how}");
        let number = ran.stdout().trim();
        assert!(
            number.parse::<u32>().is_ok() && !router.has(format!("/proc/{number}").as_ref()),
            "{how}: {number}"
        );
    }
    router.assert_serves_on();
}

#[test]
fn a_program_that_is_ended_takes_what_escaped_with_it() {
    let router = VirtualRouter::start(STAGE);
    let other = router.exec("dialogue").start();
    let program = hop_tests::fixture(STAGE, "orphan");
    let ran = router.hop().args(["exec", "--timeout", "1s"]).arg(program).args(["daemon", "wait"]).run();
    assert_eq!(ran.code, 124, "{}", ran.stderr());
    let number = ran.stdout().trim();
    assert!(number.parse::<u32>().is_ok() && !router.has(format!("/proc/{number}").as_ref()), "{number}");
    // What another job has is not touched.
    assert_eq!(other.wait().code, 0);
    router.assert_serves_on();
}

#[test]
fn a_fork_bomb_goes_to_its_last_process() {
    let router = VirtualRouter::start(STAGE);
    let program = hop_tests::fixture(STAGE, "fork-bomb");
    // As somebody else it has fewer processes, and is killed by an agent whose processes they are not.
    for user in ["0", "nobody"] {
        let hop = router.hop().args(["exec", "--timeout", "2s", "--grace", "0s", "--user", user]);
        let ran = hop.arg(&program).run();
        assert!([124, 137].contains(&ran.code), "{user}: {}: {}", ran.code, ran.stderr());
        assert_eq!(router.processes("fork-bomb"), 0, "{user}");
    }
    router.assert_serves_on();
}

#[test]
fn info_names_what_ends_processes_that_escape() {
    let router = VirtualRouter::start(STAGE);
    let level = &router.info()["containment"];
    match STAGE.has_cgroups() {
        Some(true) => assert_eq!(level, "cgroup"),
        Some(false) => assert_eq!(level, "descendants"),
        None => assert!(level == "cgroup" || level == "descendants", "{level}"),
    }
}

#[test]
fn a_program_in_a_cgroup_leaves_half_of_the_threads_to_the_router() {
    if STAGE.has_cgroups() != Some(true) {
        return;
    }
    let router = VirtualRouter::start(STAGE);
    let mut running = router.exec("pid").start();
    let number = running.line().trim().to_owned();
    let figures = router.shell().sh(&format!(
        "cat /proc/sys/kernel/threads-max /sys/fs/cgroup$(sed s/^0::// /proc/{number}/cgroup)/pids.max"
    ));
    let figures: Vec<u32> = figures.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(figures[1], figures[0] / 2);
    running.signal(Signal::TERM);
    running.wait();
    router.assert_serves_on();
}

#[test]
fn what_a_killed_agent_left_in_a_cgroup_is_ended_by_the_next_one() {
    let mut router = VirtualRouter::start(STAGE);
    if router.info()["containment"] != "cgroup" {
        return;
    }
    // It has left its group, its session, its parent and its environment.
    let mut running =
        router.exec_with(&["--reconnect-timeout", "0"], "orphan").args(["daemon", "wait"]).start();
    let number = running.line().trim().to_owned();
    router.signal_agent(Signal::KILL);
    running.wait();
    let path = format!("/proc/{number}");
    assert!(router.has(path.as_ref()), "nobody has ended it yet");
    router.restart_agent();
    wait_until("it is gone", || !router.has(path.as_ref()));
    router.assert_serves_on();
}

#[test]
fn a_program_that_is_silent_too_long_is_ended_with_124() {
    let router = VirtualRouter::start(STAGE);
    let program = hop_tests::fixture(STAGE, "wait");
    let ran = router.hop().args(["exec", "--idle-timeout", "1s"]).arg(program).run();
    assert_eq!((ran.stdout(), ran.code), ("ready\n", 124), "{}", ran.stderr());
    assert_eq!(ran.stderr(), "hop: program wrote no output for too long and was killed\n");
    // One that writes is not ended for the time that it takes.
    let program = hop_tests::fixture(STAGE, "flood");
    let ran = router.hop().args(["exec", "--idle-timeout", "1m"]).arg(program).arg("1000").run();
    assert_eq!(ran.code, 0, "{}", ran.stderr());
    router.assert_serves_on();
}

#[test]
fn the_status_file_tells_all() {
    let router = VirtualRouter::start(STAGE);
    let status_file = router.path("status");
    let status = |words: &[&str], fixture: &str| -> Value {
        let program = hop_tests::fixture(STAGE, fixture);
        router.hop().args(["exec", "--status-file"]).arg(&status_file).arg(program).args(words).run();
        serde_json::from_slice(&std::fs::read(&status_file).unwrap()).unwrap()
    };
    let exited = status(&["125"], "exit-code");
    assert_eq!((&exited["outcome"], &exited["exit_code"]), (&"exited".into(), &125.into()));
    assert!(exited["usage"]["max_rss_bytes"].as_u64().unwrap() > 100_000, "{exited}");
    let signaled = status(&["USR1"], "killed-by-signal");
    assert_eq!((&signaled["outcome"], &signaled["signal"]), (&"signaled".into(), &"USR1".into()));
    let flood = status(&["1000"], "flood");
    let lines = |name: &str| (0..1000).map(|i| format!("{name} {i}\n").len()).sum::<usize>();
    assert_eq!(flood["usage"]["stdout_bytes"], lines("/dev/stdout"));
    assert_eq!(flood["usage"]["stderr_bytes"], lines("/dev/stderr"));

    let ran = router.hop().args(["exec", "--status-file"]).arg(&status_file).arg("/etc/passwd").run();
    assert_eq!(ran.code, 126);
    let failed: Value = serde_json::from_slice(&std::fs::read(&status_file).unwrap()).unwrap();
    assert_eq!((&failed["outcome"], &failed["reason"]), (&"not_executed".into(), &"not_runnable".into()));
}
