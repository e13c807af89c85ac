//! A program that has a terminal.

use super::Behaviour;
use hop_tests::{Target, VirtualRouter, fixture, wait_until};
use serde_json::Value;

pub const ALL: &[Behaviour] = &behaviours! {
    Everywhere:
        program_has_the_users_terminal;
    Portable:
        terminal_outlives_a_connection,
        escape_leaves_the_program_running,
        stopped_hop_says_what_becomes_of_the_program,
        third_interrupt_is_announced,
        tty_needs_a_terminal;
};

fn program_has_the_users_terminal(target: Target) {
    let router = VirtualRouter::start(target);
    let hop = router.exec_with(&["--tty"], "terminal").env("TERM", "vt220");
    let mut terminal = hop.start_in_terminal([33, 99]);
    for stream in ["stdin", "stdout", "stderr"] {
        terminal.shows(&format!("/dev/{stream}: 33 rows, 99 columns\r\n"));
    }
    terminal.shows("vt220\r\n");
    assert!(!terminal.is_cooked(), "the keys are the program's");
    terminal.type_in("hellp\x7fo\r");
    assert_eq!(terminal.shows("you said hello\r\n").matches("hell").count(), 2, "it is echoed once, there");
    terminal.type_in("\x03");
    terminal.shows("interrupted\r\n");
    terminal.resize([40, 120]);
    terminal.shows("now 40 rows, 120 columns\r\n");
    terminal.type_in("\x04");
    terminal.shows("end of input\r\n");
    assert_eq!(terminal.wait(), Some(7));
    assert!(terminal.is_cooked(), "the terminal is as it was");
    router.wait_until_forgotten();
    router.assert_serves_on();
}

fn terminal_outlives_a_connection(target: Target) {
    let router = VirtualRouter::start(target);
    let proxy = router.proxy();
    let hop = router.hop().args(["exec", "-t", "-r", "proxied"]).arg(fixture(target, "terminal"));
    let mut terminal = hop.start_in_terminal([24, 80]);
    terminal.shows("/dev/stderr: 24 rows, 80 columns\r\n");
    // hop sends the new size of a disconnected terminal when the connection is back.
    proxy.cut();
    terminal.resize([40, 120]);
    proxy.reset();
    terminal.shows("\r\nhop: the connection to proxied broke; reconnecting for up to 1m");
    terminal.shows("now 40 rows, 120 columns\r\n");
    terminal.type_in("still there?\r");
    terminal.shows("you said still there?\r\n");
    assert!(!terminal.is_cooked());
    terminal.type_in("\x04");
    assert_eq!(terminal.wait(), Some(7));
    assert!(terminal.is_cooked());
    router.assert_serves_on();
}

fn tty_needs_a_terminal(target: Target) {
    let router = VirtualRouter::start(target);
    let ran = router.exec_with(&["--tty"], "terminal").run();
    ran.assert_fails(125, "--tty needs a terminal, and standard input is none");
}

fn escape_leaves_the_program_running(target: Target) {
    let router = VirtualRouter::start(target);
    let state = || {
        let ran = router.hop().args(["ps", "-r", "router", "--json"]).run();
        let jobs: Value = serde_json::from_slice(&ran.stdout).unwrap();
        format!("{} {}", jobs[0]["state"].as_str().unwrap(), jobs[0]["controller"].as_str().unwrap())
    };
    let mut terminal = router.exec_with(&["--tty"], "terminal").start_in_terminal([33, 99]);
    terminal.shows("/dev/stderr: 33 rows, 99 columns\r\n");
    terminal.type_in("~?");
    terminal.shows("~d  leave, and let the program run on");
    terminal.type_in("one ~.\r");
    terminal.shows("you said one ~.\r\n");
    terminal.type_in("~~two\r");
    terminal.shows("you said ~two\r\n");
    terminal.type_in("~d");
    terminal.shows("which runs on; `hop attach ");
    assert_eq!(terminal.wait(), Some(0));
    assert!(terminal.is_cooked(), "the terminal is as it was");
    wait_until("the job is detached", || state() == "running detached");
    let attach = || router.hop().args(["attach", "-r", "router", "-t"]).start_in_terminal([33, 99]);
    let mut terminal = attach();
    terminal.type_in("three\r");
    terminal.shows("you said three\r\n");
    terminal.type_in("~.");
    terminal.shows("which runs on: hop attach ");
    assert_eq!(terminal.wait(), Some(0));
    assert_eq!(state(), "running detached");
    let mut terminal = attach();
    terminal.type_in("four\r");
    // From now on the terminal is the program's.
    terminal.shows("you said four\r\n");
    terminal.type_in("\x04");
    terminal.shows("end of input\r\n");
    assert_eq!(terminal.wait(), Some(7));
    router.assert_serves_on();
}

/// A shell with job control, which tells what comes of its job, and waits for a line before it lets it go on.
const SHELL: &str = "set -m; \"$@\"; echo stopped $?; read line; fg >/dev/null; echo done $?";

fn stopped_hop_says_what_becomes_of_the_program(target: Target) {
    let router = VirtualRouter::start(target);
    let start = |timeout| {
        let hop = router.exec_with(&["--reconnect-timeout", timeout], "counter").args(["1000000", "0"]);
        let mut terminal = hop.in_shell(SHELL).start_in_terminal([33, 99]);
        terminal.shows("5\r\n");
        terminal.type_in("\x1a");
        // The connection of a kept one does not end.
        let until = match target {
            Target::Kept => String::new(),
            _ => {
                format!("; the agent kills it unless this hop goes on within {timeout} (--reconnect-timeout)")
            }
        };
        terminal.shows(&format!("hop: stopped; the program runs on{until}: fg or bg\r\n"));
        terminal.shows("stopped ");
        terminal
    };
    let mut terminal = start("1m");
    terminal.type_in("\n");
    terminal.shows("\r\n90\r\n");
    terminal.type_in("\x03");
    terminal.shows("done 130\r\n");
    terminal.wait();
    if target == Target::Kept {
        return router.assert_serves_on();
    }
    let mut terminal = start("1s");
    router.wait_until_idle();
    terminal.type_in("\n");
    terminal.shows("longer than --reconnect-timeout, and the agent of router has killed the job");
    terminal.shows("done 125\r\n");
    terminal.wait();
    router.assert_serves_on();
}

fn third_interrupt_is_announced(target: Target) {
    let router = VirtualRouter::start(target);
    let mut terminal = router.exec("signals").arg("9").start_in_terminal([33, 99]);
    terminal.shows("ready\r\n");
    terminal.type_in("\x03");
    terminal.shows("got interrupt\r\n");
    terminal.type_in("\x03");
    terminal.shows("hop: the next Ctrl-C kills the program\r\n");
    terminal.type_in("\x03");
    assert_eq!(terminal.wait(), Some(137));
    router.assert_serves_on();
}
