//! What `hop` prints on a terminal, and only there.

use std::net::TcpListener;

use hop::config::home::Home;
use hop::config::inventory::{Entry, Inventory, Router};
use hop_tests::{Hop, Terminal};

use super::desk::Desk;

/// Enrols a router to which one can connect, and that never answers.
fn silent_router(desk: &Desk) -> TcpListener {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let home = Home::at(desk.home.path());
    let entry = Entry {
        address: socket.local_addr().unwrap().to_string(),
        fingerprint: home.identity().unwrap().fingerprint(),
        goarch: "mips".to_owned(),
        enrolment: None,
        process: None,
    };
    Inventory::new(&home).put(&Router { name: "silent".to_owned(), entry }).unwrap();
    socket
}

fn asking(desk: &Desk) -> Hop {
    desk.hop().args(["ps", "-r", "silent", "--connect-timeout", "1s"]).env("TERM", "xterm")
}

/// What is printed from the error on.
fn error_of(mut terminal: Terminal) -> String {
    let before = terminal.shows("error:");
    let label = before.rsplit(['\r', '\n']).next().unwrap().to_owned();
    label + &terminal.shows("silent")
}

#[test]
fn waiting_for_connection_is_shown() {
    let desk = Desk::new();
    let socket = silent_router(&desk);
    let mut terminal = asking(&desk).start_in_terminal([24, 60]);
    terminal.shows(&format!("hop: connecting to silent at {}", socket.local_addr().unwrap()));
    terminal.shows("error:");
    assert_eq!(terminal.wait(), Some(125));
    // Not in a log.
    let ran = asking(&desk).run();
    assert!(
        ran.stderr().starts_with("error:") && !ran.stderr().contains("connecting to"),
        "{}",
        ran.stderr()
    );
}

#[test]
fn errors_are_coloured_on_terminals() {
    let desk = Desk::new();
    let _socket = silent_router(&desk);
    let coloured = error_of(asking(&desk).start_in_terminal([24, 80]));
    assert!(coloured.contains("\u{1b}[31merror:"), "{coloured:?}");
    let plain = error_of(asking(&desk).env("NO_COLOR", "1").start_in_terminal([24, 80]));
    assert!(!plain.contains("\u{1b}[31m"), "{plain:?}");
    assert!(!asking(&desk).run().stderr().contains('\u{1b}'));
}

#[test]
fn info_wraps_in_narrow_window() {
    let desk = Desk::new();
    assert_eq!(desk.run(&["virtual", "up"]).code, 0);
    let mut terminal = desk.hop().args(["info"]).start_in_terminal([24, 50]);
    let text = terminal.shows("containment");
    let memory = text.lines().skip_while(|line| !line.starts_with("memory")).take(2).collect::<Vec<_>>();
    assert!(memory[1].starts_with("             ") && memory[0].len() <= 50, "{text}");
    assert_eq!(terminal.wait(), Some(0));
    let ran = desk.run(&["info"]);
    assert!(ran.stdout().lines().any(|line| line.starts_with("memory") && line.ends_with("kept free")));
}
