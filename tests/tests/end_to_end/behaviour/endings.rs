//! `hop` reports how a program ended: exit codes, signals, time limits, and the processes that it leaves.

use super::Behaviour;
use hop_tests::{Target, VirtualRouter, wait_until};
use rustix::process::Signal;
use serde_json::Value;

pub const ALL: &[Behaviour] = &behaviours! {
    Everywhere:
        signal_death_is_128_plus_n,
        process_left_in_group_is_killed,
        escaped_process_is_killed_and_reported,
        timed_out_program_takes_escaped_processes,
        fork_bomb_is_killed_entirely,
        info_names_the_containment,
        next_agent_kills_leftover_cgroup;
    Cgroups:
        cgroup_limits_threads_to_half;
    Portable:
        exit_code_is_the_programs_own,
        timeout_exits_with_124,
        ignored_term_is_killed_after_grace,
        interrupts_go_to_the_program,
        unhandled_interrupt_kills_the_group,
        quit_prints_goroutine_dump,
        third_ctrl_c_kills,
        signals_ignored_by_hop_stay_ignored,
        hop_exits_with_output_unread,
        zero_timeout_means_no_timeout,
        idle_timeout_exits_with_124,
        status_file_has_every_outcome;
};

fn exit_code_is_the_programs_own(target: Target) {
    let router = VirtualRouter::start(target);
    for code in [0, 1, 2, 7, 42, 124, 125, 126, 137, 255] {
        let ran = router.exec("exit-code").arg(code.to_string()).run();
        assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("", "", code));
    }
    router.assert_serves_on();
}

fn signal_death_is_128_plus_n(target: Target) {
    let router = VirtualRouter::start(target);
    // USR1 is 16 on MIPS and 10 here: the name travels, and the number is this machine's.
    for (name, number) in [("KILL", 9), ("TERM", 15), ("USR1", 10), ("SEGV", 11)] {
        let ran = router.exec("killed-by-signal").arg(name).run();
        assert_eq!((ran.stdout(), ran.code), ("", 128 + number), "{name}: {}", ran.stderr());
    }
    router.assert_serves_on();
}

fn timeout_exits_with_124(target: Target) {
    let router = VirtualRouter::start(target);
    let ran = router.hop().args(["exec", "--timeout", "1s"]).arg(hop_tests::fixture(target, "wait")).run();
    assert_eq!((ran.stdout(), ran.code), ("ready\n", 124), "{}", ran.stderr());
    assert_eq!(ran.stderr(), "hop: program timed out and was killed\n");
    router.assert_serves_on();
}

fn ignored_term_is_killed_after_grace(target: Target) {
    let router = VirtualRouter::start(target);
    let program = hop_tests::fixture(target, "signals");
    let ran = router.hop().args(["exec", "--timeout", "1s"]).arg(program).arg("1000").run();
    assert_eq!(ran.code, 124, "{}", ran.stderr());
    assert_eq!(ran.stdout(), "ready\ngot terminated\n", "it was asked before it was killed");
    router.assert_serves_on();
}

fn interrupts_go_to_the_program(target: Target) {
    let router = VirtualRouter::start(target);
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

fn unhandled_interrupt_kills_the_group(target: Target) {
    let router = VirtualRouter::start(target);
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut running = router.exec("wait").start();
        assert_eq!(running.line(), "ready\n");
        running.signal(signal);
        let ran = running.wait();
        assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("", "", code));
    }
    router.assert_serves_on();
}

fn quit_prints_goroutine_dump(target: Target) {
    let router = VirtualRouter::start(target);
    let mut running = router.exec("wait").start();
    assert_eq!(running.line(), "ready\n");
    running.signal(Signal::QUIT);
    let ran = running.wait();
    assert_eq!(ran.code, 2);
    assert!(ran.stderr().contains("SIGQUIT") && ran.stderr().contains("goroutine 1"), "{}", ran.stderr());
    router.assert_serves_on();
}

fn third_ctrl_c_kills(target: Target) {
    let router = VirtualRouter::start(target);
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

fn signals_ignored_by_hop_stay_ignored(target: Target) {
    let router = VirtualRouter::start(target);
    let mut running = router.exec("signals").arg("1").ignoring("HUP INT").start();
    assert_eq!(running.line(), "ready\n");
    for signal in [Signal::HUP, Signal::INT, Signal::TERM] {
        running.signal(signal);
    }
    let ran = running.wait();
    assert_eq!((ran.stdout(), ran.code), ("got terminated\n", 3), "as under nohup");
    router.assert_serves_on();
}

fn hop_exits_with_output_unread(target: Target) {
    let router = VirtualRouter::start(target);
    let mut running = router.exec("flood").arg("6000").start();
    assert_eq!(running.line(), "/dev/stdout 0\n");
    // The program has ended; its output is more than the pipe to us holds, and we do not read.
    router.wait_until_idle();
    running.signal(Signal::TERM);
    assert_eq!(running.wait_unread().code, 143);
    router.assert_serves_on();
}

fn zero_timeout_means_no_timeout(target: Target) {
    let router = VirtualRouter::start(target);
    let program = hop_tests::fixture(target, "both-outputs");
    assert_eq!(router.hop().args(["exec", "--timeout", "0s"]).arg(program).run().code, 7);
}

fn process_left_in_group_is_killed(target: Target) {
    let router = VirtualRouter::start(target);
    let ran = router.exec("orphan").run();
    // Were the process alive, it would hold the outputs, and standard error would say so.
    assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("", "", 5));
    router.assert_serves_on();
}

fn escaped_process_is_killed_and_reported(target: Target) {
    let router = VirtualRouter::start(target);
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

fn timed_out_program_takes_escaped_processes(target: Target) {
    let router = VirtualRouter::start(target);
    let other = router.exec("dialogue").start();
    let program = hop_tests::fixture(target, "orphan");
    let ran = router.hop().args(["exec", "--timeout", "1s"]).arg(program).args(["daemon", "wait"]).run();
    assert_eq!(ran.code, 124, "{}", ran.stderr());
    let number = ran.stdout().trim();
    assert!(number.parse::<u32>().is_ok() && !router.has(format!("/proc/{number}").as_ref()), "{number}");
    // What another job has is not touched.
    assert_eq!(other.wait().code, 0);
    router.assert_serves_on();
}

fn fork_bomb_is_killed_entirely(target: Target) {
    let router = VirtualRouter::start(target);
    let program = hop_tests::fixture(target, "fork-bomb");
    // As somebody else it has fewer processes, and is killed by an agent whose processes they are not.
    for user in ["0", "nobody"] {
        let hop = router.hop().args(["exec", "--timeout", "2s", "--grace", "0s", "--user", user]);
        let ran = hop.arg(&program).run();
        assert!([124, 137].contains(&ran.code), "{user}: {}: {}", ran.code, ran.stderr());
        assert_eq!(router.processes("fork-bomb"), 0, "{user}: {}: {}", ran.code, ran.stderr());
    }
    router.assert_serves_on();
}

fn info_names_the_containment(target: Target) {
    let router = VirtualRouter::start(target);
    let level = &router.info()["containment"];
    match target.has_cgroups() {
        Some(true) => assert_eq!(level, "cgroup"),
        Some(false) => assert_eq!(level, "descendants"),
        None => assert!(level == "cgroup" || level == "descendants", "{level}"),
    }
}

fn cgroup_limits_threads_to_half(target: Target) {
    let router = VirtualRouter::start(target);
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

fn next_agent_kills_leftover_cgroup(target: Target) {
    let mut router = VirtualRouter::start(target);
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

fn idle_timeout_exits_with_124(target: Target) {
    let router = VirtualRouter::start(target);
    let program = hop_tests::fixture(target, "wait");
    let ran = router.hop().args(["exec", "--idle-timeout", "1s"]).arg(program).run();
    assert_eq!((ran.stdout(), ran.code), ("ready\n", 124), "{}", ran.stderr());
    assert_eq!(ran.stderr(), "hop: program wrote no output for too long and was killed\n");
    // One that writes is not ended for the time that it takes.
    let program = hop_tests::fixture(target, "flood");
    let ran = router.hop().args(["exec", "--idle-timeout", "1m"]).arg(program).arg("1000").run();
    assert_eq!(ran.code, 0, "{}", ran.stderr());
    router.assert_serves_on();
}

fn status_file_has_every_outcome(target: Target) {
    let router = VirtualRouter::start(target);
    let status_file = router.path("status");
    let status = |words: &[&str], fixture: &str| -> Value {
        let program = hop_tests::fixture(target, fixture);
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
