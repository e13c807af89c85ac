//! A program that has a terminal.

use super::Behaviour;
use hop_tests::{Target, VirtualRouter, fixture};

pub const ALL: &[Behaviour] = &behaviours! {
    Everywhere:
        program_has_the_users_terminal;
    Portable:
        terminal_outlives_a_connection,
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
